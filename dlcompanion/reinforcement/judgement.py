"""What a critic says of what was played, and how much of it the critic explains."""

import numpy as np

from dlcompanion.reinforcement.generalized_advantage import generalized_advantages
from dlcompanion.reinforcement.segments import rows_of


def judge(segment, critic, discount, trace):
    """Advantages, and the returns that a critic should have expected.

    Args:
        segment: :class:`~dlcompanion.reinforcement.Segment`.
        critic: Function from observations ``(batch, ...)`` to values ``(batch, 1)``.
        discount: Number in [0, 1].
        trace: Number in [0, 1].

    Returns:
        Two float32 arrays ``(time, environments)``.

    Example:
        >>> from dlcompanion.reinforcement import Segment
        >>> ones, no = np.ones((2, 1)), np.zeros((2, 1), bool)
        >>> segment = Segment(ones[..., None], ones, ones, ones[..., None], no, no, ~no)
        >>> judge(segment, lambda x: 0.0 * x, 0.5, 1.0)[0][:, 0].tolist()
        [1.5, 1.0]
    """
    values, after = (
        critic(rows_of(x))[:, 0].reshape(segment.rewards.shape)
        for x in (segment.observations, segment.following)
    )
    return judge_values(segment, values, after, discount, trace)


def judge_values(segment, values, after, discount, trace):
    """As :func:`judge`, of a critic that was asked before.

    Args:
        segment: :class:`~dlcompanion.reinforcement.Segment`.
        values: Array ``(time, environments)``, of the observations.
        after: Array of that shape, of those that follow.
        discount: Number in [0, 1].
        trace: Number in [0, 1].

    Returns:
        Two float32 arrays ``(time, environments)``.

    Example:
        >>> from dlcompanion.reinforcement import Segment
        >>> ones, no = np.ones((2, 1)), np.zeros((2, 1), bool)
        >>> segment = Segment(ones[..., None], ones, ones, ones[..., None], no, no, ~no)
        >>> judge_values(segment, 0 * ones, 2 * ones, 0.5, 1.0)[0][:, 0].tolist()
        [3.0, 2.0]
    """
    after = np.where(segment.terminated, 0.0, after)
    advantages = generalized_advantages(
        segment.rewards, values, after, segment.ends, discount, trace
    )
    return advantages, advantages + values


def explained_variance(errors, targets):
    r"""Share of the variance of the targets that a critic explains.

    .. math:: 1 - \frac{\overline{e^2}}{\operatorname{Var}[G]}

    Args:
        errors: Array, target less value.
        targets: Array of that shape.

    Returns:
        Float: 1 for a perfect critic, 0 for one that knows the mean alone.

    Example:
        >>> explained_variance(np.array([0.0, 0.0]), np.array([1.0, 3.0]))
        1.0
    """
    return 1 - float(np.mean(np.square(errors)) / max(np.var(targets), 1e-12))


class Explained:
    """The explained variance of all that was judged since it was last asked for.

    In one segment where nobody fell all targets are nearly the same, and the share of
    their variance says nothing: an agent gathers those of an epoch.

    Example:
        >>> explained = Explained()
        >>> explained.add(np.zeros(2), np.array([1.0, 9.0]), np.array([True, False]))
        >>> explained.add(np.zeros(2), np.array([3.0, 9.0]), np.array([True, False]))
        >>> explained.take()
        1.0
    """

    def __init__(self):
        self.rows = []

    def add(self, errors, targets, played):
        """Note the errors and targets, arrays of one shape, where ``played``."""
        self.rows.append((errors[played], targets[played]))

    def take(self):
        """The explained variance of what was added, which is then forgotten."""
        errors, targets = map(np.concatenate, zip(*self.rows, strict=True))
        self.rows = []
        return explained_variance(errors, targets)
