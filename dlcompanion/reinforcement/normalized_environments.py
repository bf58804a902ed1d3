"""Observations and rewards in units of their own: running means and deviations."""

import numpy as np

from dlcompanion.checks import check_number

#: A coordinate that varies by less than float32 resolves is taken for a constant.
RESOLUTION = 2.0**-23


class RunningStatistics:
    r"""Mean and variance of all rows seen so far, batch by batch.

    Nothing is kept but the number :math:`n`, the mean :math:`\mu` and the sum
    :math:`M` of the squared deviations from it. A batch of :math:`m` rows with mean
    :math:`\mu'` and sum :math:`M'` is added by

    .. math:: \delta = \mu' - \mu, \qquad
        \mu \leftarrow \mu + \delta \frac{m}{n + m}, \qquad
        M \leftarrow M + M' + \delta^2 \frac{n m}{n + m}, \qquad
        n \leftarrow n + m .

    In whatever pieces the rows come, the result is that of NumPy on all of them, in
    float64. No large sum of squares is ever subtracted from another.

    Args:
        shape: Tuple, the shape of one row.

    Attributes:
        count: Integer, the rows seen.
        mean: Float64 array of that shape, 0 before the first row.
        squares: Float64 array of that shape, the sum of squared deviations.

    Raises:
        ValueError: If ``shape`` is not a tuple of non-negative integers.

    Example:
        >>> seen = RunningStatistics((2,))
        >>> seen.update(np.array([[0.0, 7.0], [2.0, 7.0]]))
        >>> seen.update(np.array([[4.0, 7.0]]))
        >>> seen.mean.tolist(), seen.variance.round(4).tolist(), seen.scale.round(4)
        ([2.0, 7.0], [2.6667, 0.0], array([1.633, 1.   ]))

    References:
        Chan, Golub and LeVeque, *Updating Formulae and a Pairwise Algorithm for
        Computing Sample Variances*, 1979.
    """

    def __init__(self, shape=()):
        sizes = shape if isinstance(shape, tuple) else (None,)
        if not all(isinstance(n, int) and n >= 0 for n in sizes):
            raise ValueError(
                "shape must be a tuple of integers of at least 0. "
                f"Received: shape={shape!r}"
            )
        self.shape = shape
        self.count = 0
        self.mean = np.zeros(shape)
        self.squares = np.zeros(shape)

    def update(self, rows):
        """Take in more rows.

        Args:
            rows: Array ``(rows, ...)``; none at all change nothing.

        Raises:
            ValueError: If the shape of a row is another, or a value is not finite.
        """
        rows = np.asarray(rows, "float64")
        if rows.ndim == 0 or rows.shape[1:] != self.shape:
            raise ValueError(
                f"rows must have shape (rows, ...) with rows of shape {self.shape}. "
                f"Received: rows.shape={rows.shape}"
            )
        if not np.isfinite(rows).all():
            raise ValueError(
                "Every value must be finite: one that is not would spoil all that "
                f"follow. Received: {rows[~np.isfinite(rows)][0]} among the rows"
            )
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        squares = np.square(rows - mean).sum(axis=0)
        total = self.count + len(rows)
        away = mean - self.mean
        self.mean = self.mean + away * (len(rows) / total)
        between = np.square(away) * (self.count * len(rows) / total)
        self.squares = self.squares + squares + between
        self.count = total

    @property
    def variance(self):
        """Mean squared deviation, 0 before the first row."""
        return self.squares / max(self.count, 1)

    @property
    def scale(self):
        """Standard deviation, or 1 where nothing varies, to divide by."""
        deviation = np.sqrt(self.variance)
        varies = deviation > RESOLUTION * np.abs(self.mean)
        return np.where(varies, deviation, 1.0)


