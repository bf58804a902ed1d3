"""n-step returns, lambda-returns and generalized advantages: how far to look ahead."""

from typing import NamedTuple

import numpy as np

from dlcompanion.checks import check_count, check_number
from dlcompanion.reinforcement.agents.rollout import rows_of


def reward_to_go(rewards, dones, after, discount):
    r"""Discounted sum of the rewards from each step to the end of its episode.

    .. math:: G_t = r_t + \gamma \,
        \begin{cases} v_t & \text{if the episode ends with step } t \\
        G_{t+1} & \text{otherwise} \end{cases}

    where :math:`v_t` is the value after the last step: 0 where the episode
    *terminated*, the value of the next state where it was *truncated*, by a time limit
    or by the end of the rollout.

    Args:
        rewards: Array of shape ``(time, environments)``.
        dones: Boolean array of that shape, true at the last step of an episode. It
            must be true in the last row of every episode that counts.
        after: Array of that shape, :math:`v_t`; read only where ``dones`` is true.
        discount: Number in [0, 1], :math:`\gamma`.

    Returns:
        Float32 array of shape ``(time, environments)``.

    Raises:
        ValueError: If the shapes differ or ``discount`` lies outside [0, 1].

    Example:
        >>> rewards = np.array([[1.0], [1.0], [1.0]])
        >>> dones = np.array([[False], [True], [True]])
        >>> after = np.array([[0.0], [0.0], [8.0]])  # the second episode was truncated
        >>> reward_to_go(rewards, dones, after, discount=0.5)[:, 0].tolist()
        [1.5, 1.0, 5.0]
    """
    rewards, dones, after = np.asarray(rewards), np.asarray(dones), np.asarray(after)
    if rewards.ndim != 2 or not rewards.shape == dones.shape == after.shape:
        raise ValueError(
            "rewards, dones and after must have one shape (time, environments). "
            f"Received: rewards.shape={rewards.shape}, dones.shape={dones.shape}, "
            f"after.shape={after.shape}"
        )
    check_number("discount", discount, 0, 1)
    result = np.zeros(rewards.shape, "float64")
    following = np.zeros(rewards.shape[1:], "float64")
    for t in reversed(range(len(rewards))):
        following = rewards[t] + discount * np.where(dones[t], after[t], following)
        result[t] = following
    return result.astype("float32")


def n_step_returns(rewards, after, dones, discount, steps):
    r"""Rewards of the next ``steps`` steps, bootstrapped with the critic.

    .. math:: G^{(n)}_t = r_t + \gamma r_{t+1} + \dots + \gamma^{n-1} r_{t+n-1}
        + \gamma^n v'_{t+n-1}

    where :math:`v'_t` is the value of the state that step :math:`t` led to. Where the
    episode ends earlier, it is the sum up to there.

    Args:
        rewards: Array of shape ``(time, environments)``.
        after: Array of that shape, :math:`v'_t`: 0 where the episode *terminated*; the
            value of the last state where it was *truncated*.
        dones: Boolean array of that shape, true at the last step of an episode,
            terminated or truncated. The last row counts as one.
        discount: Number :math:`\gamma` in [0, 1].
        steps: Positive integer :math:`n`.

    Returns:
        Float32 array of shape ``(time, environments)``.

    Raises:
        ValueError: If the shapes differ or a number is none of the above.

    Example:
        >>> rewards, after = np.array([[1.0], [2.0], [4.0]]), np.full((3, 1), 8.0)
        >>> dones = np.zeros((3, 1), bool)
        >>> n_step_returns(rewards, after, dones, discount=0.5, steps=2)[:, 0].tolist()
        [4.0, 6.0, 8.0]

    References:
        Sutton and Barto, *Reinforcement Learning*, second edition, 2018, section 7.1.
    """
    rewards, after, dones = same_shapes(rewards=rewards, after=after, dones=dones)
    check_number("discount", discount, 0, 1)
    dones = dones.astype(bool)
    dones[-1:] = True
    following = after
    for _ in range(check_count("steps", steps)):
        returns = rewards + discount * following
        later = np.concatenate([returns[1:], after[-1:]])
        following = np.where(dones, after, later)
    return returns.astype("float32")


