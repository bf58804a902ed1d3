"""Pendulum and Acrobot of gymnasium, many at a time as arrays.

gymnasium steps copies of an environment one after the other, but for CartPole, of
which it has a vector environment of its own. Here are two more: all copies move in a
handful of NumPy operations, to the same states.
"""

import functools

import numpy as np

from dlcompanion.backend import require
from dlcompanion.checks import check_count


def vector_pendulum(num_envs):
    r"""``Pendulum-v1``, ``num_envs`` of them in one array.

    .. math:: \dot\theta \leftarrow \dot\theta + (15 \sin\theta + 3 u)\,\Delta t, \qquad
        \theta \leftarrow \theta + \dot\theta\,\Delta t, \qquad
        r = -(\theta^2 + 0.1\,\dot\theta^2 + 0.001\,u^2)

    Seeded alike, it equals ``gymnasium.make_vec("Pendulum-v1", num_envs,
    vectorization_mode="sync")`` up to rounding: states, rewards, resets in the step
    after the end (``NEXT_STEP``), and a time limit of 200 steps. It draws no pictures.

    Args:
        num_envs: Positive integer.

    Returns:
        A ``gymnasium.vector.VectorEnv``.

    Raises:
        ValueError: If ``num_envs`` is not a positive integer.

    Example:
        >>> pendulums = vector_pendulum(3)
        >>> observations, _ = pendulums.reset(seed=0)
        >>> observations, rewards, *_ = pendulums.step(np.zeros((3, 1), "float32"))
        >>> observations.shape, rewards.round(2).tolist()
        ((3, 3), [-0.76, -0.09, -2.26])
    """
    return _vector_class()(_Pendulum, num_envs)


def vector_acrobot(num_envs):
    """``Acrobot-v1``, ``num_envs`` of them in one array.

    Two rods hang from each other, the joint between them has a motor, and the tip
    shall rise one rod's length above the upper joint. Integrated by a step of
    Runge-Kutta of order four. Seeded alike, it equals ``gymnasium.make_vec(
    "Acrobot-v1", num_envs, vectorization_mode="sync")`` up to rounding, which this
    chaotic system magnifies in the course of an episode. Resets come in the step after
    the end (``NEXT_STEP``), the time limit is 500 steps. It draws no pictures.

    Args:
        num_envs: Positive integer.

    Returns:
        A ``gymnasium.vector.VectorEnv``.

    Raises:
        ValueError: If ``num_envs`` is not a positive integer.

    Example:
        >>> acrobots = vector_acrobot(2)
        >>> observations, _ = acrobots.reset(seed=0)
        >>> observations, rewards, *_ = acrobots.step(np.array([0, 2]))
        >>> observations.shape, rewards.tolist()
        ((2, 6), [-1.0, -1.0])
    """
    return _vector_class()(_Acrobot, num_envs)


class _Pendulum:
    """States ``(num_envs, 2)``: angle and speed, both 0 at rest on top."""

    id = "Pendulum-v1"

    @staticmethod
    def spaces(spaces):
        high = np.array([1.0, 1.0, 8.0], "float32")
        return spaces.Box(-high, high), spaces.Box(-2.0, 2.0, (1,), np.float32)

    @staticmethod
    def start(random):
        high = np.array([np.pi, 1.0])
        return random.uniform(-high, high)

    @staticmethod
    def observe(states):
        angle, speed = states.T
        return np.stack([np.cos(angle), np.sin(angle), speed], axis=1).astype("float32")

    @staticmethod
    def step(states, actions):
        angle, speed = states.T
        torque = np.clip(actions[:, 0], -2.0, 2.0)
        upright = (angle + np.pi) % (2 * np.pi) - np.pi
        cost = upright**2 + 0.1 * speed**2 + 0.001 * torque**2
        speed = np.clip(speed + (15.0 * np.sin(angle) + 3.0 * torque) * 0.05, -8, 8)
        states = np.stack([angle + speed * 0.05, speed], axis=1)
        return states, -cost, np.zeros(len(states), bool)


