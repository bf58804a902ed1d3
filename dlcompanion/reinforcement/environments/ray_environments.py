"""A vector environment whose environments live on Ray actors, on one machine or many.

Two things are worth more than speed here: the same seeds give the same run, however
the environments are spread, and a worker that dies costs time and nothing else.
"""

import copy
import functools
import itertools
import os
import pickle
import sys

import numpy as np

from dlcompanion.backend import require
from dlcompanion.checks import check_count
from dlcompanion.reinforcement.environments.ray_worker import worker_class

REPLACEMENTS = 3  # of one worker, in one call
_on_our_ray = set()  # ids of those on the Ray we started; the last to close stops it


def ray_environments(environment, num_envs, workers):
    """``num_envs`` environments, dealt out to ``workers`` processes of Ray.

    A vector environment of gymnasium like any other, for every agent of this chapter,
    ``PPO(ray_environments("MyEnv-v0", num_envs=16, workers=4))``. In each step every
    worker gets its share of the actions, all work at once, and the step is over when
    the last of them is. That costs a few milliseconds a step, so it pays where a
    worker's share of the environments takes many: simulators, and not CartPole.

    - *The same results.* Environment number ``i`` is reset with ``seed + i``, as
      ``gymnasium.vector.SyncVectorEnv`` does, and resets itself in the step after the
      end (``NEXT_STEP``). Observations, rewards, ends and infos are those of a
      ``SyncVectorEnv``, bit for bit, whatever the number of workers.
    - *Workers that die* are replaced. The new one makes the environments again, resets
      them with the last seed, repeats all actions since, and must come to what its
      predecessor had answered; training goes on as if nothing had happened. For that
      the actions since the last seeded reset are kept, and a first reset without a
      seed is given one. An exception of an environment is no death: it is raised here.
    - *Workers are light.* They import gymnasium and what makes the environment, and
      neither Keras nor a backend.

    If you have called ``ray.init``, to reach a cluster for example, the workers live
    there, wherever Ray finds room. Otherwise Ray is started on this machine, or where
    ``RAY_ADDRESS`` points to, and stopped when the last of these is closed.
    ``evaluate`` of an agent makes other environments on as many workers. No pictures
    are drawn.

    Args:
        environment: The id of a registered environment, or a function without arguments
            that makes an environment, the same whenever it is called. From a module
            it is imported by the workers, with all that the module imports; from the
            script itself, or a notebook, it is sent to them.
        num_envs: Positive integer, the number of environments.
        workers: Positive integer, the number of processes, at most ``num_envs``.

    Returns:
        A ``gymnasium.vector.VectorEnv``. ``close()`` it to end the processes.

    Raises:
        ValueError: If an argument is none of the above, the id is unknown, or a space
            is not one of ``Box``, ``Discrete``, ``MultiDiscrete``, ``MultiBinary``. In
            ``step`` and ``reset``: if there was no reset, the actions have another
            shape, or an environment did not repeat itself for a new worker.
        RuntimeError: If a worker and its three replacements died of the same call.
        ImportError: If Ray or gymnasium is not installed.

    Example:
        >>> environments = ray_environments("CartPole-v1", num_envs=3, workers=2)
        >>> observations, _ = environments.reset(seed=0)
        >>> observations, rewards, *_ = environments.step(np.array([1, 0, 1]))
        >>> observations.shape, rewards.tolist()
        ((3, 4), [1.0, 1.0, 1.0])
        >>> environments.close()

    References:
        Moritz et al., *Ray: A Distributed Framework for Emerging AI Applications*,
        2018. https://arxiv.org/abs/1712.05889
    """
    check_count("num_envs", num_envs)
    if check_count("workers", workers) > num_envs:
        raise ValueError(
            "Every worker needs an environment: workers must be at most num_envs. "
            f"Received: workers={workers}, num_envs={num_envs}"
        )
    gym = require("gymnasium", "ray")
    if isinstance(environment, str):
        try:  # the spec, since workers do not know what was registered here
            make = functools.partial(gym.make, gym.spec(environment))
        except gym.error.Error as error:
            raise ValueError(
                f"gymnasium cannot make this environment: {error} "
                f"Received: environment={environment!r}"
            ) from error
    elif callable(environment):
        make = environment
    else:
        raise ValueError(
            "environment must be the id of a gymnasium environment or a function that "
            f"makes one, in any process. Received: environment={environment!r}"
        )
    try:
        packed = require("ray", "ray").cloudpickle.dumps(make)
    except (TypeError, ValueError, AttributeError, pickle.PicklingError) as error:
        raise ValueError(
            f"What makes an environment is sent to the workers, and cannot be: {error}."
            f" Received: environment={environment!r}"
        ) from error
    return _vector_class()((packed, sys.path), num_envs, workers)