def lambda_returns(rewards, after, dones, discount, lambda_):
    r"""Exponentially weighted average of all n-step returns.

    .. math:: G^\lambda_t = r_t + \gamma \bigl((1 - \lambda)\, v'_t
        + \lambda\, G^\lambda_{t+1}\bigr),

    which is :math:`(1 - \lambda) \sum_n \lambda^{n-1} G^{(n)}_t`, with what is left of
    the weight on the last. :math:`\lambda = 0` looks one step ahead, :math:`\lambda =
    1` to the end of the episode.

    Args:
        rewards: Array of shape ``(time, environments)``.
        after: Array of that shape, :math:`v'_t`, as of :func:`n_step_returns`.
        dones: Boolean array of that shape, true at the last step of an episode,
            terminated or truncated. The last row counts as one.
        discount: Number :math:`\gamma` in [0, 1].
        lambda_: Number :math:`\lambda` in [0, 1].

    Returns:
        Float32 array of shape ``(time, environments)``.

    Raises:
        ValueError: If the shapes differ or a number is none of the above.

    Example:
        >>> rewards, after = np.array([[1.0], [2.0], [4.0]]), np.full((3, 1), 8.0)
        >>> dones = np.zeros((3, 1), bool)
        >>> lambda_returns(rewards, after, dones, 0.5, lambda_=0.5)[:, 0].tolist()
        [4.5, 6.0, 8.0]

    References:
        Sutton and Barto, *Reinforcement Learning*, second edition, 2018, section 12.1.
    """
    rewards, after, dones = same_shapes(rewards=rewards, after=after, dones=dones)
    check_number("discount", discount, 0, 1)
    check_number("lambda_", lambda_, 0, 1)
    constant = rewards + discount * np.where(dones, 1, 1 - lambda_) * after
    if len(rewards):  # the last row ends too
        constant[-1] = rewards[-1] + discount * after[-1]
    return backwards(constant, discount * lambda_ * (1 - dones)).astype("float32")


def generalized_advantages(rewards, values, after, dones, discount, gae_lambda):
    r"""Generalized advantage estimates.

    .. math:: A_t = \sum_{k \ge 0} (\gamma \lambda)^k\, \delta_{t+k}, \qquad
        \delta_t = r_t + \gamma\, v'_t - v(s_t),

    up to the end of the episode. At :math:`\lambda = 0` this is the one-step error
    :math:`\delta_t`, of low variance and with the bias of the critic. At
    :math:`\lambda = 1` it is the return minus :math:`v(s_t)`, unbiased and of high
    variance. :math:`A_t + v(s_t)` is the :math:`\lambda`-return, the critic's target.

    Args:
        rewards: Array of shape ``(time, environments)``.
        values: Array of that shape, the critic's :math:`v(s_t)`.
        after: Array of that shape, :math:`v'_t`, as of :func:`n_step_returns`.
        dones: Boolean array of that shape, true at the last step of an episode,
            terminated or truncated. The last row counts as one.
        discount: Number :math:`\gamma` in [0, 1].
        gae_lambda: Number :math:`\lambda` in [0, 1].

    Returns:
        Float32 array of shape ``(time, environments)``.

    Raises:
        ValueError: If the shapes differ or a number is none of the above.

    Example:
        >>> one = np.ones((3, 1))
        >>> dones = np.array([[False], [False], [True]])
        >>> after = np.array([[1.0], [1.0], [0.0]])  # it terminated
        >>> found = generalized_advantages(one, one, after, dones, 0.5, gae_lambda=1.0)
        >>> found[:, 0].tolist()
        [0.75, 0.5, 0.0]

    References:
        Schulman, Moritz, Levine, Jordan and Abbeel, *High-Dimensional Continuous
        Control Using Generalized Advantage Estimation*, 2016, eq. 16.
        https://arxiv.org/abs/1506.02438
    """
    rewards, values, after, dones = same_shapes(
        rewards=rewards, values=values, after=after, dones=dones
    )
    check_number("discount", discount, 0, 1)
    check_number("gae_lambda", gae_lambda, 0, 1)
    errors = rewards + discount * after - values
    return backwards(errors, discount * gae_lambda * (1 - dones)).astype("float32")


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


