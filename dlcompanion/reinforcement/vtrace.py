"""V-trace: what a policy is worth, from rollouts of a slightly different one."""

from typing import NamedTuple

import numpy as np

from dlcompanion.checks import check_number
from dlcompanion.reinforcement.generalized_advantage import backwards, same_shapes


class VTrace(NamedTuple):
    """What :func:`vtrace` returns.

    Attributes:
        targets: Float32 array ``(time, environments)``, what the critic should learn.
        advantages: Float32 array of that shape, for the policy gradient, weighted.

    Example:
        >>> VTrace(np.ones((2, 1)), np.zeros((2, 1))).targets.shape
        (2, 1)
    """

    targets: np.ndarray
    advantages: np.ndarray


def vtrace(
    rewards, values, after, ends, ratios, discount, trace=1.0, largest_weight=1.0
):
    r"""Correct each step by how probable the learner finds it, but not by too much.

    With :math:`w_t = \pi(a_t \mid s_t) / \mu(a_t \mid s_t)`, the learner's probability
    over that of the policy :math:`\mu` that played, :math:`\rho_t = \min(\bar\rho,
    w_t)` and :math:`c_t = \lambda \min(1, w_t)`, the targets are

    .. math:: v_t = v(s_t) + \rho_t \delta_t
        + \gamma c_t \bigl(v_{t+1} - v(s_{t+1})\bigr), \qquad
        \delta_t = r_t + \gamma\, v'_t - v(s_t),

    and the advantages

    .. math:: \rho_t \Bigl(r_t + \gamma \bigl((1 - \lambda)\, v'_t
        + \lambda\, v_{t+1}\bigr) - v(s_t)\Bigr) .

    A weight may be as large as :math:`1 / \mu`, and a product of them is larger still:
    cutting them at 1 bounds the variance. Where :math:`\pi = \mu` the targets are the
    :math:`\lambda`-returns.

    Args:
        rewards: Array of shape ``(time, environments)``.
        values: Array of that shape, the critic's :math:`v(s_t)`.
        after: Array of that shape, :math:`v'_t`: 0 where the episode *terminated*; the
            value of the state that was seen last where it was merely *cut*.
        ends: Boolean array of that shape, true at the last step of an episode,
            terminated or cut. The last row counts as one.
        ratios: Array of that shape, :math:`w_t`, at least 0.
        discount: Number :math:`\gamma` in [0, 1].
        trace: Number :math:`\lambda` in [0, 1].
        largest_weight: Number :math:`\bar\rho` of at least 1.

    Returns:
        :class:`VTrace`.

    Raises:
        ValueError: If the shapes differ, a ratio is negative, or a number is none of
            the above.

    Example:
        >>> one, ends = np.ones((2, 1)), np.array([[False], [True]])
        >>> after = np.array([[1.0], [0.0]])
        >>> corrected = vtrace(2 * one, one, after, ends, ratios=0.5 * one, discount=1)
        >>> corrected.targets[:, 0].tolist(), corrected.advantages[:, 0].tolist()
        ([2.25, 1.5], [1.25, 0.5])

    References:
        Espeholt et al., *IMPALA: Scalable Distributed Deep-RL with Importance Weighted
        Actor-Learner Architectures*, 2018, eq. 1. https://arxiv.org/abs/1802.01561
    """
    rewards, values, after, ends, ratios = same_shapes(
        rewards=rewards, values=values, after=after, ends=ends, ratios=ratios
    )
    if (ratios < 0).any():
        raise ValueError(
            f"A ratio of probabilities is at least 0. Received: {ratios.min()}"
        )
    check_number("discount", discount, 0, 1)
    check_number("trace", trace, 0, 1)
    check_number("largest_weight", largest_weight, 1)
    rho = np.minimum(largest_weight, ratios)
    errors = rho * (rewards + discount * after - values)
    going = trace * (1 - ends)
    corrections = backwards(errors, discount * going * np.minimum(1, ratios))
    targets = values + corrections
    following = np.concatenate([corrections[1:], np.zeros_like(corrections[:1])])
    # where an episode goes on, v' is v(s_{t+1}), and v_{t+1} is that, corrected
    estimate = rewards + discount * (after + going * following)
    advantages = rho * (estimate - values)
    return VTrace(targets.astype("float32"), advantages.astype("float32"))
