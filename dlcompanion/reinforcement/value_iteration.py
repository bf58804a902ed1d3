"""Value iteration: the best that can be had from each state, when all is known."""

from typing import NamedTuple

import numpy as np

from dlcompanion.checks import check_count, check_number


class Solution(NamedTuple):
    """What :func:`value_iteration` found.

    Attributes:
        values: Float64 array ``(states,)``.
        action_values: Float64 array ``(states, actions)``.
        policy: Integer array ``(states,)``, a best action; the first of several.
        sweeps: Integer, how often all states were updated.

    Example:
        >>> Solution(np.zeros(1), np.zeros((1, 2)), np.zeros(1, int), 1).sweeps
        1
    """

    values: np.ndarray
    action_values: np.ndarray
    policy: np.ndarray
    sweeps: int


def value_iteration(mdp, discount, tolerance=1e-13, sweeps=100_000):
    r"""Turn Bellman's equation into an assignment, and repeat it until it holds.

    .. math:: v(s) \leftarrow \max_a \sum_{s'} p(s' \mid s, a)
        \bigl(r(s, a, s') + \gamma\, v(s')\bigr)

    for all states at once. The right-hand side brings any two :math:`v` closer
    together by the factor :math:`\gamma`, so there is one fixed point, and every
    sweep comes nearer to it. Where :math:`\gamma = 1` it is there if the best policy
    reaches a terminal state from everywhere.

    Args:
        mdp: :class:`~dlcompanion.reinforcement.FiniteMDP`.
        discount: Number :math:`\gamma` in [0, 1].
        tolerance: Positive number: it ends when no value has changed by more than this
            times the largest value (or 1).
        sweeps: Positive integer, the number of sweeps at most.

    Returns:
        ``Solution``.

    Raises:
        ValueError: If an argument is none of the above, or after ``sweeps`` sweeps the
            values still change.

    Example:
        >>> from dlcompanion.reinforcement import FiniteMDP
        >>> stay_or_go = np.eye(2)[[[0, 1], [1, 1]]]  # action 1 leads to state 1
        >>> mdp = FiniteMDP(stay_or_go, [[1.0, 8.0], [0.0, 0.0]], [False, True])
        >>> value_iteration(mdp, discount=0.5).policy.tolist()  # 8 now, or 2 in all
        [1, 0]
        >>> value_iteration(mdp, discount=0.9).policy.tolist()  # 1 ten times: 10
        [0, 0]

    References:
        Bellman, *Dynamic Programming*, 1957. Sutton and Barto, *Reinforcement
        Learning*, second edition, 2018, section 4.4.
    """
    check_number("discount", discount, 0, 1)
    check_number("tolerance", tolerance, 0, 1, open_ends=True)
    values = np.zeros(mdp.states)
    for sweep in range(1, check_count("sweeps", sweeps) + 1):
        before = values
        action_values = _look_ahead(mdp, values, discount)
        values = action_values.max(axis=1)
        change = np.abs(values - before).max()
        if change <= tolerance * max(1.0, np.abs(values).max()):
            action_values = _look_ahead(mdp, values, discount)
            return Solution(values, action_values, action_values.argmax(axis=1), sweep)
    raise ValueError(
        "The values have not settled: with discount 1 the best policy must come to a "
        f"terminal state from everywhere. Received: sweeps={sweeps}, last change "
        f"{change:g}, discount={discount}"
    )


def policy_values(mdp, policy, discount):
    r"""What a policy is worth in each state: one system of linear equations.

    .. math:: v = r_\pi + \gamma P_\pi v

    where :math:`P_\pi` has one row a state, zero in terminal states.

    Args:
        mdp: :class:`~dlcompanion.reinforcement.FiniteMDP`.
        policy: Integers ``(states,)``, one action a state, or probabilities
            ``(states, actions)``.
        discount: Number :math:`\gamma` in [0, 1].

    Returns:
        Float64 array ``(states,)``.

    Raises:
        ValueError: If ``policy`` is neither, ``discount`` is no such number, or it is 1
            and the policy goes round for ever.

    Example:
        >>> from dlcompanion.reinforcement import FiniteMDP
        >>> stay_or_go = np.eye(2)[[[0, 1], [1, 1]]]
        >>> mdp = FiniteMDP(stay_or_go, [[1.0, 8.0], [0.0, 0.0]], [False, True])
        >>> policy_values(mdp, [0, 0], discount=0.9).round(6).tolist()
        [10.0, 0.0]
        >>> half = np.full((2, 2), 0.5)
        >>> policy_values(mdp, half, discount=1.0).round(6).tolist()
        [9.0, 0.0]
    """
    check_number("discount", discount, 0, 1)
    policy = np.asarray(policy)
    if policy.shape == (mdp.states,) and np.isin(policy, range(mdp.actions)).all():
        policy = np.eye(mdp.actions)[policy.astype(int)]
    if (
        policy.shape != (mdp.states, mdp.actions)
        or not (policy >= 0).all()
        or not np.isclose(policy.sum(axis=1), 1).all()
    ):
        raise ValueError(
            "policy must be one action a state, or the probabilities (states, "
            f"actions). Received: policy.shape={policy.shape}"
        )
    going = ~mdp.terminal
    chain = np.einsum("sa,sat->st", policy, mdp.transitions) * going[:, None]
    paid = np.einsum("sa,sa->s", policy, mdp.expected_rewards) * going
    try:
        values = np.linalg.solve(np.eye(mdp.states) - discount * chain, paid)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "With discount 1 a policy must come to a terminal state from everywhere. "
            f"Received: discount={discount}"
        ) from error
    return values


def _look_ahead(mdp, values, discount):
    """Action values, if ``values`` were those of the states."""
    action_values = mdp.expected_rewards + discount * (mdp.transitions @ values)
    return np.where(mdp.terminal[:, None], 0.0, action_values)
