"""Replay: stored steps, to learn from each more than once."""

import numpy as np

from dlcompanion.checks import check_count, check_number


class ReplayBuffer:
    """The last ``buffer_size`` steps, drawn from uniformly.

    One column an array, filled in a ring. Memory is taken as it fills, and never more
    than the columns hold: observations keep the dtype that they are first given in.

    Args:
        buffer_size: Positive integer, the number of steps stored.

    Raises:
        ValueError: If ``buffer_size`` is not a positive integer.

    Example:
        >>> replay = ReplayBuffer(buffer_size=3)
        >>> replay.add(reward=np.array([1.0, 2.0])).tolist()
        [0, 1]
        >>> replay.add(reward=np.array([3.0, 4.0])).tolist()  # forgets the first
        [2, 0]
        >>> len(replay), sorted(replay.columns["reward"].tolist())
        (3, [2.0, 3.0, 4.0])
        >>> batch = replay.sample((2, 5), np.random.default_rng(0))
        >>> batch["reward"].shape
        (2, 5)
    """

    def __init__(self, buffer_size):
        self.buffer_size = check_count("buffer_size", buffer_size)
        self.columns = {}
        self.added = 0  # since the beginning

    def __len__(self):
        return min(self.added, self.buffer_size)

    def add(self, **columns):
        """Store steps, the oldest first.

        Args:
            **columns: Arrays ``(steps, ...)``, the same names and shapes each time.

        Returns:
            Integer array ``(steps,)``, the rows where they now are; of more steps than
            ``buffer_size`` the last ones are kept.

        Raises:
            ValueError: If the names, lengths, shapes or kinds differ from before.
        """
        columns = {name: np.asarray(x) for name, x in columns.items()}
        if not self.columns:
            self._check_lengths(columns)
            self.columns = {
                name: np.zeros((self.buffer_size, *x.shape[1:]), x.dtype)
                for name, x in columns.items()
            }
        kinds = {name: (c.shape[1:], c.dtype) for name, c in self.columns.items()}
        given = {name: (x.shape[1:], x.dtype) for name, x in columns.items()}
        if given != kinds:
            raise ValueError(
                "Every step needs the columns of the first one, of the same shapes and "
                f"dtypes: {kinds}. Received: {given}"
            )
        steps = self._check_lengths(columns)
        rows = (self.added + np.arange(steps)) % self.buffer_size
        kept = slice(max(steps - self.buffer_size, 0), None)
        for name, x in columns.items():
            self.columns[name][rows[kept]] = x[kept]
        self.added += steps
        return rows[kept]

    def draw(self, shape, random):
        """Rows to learn from, with replacement.

        Args:
            shape: Tuple of integers.
            random: ``numpy.random.Generator``.

        Returns:
            Integer array of that shape.

        Raises:
            ValueError: If nothing is remembered yet.
        """
        self._check_filled()
        return random.integers(len(self), size=shape)

    def _check_filled(self):
        if not len(self):
            raise ValueError("Nothing to draw from. Received: an empty replay buffer")

    def take(self, rows):
        """The steps in these rows.

        Args:
            rows: Integer array.

        Returns:
            Dict from name to array ``(*rows.shape, ...)``.
        """
        return {name: column[rows] for name, column in self.columns.items()}

    def phases(self, rows, most=2**26, **more):
        """The steps in these rows, for a phase of learning, as much as memory can hold.

        Bytes, as of images, are stored as they are and float32 in what comes out. So
        that it is not gigabytes at once, it comes in parts of equal size.

        Args:
            rows: Integer array ``(batches, batch_size)``.
            most: Integer, the bytes that a part of several batches takes at most.
            **more: Arrays ``(batches, batch_size, ...)`` that go with the rows.

        Yields:
            Dict from name to array ``(some batches, batch_size, ...)``.

        Example:
            >>> replay = ReplayBuffer(buffer_size=9)
            >>> where = replay.add(image=np.zeros((9, 8, 8), "uint8"))
            >>> parts = [*replay.phases(np.zeros((6, 4), int), most=2500)]
            >>> [part["image"].shape for part in parts], parts[0]["image"].dtype
            ([(2, 4, 8, 8), (2, 4, 8, 8), (2, 4, 8, 8)], dtype('float32'))
        """
        step = sum(4 * column[0].size for column in self.columns.values())
        room, count = max(most // (step * rows.shape[1]), 1), len(rows)
        size = max(n for n in range(1, min(room, count) + 1) if count % n == 0)
        for first in range(0, count, size):
            part = slice(first, first + size)
            taken = self.take(rows[part])
            for name, x in taken.items():
                if x.dtype == np.uint8:
                    taken[name] = x.astype("float32")
            yield {**taken, **{name: x[part] for name, x in more.items()}}

    def sample(self, shape, random):
        """Steps drawn with replacement.

        Args:
            shape: Tuple of integers, for example ``(batches, batch_size)``.
            random: ``numpy.random.Generator``.

        Returns:
            Dict from name to array ``(*shape, ...)``.
        """
        return self.take(self.draw(shape, random))

    def arrays(self):
        """What to save: the filled part of each column, and the count.

        Returns:
            Dict from name to NumPy array.
        """
        columns = {f"replay.{n}": c[: len(self)] for n, c in self.columns.items()}
        return {"replay_added": np.array(self.added), **columns}

    def restore(self, arrays):
        """Take back what :meth:`arrays` gave.

        Args:
            arrays: Dict from name to NumPy array; other names are ignored.

        Raises:
            ValueError: If they do not fit ``buffer_size``.
        """
        added = int(arrays["replay_added"])
        self.added, self.columns = added, {}
        for name, x in arrays.items():
            if not name.startswith("replay."):
                continue
            if len(x) != len(self):
                raise ValueError(
                    f"A replay buffer of {self.buffer_size} steps, {added} added so "
                    f"far, holds {len(self)}. Received: {len(x)} rows of {name}"
                )
            column = np.zeros((self.buffer_size, *x.shape[1:]), x.dtype)
            column[: len(x)] = x
            self.columns[name.removeprefix("replay.")] = column

    @staticmethod
    def _check_lengths(columns):
        lengths = {len(x) for x in columns.values()}
        if len(lengths) != 1:
            raise ValueError(
                "The columns need one number of steps. Received: "
                f"{ ({name: len(x) for name, x in columns.items()}) }"
            )
        return lengths.pop()


def train_from(replay, learner, rows, noise=None, weights=None):
    """One step of training for each minibatch of stored steps.

    Args:
        replay: :class:`ReplayBuffer` of what :func:`n_step_transitions` gives.
        learner: ``StepModel``, which takes observations and ``y = (actions, rewards,
            next_observations, discounts)``, with the noise behind them if there is any.
        rows: Integer array ``(steps, batch)``.
        noise: Array ``(steps, batch, ...)``, or None.
        weights: Array ``(steps, batch)``, or None for ones.

    Returns:
        Dict from name to array, what each step logged; of ``loss``, a running mean,
        what it was at the end of each part of :meth:`ReplayBuffer.phases`.
    """
    more = {"noise": noise, "weights": weights}
    more = {name: x for name, x in more.items() if x is not None}
    names, logs = ["action", "reward", "next_observation", "discount"], []
    names += ["noise"] * ("noise" in more)
    for batch in replay.phases(rows, **more):
        y, weighted = tuple(batch[name] for name in names), "weights" in more
        data = batch["observation"], y, *([batch["weights"]] if weighted else [])
        logs.append(learner.train_on_batches(data))
        if "loss" in logs[-1]:
            logs[-1]["loss"] = logs[-1]["loss"][-1:]
    return {name: np.concatenate([x[name] for x in logs]) for name in logs[0]}


def n_step_transitions(rollout, n, discount, dtype="float32"):
    r"""``n``-step returns, and the observations ``n`` steps later.

    .. math:: R_t = \sum_{k=0}^{m-1} \gamma^k r_{t+k}, \qquad
        (s_t, a_t, R_t, s_{t+m}, \gamma^m)

    where :math:`m` is ``n``, or fewer where the episode ends or the rollout does. Where
    the episode *terminated*, 0 stands for :math:`\gamma^m`: no bootstrapping.

    Args:
        rollout: ``Rollout``.
        n: Positive integer.
        discount: Number :math:`\gamma` in [0, 1].
        dtype: String, of the observations: ``"uint8"`` where they are bytes, as of
            images, takes a quarter of the memory.

    Returns:
        Dict with ``observation`` and ``next_observation`` ``(steps, ...)``, ``action``,
        ``reward`` and ``discount`` ``(steps,)``, of the steps that were played, in the
        order of time.

    Raises:
        ValueError: If ``n`` or ``discount`` is none of the above.

    Example:
        >>> from dlcompanion.reinforcement.agents.rollout import Rollout
        >>> x, no = np.arange(3.0)[:, None], np.zeros((3, 1), bool)
        >>> rollout = Rollout(x, x, x + 1, x + 1, no, no, ~no)
        >>> found = n_step_transitions(rollout, n=2, discount=0.5)
        >>> found["reward"].tolist(), found["discount"].tolist()
        ([2.0, 3.5, 3.0], [0.25, 0.25, 0.5])
    """
    check_count("n", n)
    check_number("discount", discount, 0, 1)
    time = len(rollout.rewards)
    rewards = np.zeros(rollout.rewards.shape)
    factor = np.ones_like(rewards)
    last = np.broadcast_to(np.arange(time)[:, None], rewards.shape).copy()
    going = rollout.mask.copy()
    for k in range(min(n, time)):
        at = np.minimum(np.arange(time) + k, time - 1)
        going[time - k :] = False  # the rollout ends
        if k:
            going &= ~rollout.dones[np.maximum(at - 1, 0)]
        rewards += np.where(going, factor * rollout.rewards[at], 0.0)
        last = np.where(going, at[:, None], last)
        factor = np.where(going, factor * discount, factor)
    column = np.arange(rewards.shape[1])
    factor = np.where(rollout.terminated[last, column], 0.0, factor)
    mask = rollout.mask
    return {
        "observation": rollout.observations[mask].astype(dtype),
        "action": rollout.actions[mask],
        "reward": rewards[mask].astype("float32"),
        "next_observation": rollout.next_observations[last, column][mask].astype(dtype),
        "discount": factor[mask].astype("float32"),
    }
