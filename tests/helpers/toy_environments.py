"""Small environments whose every episode is known in advance."""

import os
from pathlib import Path

import gymnasium as gym
import numpy as np


class Corridor(gym.Env):
    """Observation: steps so far and the length; ends after a length drawn at reset.

    The reward of step t is t + 1. Episodes longer than ``limit`` are cut there.
    Actions are 3 and 4.
    """

    observation_space = gym.spaces.Box(-1000.0, 1000.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2, start=3)

    def __init__(self, limit=6, fault=None):
        self.limit, self.fault = limit, fault
        self.actions = []

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.length = int(self.np_random.integers(2, 10))
        self.time = 0
        return self.observation(), {}

    def step(self, action):
        assert action in (3, 4)
        self.actions.append(int(action))
        self.time += 1
        reward = float(self.time)
        if self.fault == "reward" and self.time == 2:
            reward = float("nan")
        return (
            self.observation(),
            reward,
            self.time >= self.length,
            self.time >= self.limit,
            {},
        )

    def observation(self):
        time = np.nan if self.fault == "observation" and self.time == 2 else self.time
        return np.array([time, self.length], np.float32)


class Choice(gym.Env):
    """One step an episode: the second of three actions is worth 1, the others 0."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation(), {}

    def step(self, action):
        return self.observation(), float(action == 1), True, False, {}

    def observation(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


class Aim(gym.Env):
    """One step an episode: the reward is minus the squared distance to (3, 5)."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Box(
        np.array([2.0, 4.0], "float32"), np.array([4.0, 10.0], "float32")
    )

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, "float32"), {}

    def step(self, action):
        assert self.action_space.contains(action)
        reward = -float(((action - np.array([3.0, 5.0])) ** 2).sum())
        return np.zeros(1, "float32"), reward, True, False, {}


class Pair(gym.Env):
    """One step an episode: two choices, each worth 1 where it is right."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.MultiDiscrete([2, 3], start=[1, 5])

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, "float32"), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action))
        reward = float(action[0] == 2) + float(action[1] == 6)
        return np.zeros(1, "float32"), reward, True, False, {}


class Later(gym.Env):
    """Two steps: action 1 pays 1 and ends, action 0 pays nothing and leads on, to 2.

    Seen are where one is, and 1.
    """

    observation_space = gym.spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return self.seen(), {}

    def seen(self):
        return np.array([self.place, 1], np.float32)

    def step(self, action):
        if self.place == 0 and action == 0:
            self.place = 1
            return self.seen(), 0.0, False, False, {}
        return self.seen(), 1.0 + self.place, True, False, {}


class Informed(Corridor):
    """A corridor that tells where it is, now and then, and writes to its action."""

    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def step(self, action):
        action += self.np_random.normal(size=2)
        _, reward, terminated, truncated, _ = super().step(3)
        infos = {"place": self.time, "action": action}
        infos |= {"odd": {"text": "yes"}} if self.time % 2 else {}
        return self.observation(), reward, terminated, truncated, infos


class Mortal(Corridor):
    """Ends its process in an episode of length 9: once, or always without a file."""

    def __init__(self, file=None):
        super().__init__(limit=20)
        self.file = None if file is None else Path(file)

    def step(self, action):
        if self.length == 9 and self.time == 4:
            if self.file is None or not self.file.exists():
                if self.file is not None:
                    self.file.touch()
                os._exit(3)
        return super().step(action)


class Faulty(Corridor):
    """Raises in the third step, or when it is made."""

    def __init__(self, late=True):
        super().__init__()
        if not late:
            raise ValueError("no license for the simulator. Received: 0 seats")

    def step(self, action):
        if self.time == 2:
            raise KeyError("a bug of the user")
        return super().step(action)


class Careless(Corridor):
    """Draws from a generator that nobody seeded."""

    def step(self, action):
        _, *others = super().step(action)
        return np.random.default_rng().random(2, "float32"), *others


class Pixels(Choice):
    """Images of bytes; what is best does not depend on them."""

    observation_space = gym.spaces.Box(0, 255, (2, 2, 1), np.uint8)

    def observation(self):
        return self.np_random.integers(256, size=(2, 2, 1)).astype("uint8")


class RealPixels(Pixels):
    """The larger the action the better."""

    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def step(self, action):
        return self.observation(), float(action[0]), True, False, {}


class Recall(gym.Env):
    """A sign is shown at the first step, and asked for ``delay`` steps later.

    Seen are the sign, 0 after the first step, and whether it is asked for: then action
    1 is right for a positive sign and action 0 for a negative one, and pays 1.
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, delay=4):
        self.delay = delay

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.sign, self.time = int(self.np_random.integers(2)) * 2 - 1, 0
        return self.seen(), {}

    def seen(self):
        shown = self.sign if self.time == 0 else 0
        return np.array([shown, self.time == self.delay], np.float32)

    def step(self, action):
        right = action == (self.sign > 0)
        self.time += 1
        over = self.time > self.delay
        return self.seen(), float(over and right), over, False, {}


class Signs(gym.Env):
    """Episodes of random length, cut after 6 steps: what is right is seen anew in each.

    Action 4 pays the first of the two numbers that are seen, and action 3 costs it.
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2, start=3)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.look(), {}

    def look(self):
        shape = self.observation_space.shape
        self.seen = self.np_random.uniform(-1, 1, shape).astype(np.float32)
        return self.seen

    def reward(self, action):
        return self.seen[0] if action == 4 else -self.seen[0]

    def step(self, action):
        reward = float(self.reward(action))
        self.time += 1
        over = self.np_random.random() < 0.2
        return self.look(), reward, over, self.time >= 6, {}


class Steer(Signs):
    """The action should be 2.6 and a fifth of the number that is seen."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Box(2.0, 4.0, (1,), np.float32)

    def reward(self, action):
        return -4.0 * (action[0] - 2.6 - 0.2 * self.seen[0]) ** 2