class _Acrobot:
    """States ``(num_envs, 4)``: two angles, 0 if hanging, and their speeds."""

    id = "Acrobot-v1"
    fastest = np.array([4 * np.pi, 9 * np.pi])

    @classmethod
    def spaces(cls, spaces):
        high = np.array([1.0, 1.0, 1.0, 1.0, *cls.fastest], "float32")
        return spaces.Box(-high, high), spaces.Discrete(3)

    @staticmethod
    def start(random):
        return random.uniform(-0.1, 0.1, 4).astype("float32")

    @staticmethod
    def observe(states):
        first, second, *speeds = states.T
        columns = [np.cos(first), np.sin(first), np.cos(second), np.sin(second)]
        return np.stack([*columns, *speeds], axis=1).astype("float32")

    @classmethod
    def step(cls, states, actions):
        if not np.isin(actions, (0, 1, 2)).all():
            raise ValueError(
                f"The actions of Acrobot are 0, 1 and 2. Received: actions={actions}"
            )
        torque, x, dt = actions - 1.0, states.T, 0.2
        k1 = cls.slope(x, torque)
        k2 = cls.slope(x + dt / 2 * k1, torque)
        k3 = cls.slope(x + dt / 2 * k2, torque)
        k4 = cls.slope(x + dt * k3, torque)
        x = x + dt / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
        above = np.ceil((x[:2] - np.pi) / (2 * np.pi)).clip(0)
        below = np.ceil((-np.pi - x[:2]) / (2 * np.pi)).clip(0)
        first, second = angles = x[:2] - 2 * np.pi * (above - below)
        limit = cls.fastest[:, None]
        states = np.concatenate([angles, np.clip(x[2:], -limit, limit)]).T
        terminated = -np.cos(first) - np.cos(first + second) > 1.0
        return states, np.where(terminated, 0.0, -1.0), terminated

    @staticmethod
    def slope(x, torque):
        """Time derivative of ``(4, num_envs)``; masses, lengths and inertias are 1."""
        first, second, speed_1, speed_2 = x
        g, sine, cosine = 9.8, np.sin(second), np.cos(second)
        d1 = 0.25 + (1.25 + cosine) + 2.0
        d2 = 0.25 + 0.5 * cosine + 1.0
        phi_2 = 0.5 * g * np.cos(first + second - np.pi / 2)
        phi_1 = (
            -0.5 * speed_2**2 * sine
            - speed_2 * speed_1 * sine
            + 1.5 * g * np.cos(first - np.pi / 2)
            + phi_2
        )
        push = torque + d2 / d1 * phi_1 - 0.5 * speed_1**2 * sine - phi_2
        second_rate = push / (1.25 - d2**2 / d1)
        first_rate = -(d2 * second_rate + phi_1) / d1
        return np.stack([speed_1, speed_2, first_rate, second_rate])


@functools.cache
def _vector_class():
    """The class of both, made once gymnasium is wanted."""
    gym = require("gymnasium", "reinforcement")

    class ArrayEnvironments(gym.vector.VectorEnv):
        """Environments whose states are the rows of one array."""

        metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}

        def __init__(self, kind, num_envs):
            self.kind, self.num_envs = kind, check_count("num_envs", num_envs)
            self.spec = gym.spec(kind.id)
            spaces = kind.spaces(gym.spaces)
            self.single_observation_space, self.single_action_space = spaces
            self.observation_space, self.action_space = (
                gym.vector.utils.batch_space(space, num_envs) for space in spaces
            )
            self.states = None

        def reset(self, *, seed=None, options=None):
            if options:
                raise ValueError(
                    f"{self.kind.id} as arrays takes no options. Received: {options}"
                )
            if isinstance(seed, (int, np.integer)):
                seed = [int(seed) + n for n in range(self.num_envs)]
            if seed is not None or self.states is None:
                seeds = [None] * self.num_envs if seed is None else seed
                self.generators = [gym.utils.seeding.np_random(s)[0] for s in seeds]
            self.states = np.array(
                [self.kind.start(random) for random in self.generators], "float64"
            )
            self.steps = np.zeros(self.num_envs, int)
            self.over = np.zeros(self.num_envs, bool)
            return self.kind.observe(self.states), {}

        def step(self, actions):
            if self.states is None:
                raise ValueError("reset() comes before step(). Received: no reset")
            actions = np.asarray(actions)
            if actions.shape != self.action_space.shape:
                raise ValueError(
                    f"actions must have the shape {self.action_space.shape}. "
                    f"Received: actions.shape={actions.shape}"
                )
            again = np.flatnonzero(self.over)  # these do nothing but begin anew
            states, rewards, terminated = self.kind.step(self.states, actions)
            self.steps += 1
            for n in again:
                states[n] = self.kind.start(self.generators[n])
            rewards[again], terminated[again], self.steps[again] = 0.0, False, 0
            truncated = self.steps >= self.spec.max_episode_steps
            self.states, self.over = states, terminated | truncated
            return self.kind.observe(states), rewards, terminated, truncated, {}

    return ArrayEnvironments


# what Environments makes of these ids
NATIVE = {"Pendulum-v1": vector_pendulum, "Acrobot-v1": vector_acrobot}
