"""Bandits: one state, several arms, and the price of finding out which is best."""

import json
from typing import NamedTuple

import numpy as np

from dlcompanion.checks import check_count, check_number, generator


def _largest(values, random):
    """The arm of the largest value in each row; among equal ones one is drawn."""
    tied = values == values.max(axis=1, keepdims=True)
    return np.where(tied, random.random(values.shape), -1.0).argmax(axis=1)


class Greedy:
    """Pull the arm that has paid best so far, after each was pulled once.

    Among arms that have paid alike one is drawn.

    Example:
        >>> counts, sums = np.array([[3, 5]]), np.array([[2.0, 3.0]])
        >>> Greedy()(counts, sums, np.random.default_rng(0)).tolist()
        [0]
    """

    def __call__(self, counts, sums, random):
        untried = np.where(counts == 0, np.inf, 0.0)
        return _largest(sums / np.maximum(counts, 1) + untried, random)


class EpsilonGreedy(Greedy):
    """Pull the best arm so far, but now and then any arm.

    Args:
        exploration: Number in [0, 1], the probability of any arm.

    Raises:
        ValueError: If ``exploration`` lies outside.

    Example:
        >>> counts, sums = np.array([[3, 5]]), np.array([[2.0, 3.0]])
        >>> EpsilonGreedy(exploration=0.0)(counts, sums, generator(0)).tolist()
        [0]
    """

    def __init__(self, exploration=0.1):
        self.exploration = check_number("exploration", exploration, 0, 1)

    def __call__(self, counts, sums, random):
        best = super().__call__(counts, sums, random)
        any_arm = random.integers(counts.shape[1], size=len(counts))
        explore = random.random(len(counts)) < self.exploration
        return np.where(explore, any_arm, best)


class UCB1:
    r"""Pull the arm with the largest upper confidence bound.

    .. math:: a_t = \arg\max_a \; \hat\mu_a + \sqrt{\frac{2 \log t}{n_a}}

    after each arm was pulled once; :math:`t` counts the pulls so far. The second term
    is large where an arm was pulled rarely, so an arm is pulled because its mean is
    large or because its mean is uncertain.

    Example:
        >>> counts, sums = np.array([[1, 99]]), np.array([[0.0, 99.0]])
        >>> UCB1()(counts, sums, np.random.default_rng(0)).tolist()  # 3.0 against 1.3
        [0]

    References:
        Auer, Cesa-Bianchi and Fischer, *Finite-time Analysis of the Multiarmed Bandit
        Problem*, 2002, figure 1. https://doi.org/10.1023/A:1013689704352
    """

    def __call__(self, counts, sums, random):
        tried = np.maximum(counts, 1)
        total = counts.sum(axis=1, keepdims=True)
        width = np.sqrt(2 * np.log(np.maximum(total, 1)) / tried)
        return _largest(np.where(counts == 0, np.inf, sums / tried + width), random)


class ThompsonSampling:
    r"""Pull each arm as often as it is believed to be the best.

    Of every arm's mean the Beta distribution
    :math:`\operatorname{Beta}(1 + \text{wins},\, 1 + \text{losses})` is what is known;
    draw one mean from each, and pull the arm with the largest.

    Example:
        >>> counts, sums = np.array([[90, 90]]), np.array([[80.0, 10.0]])
        >>> ThompsonSampling()(counts, sums, np.random.default_rng(0)).tolist()
        [0]

    References:
        Thompson, *On the Likelihood that One Unknown Probability Exceeds Another in
        View of the Evidence of Two Samples*, 1933. https://doi.org/10.2307/2332286
    """

    def __call__(self, counts, sums, random):
        return random.beta(1 + sums, 1 + counts - sums).argmax(axis=1)


class Pulls(NamedTuple):
    r"""What came of playing bandits.

    Attributes:
        arms: Integer array ``(steps, bandits)``, what was pulled.
        rewards: Float array of that shape, 0 or 1.
        regret: Float array of that shape, since the first step of all: the sum of
            :math:`\mu^* - \mu_a` over the pulls, the cost of exploration.

    Example:
        >>> Pulls(np.zeros((1, 1), int), np.ones((1, 1)), np.zeros((1, 1))).regret.sum()
        np.float64(0.0)
    """

    arms: np.ndarray
    rewards: np.ndarray
    regret: np.ndarray