class VTrace(NamedTuple):
    """What :func:`vtrace` returns.

    Attributes:
        targets: Float32 array ``(time, environments)``, targets of the critic.
        advantages: Float32 array of that shape, for the policy gradient, weighted.

    Example:
        >>> VTrace(np.ones((2, 1)), np.zeros((2, 1))).targets.shape
        (2, 1)
    """

    targets: np.ndarray
    advantages: np.ndarray


def vtrace(
    rewards, values, after, dones, ratios, discount, lambda_=1.0, largest_weight=1.0
):
    r"""Off-policy correction of targets and advantages, by clipped importance weights.

    With :math:`w_t = \pi(a_t \mid s_t) / \mu(a_t \mid s_t)`, the learner's probability
    over that of the behavior policy :math:`\mu`, :math:`\rho_t = \min(\bar\rho,
    w_t)` and :math:`c_t = \lambda \min(1, w_t)`, the targets are

    .. math:: v_t = v(s_t) + \rho_t \delta_t
        + \gamma c_t \bigl(v_{t+1} - v(s_{t+1})\bigr), \qquad
        \delta_t = r_t + \gamma\, v'_t - v(s_t),

    and the advantages

    .. math:: \rho_t \Bigl(r_t + \gamma \bigl((1 - \lambda)\, v'_t
        + \lambda\, v_{t+1}\bigr) - v(s_t)\Bigr) .

    A weight may be as large as :math:`1 / \mu`, and a product of them larger still:
    clipping them at 1 bounds the variance. Where :math:`\pi = \mu` the targets are the
    :math:`\lambda`-returns.

    Args:
        rewards: Array of shape ``(time, environments)``.
        values: Array of that shape, the critic's :math:`v(s_t)`.
        after: Array of that shape, :math:`v'_t`: 0 where the episode *terminated*; the
            value of the last state where it was *truncated*.
        dones: Boolean array of that shape, true at the last step of an episode,
            terminated or truncated. The last row counts as one.
        ratios: Array of that shape, :math:`w_t`, at least 0.
        discount: Number :math:`\gamma` in [0, 1].
        lambda_: Number :math:`\lambda` in [0, 1].
        largest_weight: Number :math:`\bar\rho` of at least 1.

    Returns:
        ``VTrace``.

    Raises:
        ValueError: If the shapes differ, a ratio is negative, or a number is none of
            the above.

    Example:
        >>> one, dones = np.ones((2, 1)), np.array([[False], [True]])
        >>> after = np.array([[1.0], [0.0]])
        >>> corrected = vtrace(2 * one, one, after, dones, ratios=0.5 * one, discount=1)
        >>> corrected.targets[:, 0].tolist(), corrected.advantages[:, 0].tolist()
        ([2.25, 1.5], [1.25, 0.5])

    References:
        Espeholt et al., *IMPALA: Scalable Distributed Deep-RL with Importance Weighted
        Actor-Learner Architectures*, 2018, eq. 1. https://arxiv.org/abs/1802.01561
    """
    rewards, values, after, dones, ratios = same_shapes(
        rewards=rewards, values=values, after=after, dones=dones, ratios=ratios
    )
    if (ratios < 0).any():
        raise ValueError(
            f"A ratio of probabilities is at least 0. Received: {ratios.min()}"
        )
    check_number("discount", discount, 0, 1)
    check_number("lambda_", lambda_, 0, 1)
    check_number("largest_weight", largest_weight, 1)
    rho = np.minimum(largest_weight, ratios)
    errors = rho * (rewards + discount * after - values)
    going = lambda_ * (1 - dones)
    corrections = backwards(errors, discount * going * np.minimum(1, ratios))
    targets = values + corrections
    following = np.concatenate([corrections[1:], np.zeros_like(corrections[:1])])
    # where an episode goes on, v' is v(s_{t+1}), and v_{t+1} is that, corrected
    estimate = rewards + discount * (after + going * following)
    advantages = rho * (estimate - values)
    return VTrace(targets.astype("float32"), advantages.astype("float32"))


