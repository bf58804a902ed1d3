"""n-step returns, lambda-returns and generalized advantages: how far to look ahead."""

import numpy as np

from dlcompanion.checks import check_count, check_number


def n_step_returns(rewards, after, ends, discount, steps):
    r"""Rewards of the next ``steps`` steps, and then what the critic expects.

    .. math:: G^{(n)}_t = r_t + \gamma r_{t+1} + \dots + \gamma^{n-1} r_{t+n-1}
        + \gamma^n v'_{t+n-1}

    where :math:`v'_t` is the value of the state that step :math:`t` led to. Where the
    episode ends earlier, it is the sum up to there.

    Args:
        rewards: Array of shape ``(time, environments)``.
        after: Array of that shape, :math:`v'_t`: 0 where the episode *terminated*; the
            value of the state that was seen last where it was merely *cut*.
        ends: Boolean array of that shape, true at the last step of an episode,
            terminated or cut. The last row counts as one.
        discount: Number :math:`\gamma` in [0, 1].
        steps: Positive integer :math:`n`.

    Returns:
        Float32 array of shape ``(time, environments)``.

    Raises:
        ValueError: If the shapes differ or a number is none of the above.

    Example:
        >>> rewards, after = np.array([[1.0], [2.0], [4.0]]), np.full((3, 1), 8.0)
        >>> ends = np.zeros((3, 1), bool)
        >>> n_step_returns(rewards, after, ends, discount=0.5, steps=2)[:, 0].tolist()
        [4.0, 6.0, 8.0]

    References:
        Sutton and Barto, *Reinforcement Learning*, second edition, 2018, section 7.1.
    """
    rewards, after, ends = same_shapes(rewards=rewards, after=after, ends=ends)
    check_number("discount", discount, 0, 1)
    ends = ends.astype(bool)
    ends[-1:] = True
    following = after
    for _ in range(check_count("steps", steps)):
        returns = rewards + discount * following
        later = np.concatenate([returns[1:], after[-1:]])
        following = np.where(ends, after, later)
    return returns.astype("float32")


def lambda_returns(rewards, after, ends, discount, trace):
    r"""All n-step returns at once, those of few steps with more weight.

    .. math:: G^\lambda_t = r_t + \gamma \bigl((1 - \lambda)\, v'_t
        + \lambda\, G^\lambda_{t+1}\bigr),

    which is :math:`(1 - \lambda) \sum_n \lambda^{n-1} G^{(n)}_t`, with what is left of
    the weight on the last. :math:`\lambda = 0` looks one step ahead, :math:`\lambda =
    1` to the end of the episode.

    Args:
        rewards: Array of shape ``(time, environments)``.
        after: Array of that shape, :math:`v'_t`, as of :func:`n_step_returns`.
        ends: Boolean array of that shape, true at the last step of an episode,
            terminated or cut. The last row counts as one.
        discount: Number :math:`\gamma` in [0, 1].
        trace: Number :math:`\lambda` in [0, 1].

    Returns:
        Float32 array of shape ``(time, environments)``.

    Raises:
        ValueError: If the shapes differ or a number is none of the above.

    Example:
        >>> rewards, after = np.array([[1.0], [2.0], [4.0]]), np.full((3, 1), 8.0)
        >>> ends = np.zeros((3, 1), bool)
        >>> lambda_returns(rewards, after, ends, 0.5, trace=0.5)[:, 0].tolist()
        [4.5, 6.0, 8.0]

    References:
        Sutton and Barto, *Reinforcement Learning*, second edition, 2018, section 12.1.
    """
    rewards, after, ends = same_shapes(rewards=rewards, after=after, ends=ends)
    check_number("discount", discount, 0, 1)
    check_number("trace", trace, 0, 1)
    constant = rewards + discount * np.where(ends, 1, 1 - trace) * after
    if len(rewards):  # the last row ends too
        constant[-1] = rewards[-1] + discount * after[-1]
    return backwards(constant, discount * trace * (1 - ends)).astype("float32")


def generalized_advantages(rewards, values, after, ends, discount, trace):
    r"""How much better than expected each step was, over a horizon of choice.

    .. math:: A_t = \sum_{k \ge 0} (\gamma \lambda)^k\, \delta_{t+k}, \qquad
        \delta_t = r_t + \gamma\, v'_t - v(s_t),

    up to the end of the episode. At :math:`\lambda = 0` this is the one-step error
    :math:`\delta_t`: little noise, and as wrong as the critic. At :math:`\lambda = 1`
    it is the return minus :math:`v(s_t)`: right on average, and as noisy as the world.
    :math:`A_t + v(s_t)` is the :math:`\lambda`-return, what the critic should learn.

    Args:
        rewards: Array of shape ``(time, environments)``.
        values: Array of that shape, the critic's :math:`v(s_t)`.
        after: Array of that shape, :math:`v'_t`, as of :func:`n_step_returns`.
        ends: Boolean array of that shape, true at the last step of an episode,
            terminated or cut. The last row counts as one.
        discount: Number :math:`\gamma` in [0, 1].
        trace: Number :math:`\lambda` in [0, 1].

    Returns:
        Float32 array of shape ``(time, environments)``.

    Raises:
        ValueError: If the shapes differ or a number is none of the above.

    Example:
        >>> one = np.ones((3, 1))
        >>> ends = np.array([[False], [False], [True]])
        >>> after = np.array([[1.0], [1.0], [0.0]])  # it terminated
        >>> generalized_advantages(one, one, after, ends, 0.5, trace=1.0)[:, 0].tolist()
        [0.75, 0.5, 0.0]

    References:
        Schulman, Moritz, Levine, Jordan and Abbeel, *High-Dimensional Continuous
        Control Using Generalized Advantage Estimation*, 2016, eq. 16.
        https://arxiv.org/abs/1506.02438
    """
    rewards, values, after, ends = same_shapes(
        rewards=rewards, values=values, after=after, ends=ends
    )
    check_number("discount", discount, 0, 1)
    check_number("trace", trace, 0, 1)
    errors = rewards + discount * after - values
    return backwards(errors, discount * trace * (1 - ends)).astype("float32")


def same_shapes(**arrays):
    """The arrays as float64, if all have one shape ``(time, environments)``.

    Args:
        **arrays: Arrays by name.

    Returns:
        List of arrays.

    Raises:
        ValueError: If they have not.
    """
    arrays = {name: np.array(array, "float64") for name, array in arrays.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1 or len(*shapes) != 2:
        received = ", ".join(f"{n}.shape={a.shape}" for n, a in arrays.items())
        raise ValueError(
            f"{', '.join(arrays)} must have one shape (time, environments). "
            f"Received: {received}"
        )
    return list(arrays.values())


def backwards(constant, factor):
    """Solve ``x[t] = constant[t] + factor[t] * x[t + 1]``, with 0 after the last row.

    Args:
        constant: Array ``(time, environments)``.
        factor: Array of that shape.

    Returns:
        Array of that shape.
    """
    x = np.zeros_like(constant)
    following = np.zeros_like(constant[0]) if len(constant) else None
    for t in reversed(range(len(constant))):
        x[t] = following = constant[t] + factor[t] * following
    return x
