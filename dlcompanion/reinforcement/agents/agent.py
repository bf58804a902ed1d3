"""Agent: fit, predict, evaluate, save and load, for every agent of this chapter."""

import contextlib

import numpy as np

from dlcompanion.checks import check_count
from dlcompanion.reinforcement.agents import agent_file
from dlcompanion.reinforcement.agents.training_loop import TrainingLoop
from dlcompanion.reinforcement.networks.actor import in_numpy

# What random numbers are for: each purpose has its own stream.
RESETS, ACTIONS, WEIGHTS, EVALUATION = range(4)


class Agent:
    """Learns a policy in an environment: ``fit``, ``predict``, ``evaluate``, ``save``.

    A subclass makes ``learner``, a compiled :class:`keras.Model` with an attribute
    ``policy``, and defines ``improve(episodes) -> logs``, one update from one rollout.
    All that is random follows from ``seed`` and the number of the rollout, so that the
    weights, the optimizer and two counters are the whole state of an agent.

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

    def __init__(self, environments, seed, horizon, config):
        for name, value, least in (("seed", seed, 0), ("horizon", horizon, 1)):
            if value is not None and (
                not isinstance(value, int) or isinstance(value, bool) or value < least
            ):
                raise ValueError(
                    f"{name} must be None or an integer of at least {least}. "
                    f"Received: {name}={value!r}"
                )
        self.environments = environments
        self.seed = np.random.SeedSequence().entropy if seed is None else seed
        self.horizon = horizon or environments.time_limit or 1000
        self.config = {**config, "seed": self.seed, "horizon": horizon}
        self.steps = 0  # of all environments together, resets and waiting included
        self.rollouts = 0
        self._overshoot = 0  # steps beyond what the last fit was asked for
        self._draws = np.random.default_rng(self.number(ACTIONS, 0))

    def number(self, purpose, count):
        """A random number of 32 bits that depends on the seed and the arguments only.

        Args:
            purpose: Integer, ``RESETS``, ``ACTIONS``, ``WEIGHTS`` or ``EVALUATION``.
            count: Integer, for example the number of the rollout.

        Returns:
            Integer.
        """
        sequence = np.random.SeedSequence(self.seed, spawn_key=(purpose, count))
        return int(sequence.generate_state(1)[0])

    def attach(self, learner):
        """Take ``learner`` as the model that learns, and its policy to act with."""
        self.learner = learner
        self.policy = learner.policy
        self._in_numpy = in_numpy(self.policy)

    def improve(self, episodes):
        """One update of the learner.

        Args:
            episodes: ``Episodes``.

        Returns:
            Dict from name to number.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define improve(episodes) -> logs"
        )

    # -- learning -------------------------------------------------------------------

    def fit(self, steps, callbacks=None, verbose="auto"):
        """Play and learn until ``steps`` more environment steps were made.

        One rollout and its update are one *epoch*: it ends with
        ``on_epoch_end(rollout, logs)``, where ``logs`` has ``return_mean`` and
        ``length_mean`` of the rollout, what ``improve`` returns, ``steps`` (all so far)
        and ``steps_per_second``. Rollouts are never shortened, so a few more steps than
        asked for are made; the next call makes as many fewer. Rollouts are numbered on
        from call to call.

        Args:
            steps: Positive integer, the steps of all environments together.
            callbacks: List of :class:`keras.callbacks.Callback`. Their ``model`` is the
                agent's ``learner``: ``CSVLogger``, ``EarlyStopping`` with
                ``monitor="return_mean", mode="max"``, and ``ModelCheckpoint`` work.
            verbose: ``"auto"`` or 1 for a progress bar, 2 for a line a rollout, 0 for
                silence.

        Returns:
            :class:`keras.callbacks.History` of this call.

        Raises:
            ValueError: If an argument is none of the above; if an observation, reward
                or output of the policy is not finite.
        """
        check_count("steps", steps)
        begin, target = self.steps, self.steps - self._overshoot + steps
        shown = ["return_mean", "steps_per_second"]
        loop = TrainingLoop(self.learner, callbacks, verbose, target - begin, shown)
        self._overshoot = 0
        while self.steps < target and not self.learner.stop_training:
            loop.begin(self.rollouts)
            episodes = self._rollout()
            logs = {
                "return_mean": float(episodes.returns.mean()),
                "length_mean": float(episodes.lengths.mean()),
                **self.improve(episodes),
            }
            self.steps += episodes.playing.size
            self.rollouts += 1
            done = self.steps - begin
            logs |= {"steps": self.steps, "steps_per_second": done / loop.seconds}
            label = f"Rollout {self.rollouts}, step {done}/{target - begin}"
            loop.end(logs, done, label)
        if not self.learner.stop_training:
            self._overshoot = self.steps - target
        return loop.finish()

    def learn(self, total_timesteps, **kwargs):
        """:meth:`fit` under the name that Stable-Baselines3 has for it.

        Args:
            total_timesteps: Positive integer, ``steps`` of ``fit``.
            **kwargs: Passed on to ``fit``.

        Returns:
            The agent.
        """
        self.fit(total_timesteps, **kwargs)
        return self

    def _rollout(self):
        self._in_numpy.refresh()
        random = np.random.default_rng(self.number(ACTIONS, 1 + self.rollouts))
        return self.environments.play(
            lambda observations: self._sample(observations, random),
            self.number(RESETS, self.rollouts),
            self.horizon,
        )

    def _sample(self, observations, random):
        """Actions with the probabilities of the policy."""
        outputs = self._finite_outputs(observations)
        return self.environments.distribution.sample(outputs, random)

    def _best(self, observations):
        outputs = self._finite_outputs(observations)
        return self.environments.distribution.best(outputs)

    def _outputs(self, observations):
        """Parameters of the distribution of actions, here the policy's outputs."""
        return self._in_numpy(observations)

    def _finite_outputs(self, observations):
        return self._finite(self._outputs(observations))

    def _finite(self, outputs):
        if not np.isfinite(outputs).all():
            raise ValueError(
                "The policy's output must be finite: training diverged, try a smaller "
                f"learning rate. Received: {outputs[~np.isfinite(outputs)][0]} "
                f"in rollout {self.rollouts}, after {self.steps} steps"
            )
        return outputs

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
        self._in_numpy.refresh()
        actions = self._player(deterministic, self._draws)(batch)
        return self._to_user(actions, single)

    def _batch_of(self, observation):
        """A batch of observations, and whether a single one was meant."""
        observation = np.asarray(observation, "float32")
        shape = self.environments.observation_shape
        single = observation.shape == shape
        if not single and observation.shape[1:] != shape:
            raise ValueError(
                f"An observation has shape {shape}, a batch of them (batch, ...). "
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
        self._in_numpy.refresh()
        returns, lengths = [], []
        with contextlib.closing(self.environments.another(min(episodes, 20))) as copies:
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
        if deterministic:
            return self._best
        return lambda observations: self._sample(observations, random)

    # -- keeping --------------------------------------------------------------------

    def save(self, path):
        """Write the whole agent to one file, or leave the file as it was.

        The file holds the learner in Keras's own format (networks, optimizer), the
        arguments and the counters, and no pickle. ``fit(n)`` equals, bit for bit on one
        backend and machine, ``fit(k)``, ``save``, a new process, ``load`` and
        ``fit(n - k)``. Environments are not saved, nor need they be, as long as they
        honor ``reset(seed=...)``: every rollout begins with one.

        To survive a killed process, save from a callback:
        ``keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: agent.save(path))``.

        Args:
            path: String or path of the file.
        """
        source = self.environments.source
        if not self.learner.optimizer.built:  # before the first fit: it begins from 0
            self.learner.optimizer.build(self.learner.trainable_variables)
        state = {
            "agent": type(self).__name__,
            "environment": source if isinstance(source, str) else None,
            "config": self.config,
            "steps": self.steps,
            "rollouts": self.rollouts,
            "overshoot": self._overshoot,
            "draws": self._draws.bit_generator.state,
        }
        agent_file.write(path, state, self.learner, self.arrays())

    @classmethod
    def load(cls, path, environment=None):
        """The agent that was saved, ready to go on.

        Args:
            path: String or path of a file that ``save`` wrote.
            environment: As in the constructor. By default the id that the agent was
                made with; needed if it was made with anything else.

        Returns:
            The agent.

        Raises:
            ValueError: If the file is truncated, foreign, or of another kind of agent,
                no environment is known, or its spaces do not fit the policy.
        """
        state, learner, arrays = agent_file.read(path)
        if state["agent"] != cls.__name__:
            raise ValueError(
                f"{path} holds another agent. "
                f"Received: {state['agent']} in the file, {cls.__name__} asked for"
            )
        environment = state["environment"] if environment is None else environment
        if environment is None:
            raise ValueError(
                "This agent was not made with the id of an environment: pass "
                "load(path, environment=...). Received: environment=None"
            )
        agent = cls(environment, **cls.parts_of(learner), **state["config"])
        agent.check_actions(learner)
        agent.attach(learner)  # with what is not one of the parts: target networks
        agent.steps, agent.rollouts = state["steps"], state["rollouts"]
        agent._overshoot = state["overshoot"]
        agent._draws.bit_generator.state = state["draws"]
        agent.restore(arrays)
        return agent

    def arrays(self):
        """What there is to save beyond the learner and the counters.

        Returns:
            Dict from name to NumPy array: a replay memory, running statistics.
        """
        return {}

    def restore(self, arrays):
        """Take back what :meth:`arrays` gave.

        Args:
            arrays: Dict from name to NumPy array.
        """

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

    @staticmethod
    def parts_of(learner):
        """The arguments of the constructor that a loaded learner stands for."""
        raise NotImplementedError("an agent must define parts_of(learner) -> arguments")


def _spelled(name, config):
    return f"{name}({', '.join(f'{k}={v!r}' for k, v in config.items())})"