@functools.cache
def _vector_class():
    """The class, made once gymnasium and Ray are wanted."""
    gym, ray = require("gymnasium", "ray"), require("ray", "ray")
    lost = (
        ray.exceptions.RayActorError,
        ray.exceptions.ObjectLostError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.WorkerCrashedError,
    )

    class RayEnvironments(gym.vector.VectorEnv):
        """Environments on Ray actors."""

        def __init__(self, make, num_envs, workers):
            self._make, self.num_envs, self._actors = make, num_envs, []
            _start_ray(ray, self, workers)
            # placed with one CPU each where there is one, on many machines if there are
            self._worker = ray.remote(worker_class()).options(
                scheduling_strategy="SPREAD"
            )
            cuts = [len(part) for part in np.array_split(range(num_envs), workers)]
            ends = np.cumsum(cuts).tolist()
            self._shares = [slice(b - n, b) for n, b in zip(cuts, ends, strict=True)]
            self._actors = [self._worker.remote() for _ in range(workers)]
            self._log, self._digests = [], [None] * workers
            try:
                self._describe(self._gather(self._ask_to_build, self._ask_to_build))
            except BaseException:
                self.close()
                raise

        def _describe(self, made):
            """Spaces and metadata, from what the workers built."""
            first = made[0]
            kinds = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")
            for name in ("observation_space", "action_space"):
                space = first[name]
                if type(space).__name__ not in kinds:
                    raise ValueError(
                        f"A space must be one of {', '.join(kinds)}; wrap the "
                        "environment, for example in gymnasium.wrappers."
                        f"FlattenObservation. Received: {name}={space}"
                    )
                other = [row[name] for row in made if row[name] != space]
                if other:
                    raise ValueError(
                        "All environments must have the same spaces. "
                        f"Received: {name}={space} and {other[0]}"
                    )
                setattr(self, f"single_{name}", space)
                batch = gym.vector.utils.batch_space(space, self.num_envs)
                setattr(self, name, batch)
            next_step = gym.vector.AutoresetMode.NEXT_STEP
            self.metadata = {**first["metadata"], "autoreset_mode": next_step}
            self.spec = first["spec"]

        def another(self, count):
            """As many others of the kind as are asked for."""
            workers = min(len(self._actors), count)
            return RayEnvironments(self._make, count, workers)

        # -- playing ------------------------------------------------------------------

        def reset(self, *, seed=None, options=None):
            if options and "reset_mask" in options:
                raise ValueError(
                    "Environments on Ray are reset all together, without reset_mask. "
                    f"Received: options={options}"
                )
            if seed is None or isinstance(seed, (int, np.integer)):
                numbers = range(self.num_envs)
                seed = [seed if seed is None else int(seed) + n for n in numbers]
            seeds = [s if s is None else int(s) for s in seed]
            if len(seeds) != self.num_envs:
                raise ValueError(
                    f"A list of seeds must have one for each of {self.num_envs} "
                    f"environments. Received: {len(seeds)} seeds"
                )
            if not self._log:  # what nobody seeded could not be repeated
                drawn = np.random.SeedSequence().generate_state(self.num_envs).tolist()
                pairs = zip(seeds, drawn, strict=True)
                seeds = [d if s is None else s for s, d in pairs]
            if None not in seeds:  # nothing from before matters any more
                self._log, self._digests = [], [None] * len(self._actors)
            return self._call("reset", seeds, copy.deepcopy(options))

        def step(self, actions):
            if not self._log:
                raise ValueError("reset() comes before step(). Received: no reset")
            actions = np.array(actions)  # the caller may use the array again
            if actions.shape != self.action_space.shape:
                raise ValueError(
                    f"actions must have the shape {self.action_space.shape}. "
                    f"Received: actions.shape={actions.shape}"
                )
            return self._call("step", actions)

        def _call(self, name, rows, options=None):
            """Let all workers do the same, each for its share of the rows."""
            if self.closed or not ray.is_initialized():
                raise ValueError(
                    "These environments were closed, or Ray was shut down: make others."
                    f" Received: {name}()"
                )
            self._log.append((name, rows, options))
            try:
                answers = self._gather(self._ask, self._ask_to_replay)
            except BaseException:  # some workers are a step ahead: begin with a reset
                self._log = []
                raise
            self._digests = [digest for _, _, digest in answers]
            columns = zip(*[outcome for outcome, _, _ in answers], strict=True)
            infos = {}
            for share, (_, raw, _) in zip(self._shares, answers, strict=True):
                for number, info in raw:
                    infos = self._add_info(infos, info, share.start + number)
            return *[np.concatenate(column) for column in columns], infos

        # -- workers ------------------------------------------------------------------

        def _ask_to_build(self, k):
            share = self._shares[k]
            return self._actors[k].build.remote(self._make, share.stop - share.start)

        def _ask(self, k):
            name, rows, options = self._log[-1]
            return self._actors[k].play.remote(name, rows[self._shares[k]], options)

        def _ask_to_replay(self, k):
            share = self._shares[k]
            calls = [(name, rows[share], o) for name, rows, o in self._log]
            count, digest = share.stop - share.start, self._digests[k]
            return self._actors[k].replay.remote(self._make, count, calls, digest)

        def _gather(self, ask, ask_again):
            """The answers of all workers; who dies is replaced, and asked again."""
            waiting = {k: ask(k) for k in range(len(self._actors))}
            answers = {}
            for tries in itertools.count():
                died = {}
                for k, answer in waiting.items():
                    try:
                        answers[k] = ray.get(answer)
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause from error  # of the environment
                    except lost as error:
                        died[k] = error
                if not died:
                    return [answers[k] for k in range(len(self._actors))]
                if tries == REPLACEMENTS:
                    k, error = next(iter(died.items()))
                    raise RuntimeError(self._fatal(k, error)) from error
                for k in died:
                    ray.kill(self._actors[k])  # it may be out of reach and alive
                    self._actors[k] = self._worker.remote()
                waiting = {k: ask_again(k) for k in died}

        def _fatal(self, k, error):
            first, last = self._shares[k].start, self._shares[k].stop - 1
            call = self._log[-1][0] if self._log else "making"
            return (
                f"The worker of the environments {first} to {last} and its "
                f"{REPLACEMENTS} replacements died of the same call ({call}): it "
                f"seems that an environment ends its process. Received: {error}"
            )

        def close_extras(self, **kwargs):
            ours = id(self) in _on_our_ray
            _on_our_ray.discard(id(self))
            if ray.is_initialized():
                for actor in self._actors:
                    ray.kill(actor)
                if ours and not _on_our_ray:
                    ray.shutdown()

    return RayEnvironments


def _start_ray(ray, environments, workers):
    """Start Ray if nobody has, and remember for whom."""
    if ray.is_initialized():
        if _on_our_ray:
            _on_our_ray.add(id(environments))
        return
    _on_our_ray.clear()  # someone else stopped it
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level="error")
    else:
        ray.init(
            "local",
            num_cpus=max(workers, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
        )
    _on_our_ray.add(id(environments))
