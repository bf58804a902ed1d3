"""BaseAgent: what every agent of this chapter has, its seed and its file."""

import inspect

import keras
import numpy as np

from dlcompanion import backend
from dlcompanion.checks import check_count
from dlcompanion.reinforcement.agents import agent_file
from dlcompanion.reinforcement.environments.spaces_only import spaces_only
from dlcompanion.training.restart import fresh_model, fresh_optimizer_values


class BaseAgent:
    """An agent whose chance follows from a seed, and that one file holds.

    A subclass names its ``counters``, sets ``learner`` in a method ``attach`` if a
    Keras model learns, and says by :meth:`arrays` and :meth:`restore` what else it
    keeps.

    Args:
        seed: Integer of at least 0, or None for one that is drawn.
        config: Dict, the arguments of the subclass that JSON can hold, without
            networks, optimizers, environment and seed.

    Raises:
        ValueError: If ``seed`` is neither None nor such an integer.

    Example:
        >>> from dlcompanion.reinforcement import GridWorld, QLearning
        >>> agent = QLearning(GridWorld.cliff(), seed=3)
        >>> isinstance(agent, BaseAgent), agent.seed
        (True, 3)
    """

    #: What the constructor and ``load`` call the world that the agent acts in.
    world = "environment"
    #: Names of the attributes that count, and that a file holds.
    counters = ()
    learner = None
    _draws = None

    def __new__(cls, *args, **kwargs):
        agent = super().__new__(cls)
        try:
            given = inspect.signature(cls).bind(*args, **kwargs).arguments
        except TypeError:  # the constructor says what is wrong
            given = {}
        given |= given.pop("kwargs", {})
        agent._given = {name: x for name, x in given.items() if x is not None}
        return agent

    def __init__(self, seed, config):
        drawn = np.random.SeedSequence().entropy if seed is None else seed
        self.seed = check_count("seed", drawn, least=0)
        self.config = {**config, "seed": self.seed}

    def number(self, purpose, count):
        """A random number of 32 bits that depends on the seed and the arguments only.

        Args:
            purpose: Integer: each purpose has its own stream of numbers.
            count: Integer, for example the number of the epoch.

        Returns:
            Integer.
        """
        return int(self._sequence(purpose, count).generate_state(1)[0])

    def random(self, purpose, count):
        """A generator that depends on the seed and the arguments only.

        Args:
            purpose: Integer, as of :meth:`number`.
            count: Integer.

        Returns:
            ``numpy.random.Generator``.
        """
        return np.random.default_rng(self._sequence(purpose, count))

    def _sequence(self, purpose, count):
        return np.random.SeedSequence(self.seed, spawn_key=(purpose, count))

    def arrays(self):
        """What there is to save beyond the learner and the counters.

        Returns:
            Dict from name to NumPy array: a replay memory, running statistics.
        """
        return {}

    def restore(self, arrays):
        """Take back what :meth:`arrays` gave.

        Args:
            arrays: Dict from name to NumPy array.
        """

    def save(self, path):
        """Write the whole agent to one file, or leave the file as it was.

        The file holds the learner in Keras's own format (networks, optimizer), the
        arguments, the counters and what the agent remembers, and no pickle. ``fit(n)``
        equals, bit for bit on one backend and machine, ``fit(k)``, ``save``, a new
        process, ``load`` and ``fit(n - k)``. Environments are not saved, nor need they
        be, as long as they honor ``reset(seed=...)``: every epoch begins with one.

        To survive a killed process, save from a callback:
        ``keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: agent.save(path))``.

        Args:
            path: String or path of the file.
        """
        if self.learner is not None and not self.learner.optimizer.built:
            # before the first fit: it begins from 0
            self.learner.optimizer.build(self.learner.trainable_variables)
        state = self.get_state()
        arrays = state.pop("arrays")
        state |= {"world": self.world_config(), "config": self.config}
        state |= {"spaces": self.spaces_config(), "given": sorted(self._given)}
        agent_file.write(path, state, self.learner, arrays)

    def get_state(self):
        """Where the agent is, without the variables of its learner and optimizer.

        Returns:
            Dict of numbers, strings, dicts and NumPy arrays.
        """
        return {
            "agent": type(self).__name__,
            "seed": self.seed,
            "counters": {name: getattr(self, name) for name in self.counters},
            "draws": self._draws and self._draws.bit_generator.state,
            "arrays": self.arrays(),
        }

    def set_state(self, state):
        """Go on from what :meth:`get_state` returned.

        Args:
            state: Dict.
        """
        self.seed = self.config["seed"] = state["seed"]
        for name, value in state["counters"].items():
            setattr(self, name, value)
        if state["draws"] is not None:
            self._draws.bit_generator.state = state["draws"]
        self.restore(state["arrays"])

    @classmethod
    def load(cls, path, environment=None, env=None):
        """The agent that was saved, ready to go on.

        Args:
            path: String or path of a file that ``save`` wrote.
            environment: As in the constructor. By default the id that the agent was
                made with. If it was made with anything else, an agent of a policy
                network that is loaded without one predicts, and cannot be trained or
                evaluated.
            env: The same, as Stable-Baselines3 calls it.

        Returns:
            The agent.

        Raises:
            ValueError: If the file is truncated, foreign, or of another kind of agent,
                no environment is known, or it does not fit what was learned.
        """
        if env is not None:
            if environment is not None:
                raise ValueError(
                    "env is another name of environment: pass one of them. Received: "
                    f"environment={environment!r}, env={env!r}"
                )
            environment = env
        state, learner, arrays = agent_file.read(path)
        if state["agent"] != cls.__name__:
            raise ValueError(
                f"{path} holds another agent. "
                f"Received: {state['agent']} in the file, {cls.__name__} asked for"
            )
        if environment is None:
            environment = cls.world_of(state["world"])
        if environment is None and state.get("spaces"):
            environment = spaces_only(state["spaces"])
        if environment is None:
            raise ValueError(
                f"The file of this agent cannot make its {cls.world}: pass "
                f"load(path, {cls.world}=...). Received: {cls.world}=None"
            )
        parts = {} if learner is None else cls.parts_of(learner)
        agent = cls(environment, **parts, **state["config"])
        # a network that the constructor made is not one that was given
        given = state.get("given", agent._given)
        agent._given = {n: x for n, x in agent._given.items() if n in given}
        if learner is not None:
            agent.take(learner)
        agent.set_state({"seed": agent.seed, **state, "arrays": arrays})
        return agent

    def world_config(self):
        """What makes the same world again, as JSON can hold it, or None."""
        raise NotImplementedError("an agent must define world_config() -> JSON or None")

    def spaces_config(self):
        """The spaces that the agent predicts with, as JSON can hold them, or None."""
        return None

    def __repr__(self):
        counters = [name for name in self.counters if name[0] != "_"]
        parts = [self.about(), *(f"{n}={getattr(self, n)}" for n in counters)]
        return f"{type(self).__name__}({', '.join(parts)}, seed={self.seed})"

    def about(self):
        """What it acts in, for its ``repr``."""
        source = getattr(self, "source", None)
        source = self.world_config() if source is None else source
        return f"{self.world}={getattr(source, '__qualname__', None) or repr(source)}"

    @staticmethod
    def world_of(config):
        """The world of :meth:`world_config`: here an id is given as it is."""
        return config

    @staticmethod
    def parts_of(learner):
        """The arguments of the constructor that a loaded learner stands for."""
        raise NotImplementedError("an agent must define parts_of(learner) -> arguments")

    def take(self, learner):
        """Go on with a learner from a file, which has more than its parts."""
        self.attach(learner)