class BernoulliBandits:
    r"""Many independent bandits, played in step by one strategy.

    Arm :math:`a` of a bandit pays 1 with probability :math:`\mu_a` and else 0. All
    bandits are played at once, as rows of arrays.

    Args:
        means: Array ``(bandits, arms)``, :math:`\mu_a` in [0, 1].
        seed: Integer, seeds the rewards and the strategy's draws.

    Raises:
        ValueError: If ``means`` is no such array or ``seed`` no such integer.

    Example:
        >>> bandits = BernoulliBandits([[0.0, 1.0]], seed=0)
        >>> sorted(bandits.play(Greedy(), steps=5).arms[:, 0].tolist())
        [0, 1, 1, 1, 1]
        >>> bandits.play(Greedy(), steps=2).regret[:, 0].tolist()  # it goes on
        [1.0, 1.0]

    References:
        Lattimore and Szepesvári, *Bandit Algorithms*, 2020.
    """

    def __init__(self, means, seed):
        means = np.array(means, "float64")
        if means.ndim != 2 or not means.size or not ((means >= 0) & (means <= 1)).all():
            raise ValueError(
                "means must have shape (bandits, arms) and lie in [0, 1]. Received: "
                f"means.shape={means.shape}, from {np.min(means, initial=np.inf)} to "
                f"{np.max(means, initial=-np.inf)}"
            )
        self.means = means
        self.counts = np.zeros(means.shape, "int64")
        self.sums = np.zeros(means.shape)
        self._random = generator(seed)

    def play(self, strategy, steps):
        """Pull one arm of every bandit, ``steps`` times.

        Args:
            strategy: Function of ``counts`` and ``sums``, arrays ``(bandits, arms)`` of
                how often each arm was pulled and what it paid in all, and ``random``, a
                ``numpy.random.Generator``, to the arms to pull, ``(bandits,)``:
                :class:`Greedy`, :class:`EpsilonGreedy`, :class:`UCB1`,
                :class:`ThompsonSampling` or another.
            steps: Positive integer.

        Returns:
            ``Pulls``.

        Raises:
            ValueError: If ``steps`` is no positive integer or the strategy names an arm
                that is not there.
        """
        rows = np.arange(len(self.means))
        arms = np.zeros((check_count("steps", steps), len(rows)), "int64")
        rewards = np.zeros(arms.shape)
        lost = self.means.max(axis=1, keepdims=True) - self.means  # (bandits, arms)
        before = (self.counts * lost).sum(axis=1)
        for t in range(steps):
            arm = np.asarray(strategy(self.counts, self.sums, self._random))
            if (
                arm.shape != rows.shape
                or not ((arm >= 0) & (arm < self.means.shape[1])).all()
            ):
                raise ValueError(
                    "A strategy gives one arm a bandit, counted from 0. "
                    f"Received: {arm} of {self.means.shape[1]} arms"
                )
            paid = self._random.random(len(rows)) < self.means[rows, arm]
            self.counts[rows, arm] += 1
            self.sums[rows, arm] += paid
            arms[t], rewards[t] = arm, paid
        return Pulls(arms, rewards, before + lost[rows, arms].cumsum(axis=0))

    def save(self, path):
        """Write all that is needed to go on to a file.

        Args:
            path: String or path.
        """
        state = json.dumps(self._random.bit_generator.state)
        with open(path, "wb") as file:
            np.savez(
                file, means=self.means, counts=self.counts, sums=self.sums, random=state
            )

    @classmethod
    def load(cls, path):
        """The bandits that were saved: ``play(n)`` goes on bit for bit.

        Args:
            path: String or path of a file that ``save`` wrote.

        Returns:
            :class:`BernoulliBandits`.
        """
        with np.load(path, allow_pickle=False) as file:
            bandits = cls(file["means"], seed=0)
            bandits.counts, bandits.sums = file["counts"], file["sums"]
            bandits._random.bit_generator.state = json.loads(str(file["random"]))
        return bandits