def advantages_and_returns(rollout, critic, discount, gae_lambda):
    """Generalized advantages and lambda-returns of a rollout.

    Args:
        rollout: ``Rollout``.
        critic: Function from observations ``(batch, ...)`` to values ``(batch, 1)``.
        discount: Number in [0, 1].
        gae_lambda: Number in [0, 1].

    Returns:
        Two float32 arrays ``(time, environments)``.

    Example:
        >>> from dlcompanion.reinforcement.agents.rollout import Rollout
        >>> ones, no = np.ones((2, 1)), np.zeros((2, 1), bool)
        >>> rollout = Rollout(ones[..., None], ones, ones, ones[..., None], no, no, ~no)
        >>> found = advantages_and_returns(rollout, lambda x: 0.0 * x, 0.5, 1.0)
        >>> found[0][:, 0].tolist()
        [1.5, 1.0]
    """
    values, next_values = (
        critic(rows_of(x))[:, 0].reshape(rollout.rewards.shape)
        for x in (rollout.observations, rollout.next_observations)
    )
    return advantages_and_returns_from_values(
        rollout, values, next_values, discount, gae_lambda
    )


def advantages_and_returns_from_values(
    rollout, values, next_values, discount, gae_lambda
):
    """As :func:`advantages_and_returns`, from values already computed.

    Args:
        rollout: ``Rollout``.
        values: Array ``(time, environments)``, the critic's, of the observations.
        next_values: Array of that shape, of the next observations.
        discount: Number in [0, 1].
        gae_lambda: Number in [0, 1].

    Returns:
        Two float32 arrays ``(time, environments)``.

    Example:
        >>> from dlcompanion.reinforcement.agents.rollout import Rollout
        >>> ones, no = np.ones((2, 1)), np.zeros((2, 1), bool)
        >>> rollout = Rollout(ones[..., None], ones, ones, ones[..., None], no, no, ~no)
        >>> critic = (0 * ones, 2 * ones)
        >>> found = advantages_and_returns_from_values(rollout, *critic, 0.5, 1.0)
        >>> found[0][:, 0].tolist()
        [3.0, 2.0]
    """
    after = np.where(rollout.terminated, 0.0, next_values)
    advantages = generalized_advantages(
        rollout.rewards, values, after, rollout.dones, discount, gae_lambda
    )
    return advantages, advantages + values


def explained_variance(errors, targets):
    r"""Share of the variance of the targets that a critic explains.

    .. math:: 1 - \frac{\overline{e^2}}{\operatorname{Var}[G]}

    Args:
        errors: Array, target less value.
        targets: Array of that shape.

    Returns:
        Float: 1 for a perfect critic, 0 for one that is the mean of the targets.

    Example:
        >>> explained_variance(np.array([0.0, 0.0]), np.array([1.0, 3.0]))
        1.0
    """
    return 1 - float(np.mean(np.square(errors)) / max(np.var(targets), 1e-12))


class Explained:
    """The explained variance over several rollouts.

    In a rollout without the end of an episode the targets are nearly equal and their
    explained variance is meaningless, so an agent collects those of an epoch.

    Example:
        >>> explained = Explained()
        >>> explained.add(np.zeros(2), np.array([1.0, 9.0]), np.array([True, False]))
        >>> explained.add(np.zeros(2), np.array([3.0, 9.0]), np.array([True, False]))
        >>> explained.take()
        1.0
    """

    def __init__(self):
        self.rows = []

    def add(self, errors, targets, mask):
        """Add errors and targets, arrays of one shape, where ``mask`` is true."""
        self.rows.append((errors[mask], targets[mask]))

    def take(self):
        """The explained variance of what was added, which is then dropped."""
        errors, targets = map(np.concatenate, zip(*self.rows, strict=True))
        self.rows = []
        return explained_variance(errors, targets)