class Normalizer:
    r"""Standardizes the observations and scales the rewards of an agent.

    Observations :math:`s` become

    .. math:: \hat s = \operatorname{clip}\Bigl(\frac{s - \mu_s}{\sigma_s},
        -c, c\Bigr)

    with the mean and standard deviation, coordinate by coordinate, of all observations
    in which an action was chosen. Rewards are divided by the standard deviation of the
    discounted sum of the past ones,

    .. math:: R_t = \gamma R_{t-1} + r_t, \qquad
        \hat r_t = \operatorname{clip}\Bigl(\frac{r_t}{\sigma_R}, -c, c\Bigr),

    which begins at 0 with every episode. No mean is subtracted from them: that would
    pay or charge for every step that an episode lasts, and be another task. What does
    not vary is divided by 1.

    Pass it to an agent, ``PPO(..., normalizer=Normalizer())``; networks, losses and
    the explained variance are then in its units. The agent's logs, ``predict`` and
    ``evaluate`` take observations as they are and report true returns. The statistics
    are updated as follows:

    - Those of *observations* after the update from a rollout, so that the policy that
      is improved is the one that collected it. Before the very first update one rollout
      is collected for the statistics alone.
    - Those of *rewards* before the update: no policy depends on them.
    - Never in ``predict`` and ``evaluate``. Observations of a mere reset are not
      counted, nor those after the last step of an episode.

    They are saved and loaded with the agent.

    Args:
        observations: Boolean, whether observations are normalized.
        rewards: Boolean, whether rewards are.
        clip: Number :math:`c` above 0, in standard deviations.

    Attributes:
        seen: ``RunningStatistics`` of the observations.
        returns: ``RunningStatistics`` of the discounted sums :math:`R_t`.
        raw: Boolean array of the shape of an observation, or False: what stays as it
            is. An agent sets it to what the mask of an
            :class:`~dlcompanion.reinforcement.ActionMask` is made of.
        sums: Float64 array ``(environments,)``, the discounted sums under way.

    Raises:
        ValueError: If an argument is none of the above, nothing is to be normalized, or
            the normalizer already belongs to another agent.

    Example:
        >>> from dlcompanion.reinforcement import PPO
        >>> short = {"rollout_length": 64, "horizon": 64, "seed": 0}
        >>> agent = PPO("Pendulum-v1", normalizer=Normalizer(), **short)
        >>> history = agent.fit(steps=1, verbose=0)
        >>> agent.normalizer.seen.count  # a first look, and a rollout, of 8 pendulums
        1024
        >>> float(agent.normalizer.scaled_observations(agent.normalizer.seen.mean)[0])
        0.0

    References:
        Engstrom, Ilyas, Santurkar, Tsipras, Janoos, Rudolph and Madry, *Implementation
        Matters in Deep Policy Gradients: A Case Study on PPO and TRPO*, 2020.
        https://arxiv.org/abs/2005.12729

        Andrychowicz et al., *What Matters for On-Policy Deep Actor-Critic Methods? A
        Large-Scale Study*, 2021. https://arxiv.org/abs/2006.05990
    """

    def __init__(self, observations=True, rewards=True, clip=10.0):
        for name, value in (("observations", observations), ("rewards", rewards)):
            if not isinstance(value, bool):
                raise ValueError(
                    f"{name} must be a boolean. Received: {name}={value!r}"
                )
        if not (observations or rewards):
            raise ValueError(
                "A normalizer must normalize something; for nothing, give the agent "
                "normalizer=None. Received: observations=False, rewards=False"
            )
        self.observations, self.rewards = observations, rewards
        self.clip = check_number("clip", clip, 0, open_ends=True)
        self.seen = self.returns = None
        self.raw = False

    def get_config(self):
        """The arguments, for the file of an agent.

        Returns:
            Dict that JSON can hold.
        """
        names = ("observations", "rewards", "clip")
        return {name: getattr(self, name) for name in names}

    def build(self, shape, discount):
        """Begin with empty statistics: what an agent does that is given a normalizer.

        Args:
            shape: Tuple, the shape of one observation.
            discount: Number in [0, 1], of the agent.

        Raises:
            ValueError: If it was called before: two agents would mix what they see.
        """
        if self.seen is not None:
            raise ValueError(
                "A normalizer belongs to one agent: make another, "
                f"Normalizer(**normalizer.get_config()). Received: {self!r}, "
                f"with {self.seen.count} observations of another agent"
            )
        self.discount = check_number("discount", discount, 0, 1)
        self.seen = RunningStatistics(tuple(shape))
        self.returns = RunningStatistics()

    def begin(self, count):
        """All environments were reset.

        Args:
            count: Integer, how many there are.
        """
        self.sums = np.zeros(count)

    @property
    def ready(self):
        """Whether there is something to normalize observations with, if need be."""
        return not self.observations or self.seen.count > 0

    def see_rewards(self, rollout):
        """Bring the statistics of the discounted sums up to date.

        Args:
            rollout: ``Rollout``, that follows the last.
        """
        if not self.rewards:
            return
        sums = []
        for rewards, dones, mask in zip(
            rollout.rewards, rollout.dones, rollout.mask, strict=True
        ):
            self.sums = np.where(mask, self.discount * self.sums + rewards, 0.0)
            sums.append(self.sums[mask])
            self.sums = np.where(dones, 0.0, self.sums)
        self.returns.update(np.concatenate(sums))

    def see_observations(self, rollout):
        """Bring the statistics of the observations up to date.

        Args:
            rollout: ``Rollout``.
        """
        if self.observations:
            self.seen.update(rollout.observations[rollout.mask])

    def scaled_observations(self, observations):
        """Observations as the networks see them.

        Args:
            observations: Array ``(..., *shape)``.

        Returns:
            Float32 array of that shape.
        """
        if not self.observations:
            return observations
        x = (observations - self.seen.mean) / self.seen.scale
        x = np.minimum(np.maximum(x, -self.clip), self.clip)
        if np.any(self.raw):
            x = np.where(self.raw, observations, x)
        return x.astype("float32")

    def scaled_rewards(self, rewards):
        """Rewards as the critic sees them.

        Args:
            rewards: Array.

        Returns:
            Float64 array of that shape.
        """
        if not self.rewards:
            return rewards
        return np.clip(rewards / self.returns.scale, -self.clip, self.clip)

    def scaled(self, rollout):
        """A rollout as the learner sees it.

        Args:
            rollout: ``Rollout``.

        Returns:
            ``Rollout``.
        """
        return rollout._replace(
            observations=self.scaled_observations(rollout.observations),
            next_observations=self.scaled_observations(rollout.next_observations),
            rewards=self.scaled_rewards(rollout.rewards),
        )

    def arrays(self):
        """The statistics, for the file of an agent.

        Returns:
            Dict from name to NumPy array.
        """
        return {
            f"normalizer/{name}/{part}": np.asarray(getattr(statistics, part))
            for name, statistics in (("seen", self.seen), ("returns", self.returns))
            for part in ("count", "mean", "squares")
        }

    def restore(self, arrays):
        """Take back what :meth:`arrays` gave.

        Args:
            arrays: Dict from name to NumPy array.
        """
        for name, statistics in (("seen", self.seen), ("returns", self.returns)):
            statistics.count = int(arrays[f"normalizer/{name}/count"])
            statistics.mean = arrays[f"normalizer/{name}/mean"]
            statistics.squares = arrays[f"normalizer/{name}/squares"]

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"Normalizer({arguments})"
