"""Returns: from the rewards of a rollout to what each step was worth."""

import numpy as np

from dlcompanion.checks import check_number


def reward_to_go(rewards, ends, after, discount):
    r"""Discounted sum of the rewards from each step to the end of its episode.

    .. math:: G_t = r_t + \gamma \,
        \begin{cases} v_t & \text{if the episode ends with step } t \\
        G_{t+1} & \text{otherwise} \end{cases}

    where :math:`v_t` is what is expected after the last step: 0 where the episode
    *terminated*, the value of the state that follows where it was merely *cut*, by a
    time limit or by the end of the rollout.

    Args:
        rewards: Array of shape ``(time, environments)``.
        ends: Boolean array of that shape, true at the last step of an episode. It
            must be true in the last row of every episode that counts.
        after: Array of that shape, :math:`v_t`; read only where ``ends`` is true.
        discount: Number in [0, 1], :math:`\gamma`.

    Returns:
        Float32 array of shape ``(time, environments)``.

    Raises:
        ValueError: If the shapes differ or ``discount`` lies outside [0, 1].

    Example:
        >>> rewards = np.array([[1.0], [1.0], [1.0]])
        >>> ends = np.array([[False], [True], [True]])
        >>> after = np.array([[0.0], [0.0], [8.0]])  # the second episode was cut
        >>> reward_to_go(rewards, ends, after, discount=0.5)[:, 0].tolist()
        [1.5, 1.0, 5.0]
    """
    rewards, ends, after = np.asarray(rewards), np.asarray(ends), np.asarray(after)
    if rewards.ndim != 2 or not rewards.shape == ends.shape == after.shape:
        raise ValueError(
            "rewards, ends and after must have one shape (time, environments). "
            f"Received: rewards.shape={rewards.shape}, ends.shape={ends.shape}, "
            f"after.shape={after.shape}"
        )
    check_number("discount", discount, 0, 1)
    result = np.zeros(rewards.shape, "float64")
    following = np.zeros(rewards.shape[1:], "float64")
    for t in reversed(range(len(rewards))):
        following = rewards[t] + discount * np.where(ends[t], after[t], following)
        result[t] = following
    return result.astype("float32")
