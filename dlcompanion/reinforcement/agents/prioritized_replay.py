"""Prioritized replay: steps of large error are drawn more often."""

import numpy as np

from dlcompanion.checks import check_number
from dlcompanion.reinforcement.agents.replay_buffer import ReplayBuffer


class PrioritizedReplay(ReplayBuffer):
    r"""A replay memory that draws steps in proportion to their priority.

    .. math:: P(i) = \frac{p_i^\alpha}{\sum_k p_k^\alpha}, \qquad p_i = |\delta_i| +
        \epsilon, \qquad w_i = \left(\frac{P(i)}{\min_k P(k)}\right)^{-\beta}

    New steps get the largest priority seen so far. Priorities are kept in a binary tree
    of sums, so that drawing and changing cost :math:`\log n`, many rows in one go.

    Args:
        buffer_size: Positive integer, the number of steps stored.
        exponent: Number :math:`\alpha` of at least 0; with 0 draws are uniform.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> replay = PrioritizedReplay(buffer_size=4, exponent=1.0)
        >>> rows = replay.add(reward=np.arange(3.0))
        >>> replay.prioritize(rows, np.array([1.0, 0.0, 3.0]))
        >>> drawn = replay.draw((4000,), np.random.default_rng(0))
        >>> np.round(np.bincount(drawn) / 4000, 2).tolist()
        [0.25, 0.0, 0.75]

    References:
        Schaul, Quan, Antonoglou and Silver, *Prioritized Experience Replay*, 2016,
        eq. 1 and algorithm 1. https://arxiv.org/abs/1511.05952
    """

    smallest = 1e-6  # what epsilon is above, so that nothing is forgotten for good

    def __init__(self, buffer_size, exponent=0.5):
        super().__init__(buffer_size)
        self.exponent = check_number("exponent", exponent)
        self.leaves = 1 << (self.buffer_size - 1).bit_length()
        self.sums = np.zeros(2 * self.leaves)  # node n has the children 2n and 2n + 1
        self.largest = 1.0

    def add(self, **columns):
        """Store steps, as :meth:`ReplayBuffer.add`, with the largest priority."""
        rows = super().add(**columns)
        self._assign(rows, self.largest**self.exponent)
        return rows

    def prioritize(self, rows, errors):
        """Set the priorities of steps by their errors.

        Args:
            rows: Integer array. Of a row that comes twice the last error counts.
            errors: Array of that shape, of either sign.

        Raises:
            ValueError: If an error is not finite.
        """
        rows, errors = np.ravel(rows), np.abs(np.ravel(errors)).astype("float64")
        if not np.isfinite(errors).all():
            raise ValueError(
                "Errors must be finite: training diverged, try a smaller learning "
                f"rate. Received: {errors[~np.isfinite(errors)][0]}"
            )
        errors = errors + self.smallest
        self.largest = max(self.largest, errors.max(initial=0.0))
        self._assign(rows, errors**self.exponent)

    def _assign(self, rows, powers):
        nodes = rows + self.leaves
        self.sums[nodes] = powers
        nodes = np.unique(nodes >> 1)
        while nodes.any():  # from the leaves to the root, which is node 1
            self.sums[nodes] = self.sums[2 * nodes] + self.sums[2 * nodes + 1]
            nodes = np.unique(nodes >> 1)

    def draw(self, shape, random):
        """Rows to learn from, with replacement, each with its probability.

        Args:
            shape: Tuple of integers.
            random: ``numpy.random.Generator``.

        Returns:
            Integer array of that shape.

        Raises:
            ValueError: If nothing is remembered yet.
        """
        self._check_filled()
        left = random.random(shape) * self.sums[1]
        nodes = np.ones(shape, int)
        while nodes.flat[0] < self.leaves:
            nodes = 2 * nodes
            first, second = self.sums[nodes], self.sums[nodes + 1]
            right = (left >= first) & (second > 0)  # rounding must not lead to nothing
            left = np.where(right, left - first, left)
            nodes = nodes + right
        return nodes - self.leaves

    def probabilities(self):
        """The probability with which each stored step is drawn.

        Returns:
            Float array ``(steps,)``.
        """
        return self.sums[self.leaves : self.leaves + len(self)] / self.sums[1]

    def weights(self, rows, exponent):
        r"""Importance weights, which remove the bias with an exponent of 1.

        Args:
            rows: Integer array.
            exponent: Number :math:`\beta` in [0, 1].

        Returns:
            Float32 array of that shape, of 1 for the rarest step and less for others.

        Raises:
            ValueError: If ``exponent`` is none.
        """
        check_number("exponent", exponent, 0, 1)
        powers = self.sums[self.leaves : self.leaves + len(self)]
        share = self.sums[self.leaves + rows] / powers.min()
        return (share**-exponent).astype("float32")

    def arrays(self):
        """What to save, the priorities included."""
        leaves = self.sums[self.leaves : self.leaves + len(self)].copy()
        extra = {"priorities": leaves, "largest_priority": np.array(self.largest)}
        return {**super().arrays(), **extra}

    def restore(self, arrays):
        """Take back what :meth:`arrays` gave."""
        super().restore(arrays)
        self.largest = float(arrays["largest_priority"])
        self.sums[:] = 0.0
        if len(self):
            self._assign(np.arange(len(self)), arrays["priorities"])
