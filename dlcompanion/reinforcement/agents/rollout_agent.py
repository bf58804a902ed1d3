"""RolloutAgent: agents that learn while episodes are under way."""

import json

import numpy as np

from dlcompanion.checks import check_count
from dlcompanion.reinforcement.agents.agent import ACTIONS, RESETS, Agent, Epoch
from dlcompanion.reinforcement.agents.rollout import RolloutCollector
from dlcompanion.reinforcement.networks.action_mask import mask_entries
from dlcompanion.reinforcement.normalized_environments import Normalizer


class RolloutAgent(Agent):
    """Collects rollouts of ``rollout_length`` steps, and learns from each.

    An *epoch* of ``fit`` resets all environments and makes ``horizon`` steps in each,
    rounded up to whole rollouts, episode after episode. Where ``fit`` ends within one,
    the next call goes on with it. A subclass defines
    ``learn_from_rollout(rollout, random)``, one update from ``rollout_length`` steps.

    Args:
        environments: ``Environments``.
        seed: As in ``Agent``.
        horizon: As in ``Agent``.
        rollout_length: Positive integer.
        config: As in ``Agent``; with a normalizer its
            ``"discount"`` is read.
        normalizer: :class:`~dlcompanion.reinforcement.Normalizer`, the dict of its
            arguments that a file holds, or None.

    Raises:
        ValueError: If ``rollout_length``, ``seed``, ``horizon`` or ``normalizer`` is
            none of the above.

    Example:
        >>> from dlcompanion.reinforcement import A2C
        >>> isinstance(A2C("CartPole-v1", seed=0), RolloutAgent)
        True
    """

    def __init__(
        self, environments, seed, horizon, rollout_length, config, normalizer=None
    ):
        self.rollout_length = check_count("rollout_length", rollout_length)
        config = {**config, "rollout_length": self.rollout_length}
        if isinstance(normalizer, dict):
            normalizer = Normalizer(**normalizer)
        self.normalizer = normalizer
        if normalizer is not None:
            if not isinstance(normalizer, Normalizer):
                raise ValueError(
                    "normalizer must be a Normalizer or None. "
                    f"Received: normalizer={normalizer!r}"
                )
            normalizer.build(environments.observation_shape, config["discount"])
            config["normalizer"] = normalizer.get_config()
        super().__init__(environments, seed, horizon, config)
        self.played = 0  # steps, those of the epoch under way included
        self._collector, self._under_way = None, {}

    logged = ()

    def default_scale(self):
        """As of ``Agent``; 1 where a normalizer has scaled observations before."""
        scale = super().default_scale()
        normalizes = self.normalizer is not None and self.normalizer.observations
        return 1.0 if normalizes else scale

    def attach(self, learner):
        """Learn with ``learner``, whose masks a normalizer leaves as they are."""
        if self.normalizer is not None and self.normalizer.observations:
            shape = self.environments.observation_shape
            self.normalizer.raw = mask_entries(learner.policy, shape)
        super().attach(learner)

    def explore(self, observations, random):
        """Actions while learning: here drawn from the policy.

        Args:
            observations: Float32 array ``(environments, ...)``.
            random: ``numpy.random.Generator`` of this epoch.

        Returns:
            Array ``(environments, ...)``.
        """
        outputs, _ = self._outputs(observations, exploring=True)
        return self._actions(outputs, False, random)

    def learn_from_rollout(self, rollout, random):
        """Learn from a rollout.

        Args:
            rollout: ``Rollout``, normalized if the agent has a normalizer.
            random: ``numpy.random.Generator`` of this epoch.

        Returns:
            Dict from name to number, empty if nothing was learned.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define "
            "learn_from_rollout(rollout, random) -> logs"
        )

    def summarize(self, logs):
        """Logs of an epoch, from those of its rollouts.

        Args:
            logs: List of dicts, what ``learn_from_rollout`` returned.

        Returns:
            Dict from name to number, here the means. What is ``logged`` is there from
            the first epoch on, NaN where nothing was learned: a file of columns has
            those of its first row.
        """
        names = dict.fromkeys(self.logged)
        names |= {name: None for row in logs for name in row}  # in order
        found = {n: [row[n] for row in logs if n in row] for n in names}
        return {n: float(np.mean(x)) if x else np.nan for n, x in found.items()}

    def epoch(self):
        """Play and learn in turns, ``horizon`` steps in each environment."""
        return self.part(np.inf)[0]

    def part(self, steps):
        """An epoch, or as many of its rollouts as it takes for ``steps`` steps."""
        try:
            if self._collector is None:
                self._begin()
            epoch, over = self._go_on(steps)
        except BaseException:  # nobody knows where the environments are now
            self._collector = None
            raise
        if over or not self.environments.own:  # between two calls others may play there
            self._under_way = {} if over else self.under_way()
            self._collector = None
        return epoch, over

    def _begin(self):
        """Reset all environments, or bring them to where they were left."""
        self._random = np.random.default_rng(self.number(ACTIONS, 1 + self.epochs))
        self._collector = RolloutCollector(
            self.environments, self.number(RESETS, self.epochs), self.horizon
        )
        self._left = -(-self.horizon // self.rollout_length)  # rollouts
        if self.normalizer is not None:
            self.normalizer.begin(self.environments.count)
            self._left += not self.normalizer.ready  # one for the statistics alone
        arrays, self._under_way = self._under_way, {}
        # a file may have met another number of environments since
        if arrays and arrays["epoch.actions"].shape[1] == self.environments.count:
            actions = iter(arrays["epoch.actions"])
            self._collector.play(lambda _: next(actions), len(arrays["epoch.actions"]))
            self._collector.take()  # these were logged
            self.take_up(arrays)

    def _go_on(self, steps):
        collector, random, played, logs = self._collector, self._random, 0, []
        self.played, ready = self.steps, False
        while self._left and (played < steps or not ready):
            ready = self.normalizer is None or self.normalizer.ready
            with self.actor.held():
                rollout = collector.play(
                    lambda observations: self.explore(observations, random),
                    self.rollout_length,
                )
            played += rollout.mask.size
            self.played = self.steps + played
            self._left -= 1
            logs.append(self._take_in(rollout, random))
        epoch = Epoch(*collector.take(), played, self.summarize(logs))
        return epoch, not self._left

    def _take_in(self, rollout, random):
        """Learn from a rollout, through the normalizer if there is one."""
        if self.normalizer is None:
            return self.learn_from_rollout(rollout, random)
        ready = self.normalizer.ready
        self.normalizer.see_rewards(rollout)
        scaled = self.normalizer.scaled(rollout)
        logs = self.learn_from_rollout(scaled, random) if ready else {}
        self.normalizer.see_observations(rollout)  # the policy that played has learned
        return logs

    def _scaled(self, observations):
        """Observations as the networks see them."""
        if self.normalizer is None:
            return observations
        return self.normalizer.scaled_observations(observations)

    def _outputs(self, observations, states=None, exploring=False):
        return super()._outputs(self._scaled(observations), states, exploring)

    def arrays(self):
        """The statistics of the normalizer, and where an epoch under way was left."""
        statistics = {} if self.normalizer is None else self.normalizer.arrays()
        return {**statistics, **self.under_way()}

    def under_way(self):
        """Where an epoch under way was left: what was done in it, to be done again.

        Returns:
            Dict from name to NumPy array, empty between two epochs.
        """
        if self._collector is None:
            return self._under_way
        arrays = {
            "epoch.actions": np.stack(self._collector.actions),
            "epoch.left": np.array(self._left),
            "epoch.random": np.frombuffer(
                json.dumps(self._random.bit_generator.state).encode(), "uint8"
            ),
        }
        if self.normalizer is not None:
            arrays["epoch.sums"] = self.normalizer.sums
        return arrays

    def take_up(self, arrays):
        """Go on with the epoch that :meth:`under_way` told of."""
        self._left = int(arrays["epoch.left"])
        state = json.loads(arrays["epoch.random"].tobytes())
        self._random.bit_generator.state = state
        if self.normalizer is not None:
            self.normalizer.sums = arrays["epoch.sums"]

    def restore(self, arrays):
        """Take back what :meth:`arrays` gave."""
        if self.normalizer is not None:
            self.normalizer.restore(arrays)
        self.played = self.steps
        self._under_way = {n: x for n, x in arrays.items() if n.startswith("epoch.")}
        self._collector = None
