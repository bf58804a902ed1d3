"""Agent: fit, predict, evaluate, save and load, for every agent of this chapter."""

import contextlib
import warnings
from typing import NamedTuple

import keras
import numpy as np

from dlcompanion.checks import check_count
from dlcompanion.reinforcement.agents.base_agent import BaseAgent, begin_anew
from dlcompanion.reinforcement.agents.training_loop import LogEvery, TrainingLoop
from dlcompanion.reinforcement.environments.spaces_only import config_of
from dlcompanion.reinforcement.networks.actor import Actor

# What random numbers are for: each purpose has its own stream.
RESETS, ACTIONS, WEIGHTS, EVALUATION = range(4)


class Epoch(NamedTuple):
    """What was played and learned between two resets of all environments.

    Attributes:
        returns: Float array, the returns of the episodes that ended; if none did,
            what those under way have so far.
        lengths: Integer array, their lengths.
        steps: Integer, the steps of all environments together.
        logs: Dict from name to number, what the learner logged.

    Example:
        >>> Epoch(np.ones(2), np.ones(2), 20, {}).returns.mean()
        np.float64(1.0)
    """

    returns: np.ndarray
    lengths: np.ndarray
    steps: int
    logs: dict


class Agent(BaseAgent):
    """Learns a policy in an environment: ``fit``, ``predict``, ``evaluate``, ``save``.

    A subclass makes a learner, a compiled :class:`keras.Model` with an attribute
    ``policy``, hands it to :meth:`attach`, and defines ``epoch() -> Epoch``, which
    plays and learns. All that is random follows from ``seed`` and the number of the
    epoch, so that the weights, the optimizer and the counters are the whole state of
    an agent.

    Args:
        environments: ``Environments``.
        seed: Integer of at least 0, or None for one that is drawn.
        horizon: Positive integer, the number of steps after which an episode is
            truncated, or None for the environment's time limit, else 1000.
        config: Dict, the arguments of the subclass that JSON can hold.

    Raises:
        ValueError: If ``seed`` or ``horizon`` is neither None nor such an integer.

    Example:
        >>> from dlcompanion.reinforcement import REINFORCE
        >>> isinstance(REINFORCE("CartPole-v1", seed=0), Agent)
        True
    """

    counters = ("steps", "epochs", "_overshoot", "_reports")

    def __init__(self, environments, seed, horizon, config):
        if horizon is not None:
            horizon = check_count("horizon", horizon)
        super().__init__(seed, {**config, "horizon": horizon})
        self.environments = environments
        self.horizon = horizon or environments.time_limit or 1000
        self.steps = 0  # of all environments together, resets and waiting included
        self.epochs = 0
        self._overshoot = 0  # steps beyond what the last fit was asked for
        self._reports = 0  # epochs as callbacks count them: parts of one, too
        self._draws = np.random.default_rng(self.number(ACTIONS, 0))

    def attach(self, learner):
        """Learn with ``learner``, and act with its networks."""
        self.learner, self.policy = learner, learner.policy
        self.actor = Actor(learner)

    def default_scale(self):
        """What a network made by default multiplies observations with.

        Returns:
            Number: 1 / 255 for bytes, else 1.

        Warns:
            UserWarning: If the observations are images, which it flattens.
        """
        shape = self.environments.observation_shape
        if len(shape) == 3:
            warnings.warn(
                f"Observations of shape {shape} look like images, and the default "
                f"network flattens them: give {type(self).__name__} one of your own, "
                "with convolutions",
                stacklevel=4,
            )
        return self.environments.scale

    def epoch(self):
        """Play from a reset of all environments on, and learn.

        Returns:
            ``Epoch``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define epoch() -> Epoch")

    def part(self, steps):
        """An epoch, or as much of it as ``steps`` steps need.

        Args:
            steps: Integer of at least 1.

        Returns:
            ``(Epoch, over)``: whether the next one begins with a reset.
        """
        return self.epoch(), True

    # -- learning -------------------------------------------------------------------

    def fit(self, steps, callbacks=None, verbose="auto"):
        """Play and learn until ``steps`` more environment steps were made.

        An *epoch* begins with a reset of all environments and ends with
        ``on_epoch_end(epoch, logs)``, where ``logs`` has ``return_mean`` and
        ``length_mean`` of its episodes, what the learner logged, ``steps`` (all so far)
        and ``steps_per_second``. What learns from rollouts stops after one, within an
        epoch too, and the next call goes on from there; what learns from whole
        episodes plays them out. So a few more steps than asked for are made, and the
        next call makes as many fewer: ``fit(k)`` and ``fit(n - k)`` are ``fit(n)``.
        Epochs, and parts of them, are numbered on from call to call.

        Args:
            steps: Positive integer, the steps of all environments together.
            callbacks: List of :class:`keras.callbacks.Callback`. Their ``model`` is the
                agent's ``learner``, an epoch has one batch: ``CSVLogger``,
                ``EarlyStopping`` with ``monitor="return_mean", mode="max"``,
                ``ModelCheckpoint``, ``LearningRateScheduler`` and others work. A
                :class:`~dlcompanion.training.ResumableCheckpoint`, or Keras's
                ``BackupAndRestore``, brings an agent that is made anew to where a
                killed one was, and ``fit`` makes the steps that are left.
            verbose: ``"auto"`` or 1 for a progress bar, 2 for a line an epoch, 0 for
                silence.

        Returns:
            :class:`keras.callbacks.History` of this call.

        Raises:
            ValueError: If an argument is none of the above, or a callback one that
                needs single batches; if an observation, reward or output of the policy
                is not finite.
        """
        check_count("steps", steps)
        begin, target = self.steps, self.steps - self._overshoot + steps
        shown = ["return_mean", "steps_per_second"]
        loop = TrainingLoop(
            self.learner, callbacks, verbose, target - begin, shown, self
        )
        resumed = self.steps - begin  # by a callback
        if target <= begin:
            warnings.warn(
                f"fit({steps}) plays nothing: calls before it made "
                f"{self._overshoot} steps more than they were asked for",
                stacklevel=2,
            )
        self._overshoot = 0
        while self.steps < target and not self.learner.stop_training:
            number = max(self._reports, self.epochs)  # an old file has no reports
            loop.begin(number)
            epoch, over = self.part(target - self.steps)
            self.steps += epoch.steps
            self.epochs += over
            self._reports = number + 1
            done = self.steps - begin
            logs = {
                "return_mean": float(epoch.returns.mean()),
                "length_mean": float(epoch.lengths.mean()),
                **epoch.logs,
                "steps": self.steps,
                "steps_per_second": (done - resumed) / loop.seconds,
            }
            loop.end(logs, done, f"Epoch {number + 1}, step {done}/{target - begin}")
        if not self.learner.stop_training:
            self._overshoot = self.steps - target
        return loop.finish()

    def learn(
        self,
        total_timesteps,
        callback=None,
        log_interval=None,
        progress_bar=None,
        **kwargs,
    ):
        """:meth:`fit` in the words of Stable-Baselines3.

        Args:
            total_timesteps: Positive integer, ``steps`` of ``fit``.
            callback: :class:`keras.callbacks.Callback` or list of them: ``callbacks``
                of ``fit``.
            log_interval: Positive integer, the epochs between two lines of logs, or
                None for none.
            progress_bar: Boolean, or None for that of ``fit`` unless there are lines.
            **kwargs: Passed on to ``fit``.

        Returns:
            The agent.

        Raises:
            ValueError: As ``fit``, or if ``log_interval`` is no such integer.
        """
        callbacks = keras.tree.flatten([callback or [], kwargs.pop("callbacks", [])])
        if log_interval is not None:
            callbacks.append(LogEvery(check_count("log_interval", log_interval)))
            progress_bar = bool(progress_bar)
        if progress_bar is not None:
            kwargs.setdefault("verbose", int(progress_bar))
        self.fit(total_timesteps, callbacks=callbacks, **kwargs)
        return self

    def restart(self, seed):
        """Begin anew with another seed, with what is compiled.

        Afterwards the agent is as a new one of the same arguments and this seed: new
        weights, optimizer, memory, statistics and counters, and ``fit`` gives the
        same, bit for bit, a second or two earlier. To measure over several seeds, make
        the agent once and restart it before each ``fit``.

        Networks and optimizers that were given to the constructor are made anew from
        their config, after ``keras.utils.set_random_seed(seed)``. An initializer or
        layer with a seed of its own begins with that one for every ``seed``, as in
        :func:`dlcompanion.training.restart`.

        Args:
            seed: Integer of at least 0.

        Returns:
            The agent.

        Raises:
            ValueError: If ``seed`` is no such integer, or a network has no config.
        """
        kept = {"environments": self.environments}
        return begin_anew(self, seed, self.environments.vector, kept)

    # -- acting ---------------------------------------------------------------------

    def predict(self, observation, deterministic=True):
        """Action for an observation, or actions for a batch of them.

        Args:
            observation: Array of the shape of one observation, or with a batch axis
                before it.
            deterministic: Boolean: the most probable action, or one drawn with the
                policy's probabilities.

        Returns:
            An action of the environment's space, an integer or an array, or an array
            of them ``(batch, ...)``.

        Raises:
            ValueError: If the shape is another or a value is not finite.
        """
        batch, single = self._batch_of(observation)
        with self.actor.held():
            actions = self._player(deterministic, self._draws)(batch)
        return self._to_user(actions, single)

    def _batch_of(self, observation):
        """A batch of observations, and whether a single one was meant."""
        try:
            observation = np.asarray(observation, "float32")
        except (TypeError, ValueError) as error:  # a pair, as reset() returns it
            raise ValueError(
                "An observation is an array, env.reset()[0] and not env.reset(). "
                f"Received: observation={observation!r}"
            ) from error
        shape = self.environments.observation_shape
        single = observation.shape == shape
        if not single and (observation.shape[1:] != shape or not len(observation)):
            raise ValueError(
                f"An observation has shape {shape}, a batch of them (batch, ...), of "
                "one at least. "
                f"Received: observation.shape={observation.shape}"
            )
        if not np.isfinite(observation).all():
            raise ValueError(
                f"An observation must be finite. Received: observation={observation}"
            )
        return (observation[None] if single else observation), single

    def _to_user(self, actions, single):
        actions = self.environments.to_environment(actions)
        if not single:
            return actions
        whole = actions.ndim == 1 and np.issubdtype(actions.dtype, np.integer)
        return int(actions[0]) if whole else actions[0]

    def evaluate(self, episodes=20, deterministic=True, seed=None):
        """Play whole episodes in environments made for it, without learning.

        Args:
            episodes: Positive integer.
            deterministic: Boolean, as in ``predict``.
            seed: Integer, for other episodes. By default it follows from the agent's
                seed, so that two evaluations begin from the same states; training
                begins from others.

        Returns:
            Dict with ``return_mean``, ``return_std`` (over the episodes),
            ``length_mean`` and ``episodes``.

        Raises:
            ValueError: If ``episodes`` is not positive, or the agent was given an
                environment that cannot be made a second time.
        """
        check_count("episodes", episodes)
        returns, lengths = [], []
        copies = self.environments.another(min(episodes, 20))
        with contextlib.closing(copies), self.actor.held():
            while len(returns) < episodes:
                number = self.number(EVALUATION, len(returns)) if seed is None else seed
                numbers = np.random.SeedSequence([number, len(returns)])
                numbers = numbers.generate_state(2)
                random = np.random.default_rng(numbers[1])
                player = self._player(deterministic, random)
                played = copies.play(player, numbers[0], self.horizon)
                returns += played.returns.tolist()
                lengths += played.lengths.tolist()
        returns, lengths = np.array(returns[:episodes]), np.array(lengths[:episodes])
        return {
            "return_mean": float(returns.mean()),
            "return_std": float(returns.std()),
            "length_mean": float(lengths.mean()),
            "episodes": episodes,
        }

    def _player(self, deterministic, random):
        """A function from observations to actions, for episodes from their reset on."""
        states = None

        def act(observations):
            nonlocal states
            outputs, states = self._outputs(observations, states, not deterministic)
            return self._actions(outputs, deterministic, random)

        return act

    def _outputs(self, observations, states=None, exploring=False):
        """Finite parameters of the distribution of actions, and the policy's states."""
        outputs, states = self.actor.step("policy", observations, states)
        return self._finite(outputs), states

    def _finite(self, outputs):
        if not np.isfinite(outputs).all():
            raise ValueError(
                "The policy's output must be finite: training diverged, try a smaller "
                f"learning rate. Received: {outputs[~np.isfinite(outputs)][0]} "
                f"in epoch {self.epochs}, after {self.steps} steps"
            )
        return outputs

    def _actions(self, outputs, deterministic, random):
        """The most probable actions, or some with the policy's probabilities."""
        distribution = self.environments.distribution
        if deterministic:
            return distribution.best(outputs)
        return distribution.sample(outputs, random)

    # -- keeping --------------------------------------------------------------------

    def world_config(self):
        """The id of the environment, or None if it was made with anything else."""
        source = self.environments.source
        return source if isinstance(source, str) else None

    def spaces_config(self):
        """The spaces and the number of the environments."""
        vector = self.environments.vector
        return {
            "observations": config_of(vector.single_observation_space),
            "actions": config_of(vector.single_action_space),
            "count": self.environments.count,
        }

    def about(self):
        """The environment, what is seen of it and done there, for the ``repr``."""
        name = super().about()
        if hasattr(self.source, "spaces_only"):
            name = f"{self.world}=None, loaded to predict"
        seen = f"observations={self.environments.observation_shape}"
        return f"{name}, {seen}, actions={self.environments.vector.single_action_space}"

    @property
    def source(self):
        """What the environments were made of."""
        return self.environments.source

    def take(self, learner):
        """Go on with a learner from a file, with its target networks."""
        self.check_actions(learner)
        self.attach(learner)

    def check_actions(self, learner):
        """Refuse a learner whose actions are of another kind than the environment's."""
        meant = getattr(learner, "distribution", None)
        here = self.environments.distribution
        kinds = [(type(d).__name__, d.get_config()) for d in (meant or here, here)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                "The agent has learned actions of another space than this "
                f"environment's. Received: {_spelled(*kinds[0])} in the file, "
                f"{_spelled(*kinds[1])} in the environment"
            )


def _spelled(name, config):
    return f"{name}({', '.join(f'{k}={v!r}' for k, v in config.items())})"