def begin_anew(agent, seed, world, kept):
    """Make an agent as a new one of its arguments and another seed is.

    What is compiled stays: the learner is given new variables.

    Args:
        agent: :class:`BaseAgent` with a learner.
        seed: Integer of at least 0.
        world: What the constructor is given as its world.
        kept: Dict from name to attribute of the agent that stays as it is.

    Returns:
        The agent.

    Raises:
        ValueError: If ``seed`` is no such integer, or a network has no config.
    """
    seed = check_count("seed", seed, least=0)
    backend.set_seed(seed)
    given = {
        name: _anew(value)
        for name, value in agent._given.items()
        if not isinstance(value, keras.optimizers.Optimizer)
    }
    new = type(agent)(**{**given, **agent.config, "seed": seed, agent.world: world})
    learner, fresh = agent.learner, new.learner
    variables = [*learner.variables, *learner.optimizer.variables]
    values = [*fresh.variables, *fresh_optimizer_values(learner.optimizer)]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    learner.reset_metrics()
    # and nothing of an epoch under way
    agent.__dict__ = {**new.__dict__, **kept, "_given": agent._given}
    agent.attach(learner)
    agent.restore(new.arrays())
    return agent


def _anew(value):
    """Networks as they were before they learned; all else as it is."""
    if isinstance(value, (list, tuple)):
        return [_anew(one) for one in value]
    if isinstance(value, keras.Model):
        return fresh_model(value)
    return value
