"""Agents with one planted fault each, derived from a healthy one.

As in planted_layers.py, every class breaks one promise and keeps the others.
"""

import json

import gymnasium as gym
import numpy as np
from keras import ops

from dlcompanion.reinforcement import DQN


class Sign(gym.Env):
    """One step: action 1 pays the first number that is seen, action 0 costs it."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.seen = self.np_random.uniform(-1, 1, 2).astype("float32")
        return self.seen, {}

    def step(self, action):
        paid = self.seen[0] if action == 1 else -self.seen[0]
        return self.seen, float(paid), True, False, {}


class Healthy:
    """Fits a linear model to what each action pays, by gradients with momentum."""

    def __init__(self, environment, rate=0.2, seed=None):
        self.environment = environment()
        self.fits(self.environment)
        self.rate, self.seed, self.steps = rate, seed, 0
        self._draws, self._predictions = (np.random.default_rng(seed) for _ in range(2))
        self.weights = self._draws.normal(size=(2, 2))
        self.velocity = np.zeros((2, 2))

    def fits(self, environment):
        shape, actions = environment.observation_space.shape, environment.action_space
        if shape != (2,) or actions != gym.spaces.Discrete(2):
            raise ValueError(f"Other spaces are played. Received: {environment}")

    def fit(self, steps):
        for _ in range(steps):
            seen, _ = self.environment.reset(seed=int(self.draws().integers(2**31)))
            action = self.explore(seen, self.draws())
            after, reward, _, _, _ = self.environment.step(action)
            self.finite(observation=after, reward=reward)
            self.improve(seen, action, reward)
            self.steps += 1

    def finite(self, **numbers):
        for name, value in numbers.items():
            if not np.isfinite(value).all():
                raise ValueError(f"Numbers must be finite. Received: {name}={value}")

    def improve(self, seen, action, reward):
        slope = np.zeros((2, 2))  # of half the squared error
        slope[:, action] = seen * (seen @ self.weights[:, action] - reward)
        self.velocity = 0.5 * self.velocity - self.rate * slope
        self.weights = self.weights + self.velocity

    def draws(self):
        return self._draws

    def explore(self, seen, draws):
        return int(draws.integers(2)) if draws.random() < 0.5 else self.predict(seen)

    def predict(self, seen, deterministic=True):
        if not deterministic:
            return self.explore(seen, self._predictions)
        return int((seen @ self.weights).argmax())

    def evaluate(self, episodes=50):
        environment, draws = Sign(), self.draws_of_evaluation()
        total = 0.0
        for seed in draws.integers(2**31, size=episodes):
            seen, _ = environment.reset(seed=int(seed))
            total += environment.step(self.predict(seen))[1]
        return {"return_mean": total / episodes}

    def draws_of_evaluation(self):
        return np.random.default_rng([self.seed, 1])

    def kept(self):
        """What a file holds."""
        state = {name: getattr(self, name) for name in ("rate", "seed", "steps")}
        for name in ("weights", "velocity"):
            state[name] = getattr(self, name).tolist()
        for name in ("_draws", "_predictions"):
            state[name] = getattr(self, name).bit_generator.state
        return state

    def save(self, path):
        path.write_text(json.dumps(self.kept()))

    @classmethod
    def load(cls, path, environment):
        state = json.loads(path.read_text())
        agent = cls(environment, state["rate"], state["seed"])
        agent.steps = state["steps"]
        agent.weights, agent.velocity = (
            np.array(state[name]) for name in ("weights", "velocity")
        )
        for name in ("_draws", "_predictions"):
            getattr(agent, name).bit_generator.state = state[name]
        return agent


# --- seed -----------------------------------------------------------------------


class DrawsFromGlobalGenerator(Healthy):
    def draws(self):
        return np.random.default_rng(np.random.randint(2**31))


class TakesWeightsFromGlobalGenerator(Healthy):
    def __init__(self, environment, rate=0.2, seed=None):
        super().__init__(environment, rate, seed)
        self.weights = np.random.normal(size=(2, 2))


class IgnoresSeed(Healthy):
    def __init__(self, environment, rate=0.2, seed=None):
        super().__init__(environment, rate, seed=7)


class StartsAnewInEachFit(Healthy):
    def fit(self, steps):
        self._draws = np.random.default_rng(self.seed)
        super().fit(steps)


# --- spaces ---------------------------------------------------------------------


class TakesAnySpace(Healthy):
    def fits(self, environment):
        pass


class RefusesWithAnotherError(Healthy):
    def fits(self, environment):
        assert environment.observation_space.shape == (2,)
        super().fits(environment)


class RefusesForAnotherReason(Healthy):
    def fits(self, environment):
        try:
            super().fits(environment)
        except ValueError as error:
            raise ValueError("A matrix does not fit.") from error


class LoadsIntoAnySpace(Healthy):
    @classmethod
    def load(cls, path, environment):
        return super().load(path, Sign)


# --- evaluate -------------------------------------------------------------------


class EvaluationTrains(Healthy):
    def evaluate(self, episodes=50):
        self.fit(1)
        self.steps -= 1
        return {"return_mean": 0.0}


class EvaluationDrawsForTraining(Healthy):
    def evaluate(self, episodes=50):
        self.draws().random()
        return super().evaluate(episodes)


class EvaluationHasNoSeed(Healthy):
    def draws_of_evaluation(self):
        return np.random.default_rng()


class PredictionTrains(Healthy):
    def predict(self, seen, deterministic=True):
        self.draws().random()
        return super().predict(seen, deterministic)


# --- resume ---------------------------------------------------------------------


class ForgetsVelocity(Healthy):
    def kept(self):
        return {**super().kept(), "velocity": [[0.0, 0.0], [0.0, 0.0]]}


class ForgetsCounter(Healthy):
    def kept(self):
        return {**super().kept(), "steps": 0}


class ForgetsDraws(Healthy):
    def kept(self):
        begin = np.random.default_rng(self.seed).bit_generator.state
        return {**super().kept(), "_draws": begin}


class ForgetsPredictions(Healthy):
    def kept(self):
        begin = np.random.default_rng(self.seed).bit_generator.state
        return {**super().kept(), "_predictions": begin}


class ForgetsArguments(Healthy):
    def kept(self):
        return {**super().kept(), "rate": 0.2}


class ForgetsOptimizer(DQN):
    def save(self, path):
        variables = self.learner.optimizer.variables
        values = [ops.convert_to_numpy(v) for v in variables]
        for variable in variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))
        super().save(path)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


class RemembersInItsProcess(Healthy):
    there = {}

    def save(self, path):
        super().save(path)
        self.there[path] = self

    @classmethod
    def load(cls, path, environment):
        cls.there[path].fits(environment())
        return super().load(path, environment)


# --- finite ---------------------------------------------------------------------


class LearnsNaN(Healthy):
    def finite(self, **numbers):
        pass


class LearnsNaNObservations(Healthy):
    def finite(self, observation, reward):
        super().finite(reward=reward)


class SwallowsNaN(Healthy):
    def finite(self, **numbers):
        pass

    def improve(self, seen, action, reward):
        super().improve(seen, action, np.nan_to_num(reward))


class RaisesAnotherError(Healthy):
    def finite(self, **numbers):
        assert all(np.isfinite(value).all() for value in numbers.values())


class RaisesWithoutReason(Healthy):
    def finite(self, **numbers):
        try:
            super().finite(**numbers)
        except ValueError as error:
            raise ValueError("Something went wrong.") from error


class LearnsBeforeItRaises(Healthy):
    def finite(self, observation, reward):
        if not np.isfinite(reward):
            self.improve(observation, 0, reward)
        super().finite(observation=observation, reward=reward)


class IsBrokenForGood(Healthy):
    def finite(self, **numbers):
        self.broken = getattr(self, "broken", False)
        self.broken |= not all(np.isfinite(x).all() for x in numbers.values())
        if self.broken:
            raise ValueError("Numbers must be finite. Received: nan")


# --- learns ---------------------------------------------------------------------


class NeverLearns(Healthy):
    def improve(self, seen, action, reward):
        pass


class LearnsInTheBeginning(Healthy):
    def improve(self, seen, action, reward):
        if self.steps < 10:
            super().improve(seen, action, reward)


class LearnsTheOpposite(Healthy):
    def improve(self, seen, action, reward):
        super().improve(seen, action, -reward)


# --- what the check cannot check, or has to do otherwise ------------------------


class LearnsLate(Healthy):
    def improve(self, seen, action, reward):
        if self.steps > 30:
            super().improve(seen, action, reward)


class Heads:
    """A game: who says 1 wins."""

    def start(self, random):
        return random.uniform(-1, 1, 2)

    def won(self, seen, action):
        return action == 1


class Player(Healthy):
    """Healthy: plays games."""

    def __init__(self, game, rate=0.2, seed=None):
        super().__init__(Sign, rate, seed)
        self.game = game

    def fit(self, steps):
        for _ in range(steps):
            seen, action = self.game.start(self._draws), int(self._draws.integers(2))
            self.improve(seen, action, float(self.game.won(seen, action)))
            self.steps += 1

    def improve(self, seen, action, reward):
        super().improve(np.append(seen[:1], 1.0), action, reward)

    def evaluate(self, games=50):
        draws = self.draws_of_evaluation()
        seen = [self.game.start(draws) for _ in range(games)]
        won = [self.game.won(x, self.predict(np.append(x[:1], 1.0))) for x in seen]
        return {"return_mean": float(np.mean(won))}


# --- restart --------------------------------------------------------------------


class RestartForgetsMomentum(Healthy):
    def restart(self, seed):
        velocity = self.velocity
        self.__init__(lambda: self.environment, self.rate, seed)
        self.velocity = velocity
