"""check_agent: what an agent promises to those who train it."""

import functools
import inspect
import tempfile
from pathlib import Path

import keras
import numpy as np

from dlcompanion.testing import common
from dlcompanion.testing.common import Subject, leaves, to_numpy
from dlcompanion.testing.errors import run_checks
from dlcompanion.testing.new_process import call_in_new_process
from dlcompanion.testing.watched_environment import WatchedEnvironment, is_environment


def check_agent(
    agent_class,
    init_kwargs,
    environment,
    *,
    steps=200,
    learns=None,
    refuses=(),
    evaluate_kwargs=None,
    score="return_mean",
    skip=(),
):
    """Check that an agent learns, repeats, goes on from a file, and refuses bad input.

    An agent is made by ``agent_class(environment, seed=0, **init_kwargs)`` and has
    ``fit(steps)``, ``predict(observation)``, ``evaluate()``, ``save(path)`` and
    ``load(path, environment)``. Compared are, bit for bit, the variables of
    ``learner`` and its optimizer if it has such a model, the integers and NumPy arrays
    among its public attributes, and what its method ``arrays()`` returns if it has one.

    The checks, in this order, with the names that ``skip`` and
    :class:`ConformanceError` use:

    - ``seed``: ``fit(n)`` equals ``fit(k)`` and ``fit(n - k)`` of another agent with
      the same seed, whatever the global generators of Python, NumPy and Keras hold,
      and differs from that of another seed.
    - ``spaces``: the constructor raises a ValueError for observations or actions of
      text and for all that ``refuses`` lists, and so does ``load`` for an environment
      with an observation or action more.
    - ``evaluate``: ``evaluate`` says the same twice, and neither it nor ``predict``
      changes what training does next.
    - ``resume``: ``fit(k)``, ``save``, a new process, ``load`` and ``fit(n - k)`` are
      ``fit(n)``.
    - ``finite``: a reward or observation that is NaN makes ``fit`` raise a ValueError
      that says so; afterwards all weights are finite and training can go on.
    - ``learns``: both parts of ``fit(n)`` change the weights, and what ``learns`` says.

    Calls :func:`keras.utils.set_random_seed`. The new process is started once and
    serves all later checks; it imports the agent and the environment by name, so both
    must be defined in a module, not in ``__main__`` or a function. A script needs the
    guard ``if __name__ == "__main__"``.

    Args:
        agent_class: The agent's class.
        init_kwargs: Dictionary of arguments of the class without environment and seed,
            or a function that returns one, which is needed if there are networks among
            them. Networks must be built.
        environment: Id of a gymnasium environment, function that makes one, or
            environment, which is copied. The agent gets a function that makes it.
            Anything else, such as a game, is given to the agent as it is; ``finite``
            and ``spaces`` need an environment.
        steps: Positive integer n, the steps of ``fit``: enough that both parts, of 45
            and 55 percent, change the weights.
        learns: Tuple ``(steps, at_least)``: after so many steps more, two agents with
            two seeds score at least that, which not both of them do untrained.
        refuses: List of environments that the agent cannot play, given as
            ``environment`` is.
        evaluate_kwargs: Dictionary of arguments of ``evaluate``.
        score: String, the entry of what ``evaluate`` returns that shall grow.
        skip: Names of checks that do not apply.

    Raises:
        ConformanceError: At the first promise that is broken.
        ValueError: If an argument of the check itself is wrong.

    Example:
        >>> from dlcompanion.reinforcement import GridWorld, QLearning
        >>> world = GridWorld.cliff  # a function that makes one
        >>> check_agent(QLearning, {}, world, learns=(4_000, -13), skip=("resume",))
    """
    if not isinstance(steps, int) or steps < 2:
        raise ValueError(f"steps must be an integer of at least 2. Received: {steps=}")
    if learns is not None and np.shape(learns) != (2,):
        raise ValueError(
            f"learns must be None or a tuple (steps, at_least). Received: {learns=}"
        )
    if not callable(init_kwargs) and any(
        isinstance(leaf, keras.Layer) for leaf in keras.tree.flatten(init_kwargs)
    ):
        raise ValueError(
            "Two agents must not share a network: give a function that returns the "
            f"arguments. Received: init_kwargs={init_kwargs}"
        )
    subject = _Agent(agent_class, init_kwargs, environment)
    subject.steps, subject.learns, subject.refuses = steps, learns, refuses
    subject.evaluate_kwargs, subject.score = evaluate_kwargs or {}, score
    with tempfile.TemporaryDirectory() as folder:
        subject.path = Path(folder) / "agent"
        run_checks(subject, CHECKS, skip)


class _Agent(Subject):
    """An agent's class with an environment; three agents are shared by the checks."""

    def __init__(self, agent_class, init_kwargs, environment):
        super().__init__("agent", agent_class, init_kwargs)
        self.playable = is_environment(environment)
        self.environment = environment
        if self.playable:
            self.environment = WatchedEnvironment(environment)
        self.chance = 0

    def make(self, seed=0, environment=None):
        """A new agent: its networks are the same each time, other chances are not."""
        keras.utils.set_random_seed(0)
        kwargs = {key: common.renew(value) for key, value in self.kwargs().items()}
        self.turn()
        environment = self.environment if environment is None else environment
        return self.component_class(environment, **{**kwargs, "seed": seed})

    def turn(self):
        """Give the global generators a seed that they did not have before."""
        self.chance += 1
        keras.utils.set_random_seed(self.chance)

    def fit(self, agent, steps):
        self.turn()
        fit(agent, steps)

    def evaluate(self, agent, **kwargs):
        self.turn()
        return agent.evaluate(**{**self.evaluate_kwargs, **kwargs})

    @functools.cached_property
    def parts(self):
        """The steps before the file is written, and those after."""
        first = max(1, self.steps * 9 // 20)
        return first, self.steps - first

    @functools.cached_property
    def whole(self):
        """The agent that makes all steps in one fit, and its state after that."""
        agent = self.make()
        self.fit(agent, self.steps)
        return agent, state_of(agent)

    @functools.cached_property
    def parted(self):
        """The agent that makes them in two, with a file between, and its states."""
        agent = self.make()
        states = [state_of(agent)]
        self.fit(agent, self.parts[0])
        states.append(state_of(agent))
        agent.save(self.path)
        self.fit(agent, self.parts[1])
        return agent, [*states, state_of(agent)]

    @functools.cached_property
    def other(self):
        """The agent with another seed, and its state after all steps."""
        agent = self.make(seed=1)
        self.fit(agent, self.steps)
        return agent, state_of(agent)

    @functools.cached_property
    def observation(self):
        """What is seen first in the environment, or None in a game."""
        if not self.playable:
            return None
        made = self.environment.made()
        observation, _ = made.reset(seed=0)
        made.close()
        return observation

    def same(self, got, expected, what, remedy):
        """Fail unless two states agree in every bit."""
        if list(got) != list(expected):
            self.fail(f"{what}: {list(expected)}", f"{list(got)}", remedy)
        for name, array in expected.items():
            if not _equal(got[name], array):
                received = f"{common.brief(got[name])} for {common.brief(array)}"
                self.fail(f"{what}, in every bit", f"{name}: {received}", remedy)

    def refused(self, call, what, remedy):
        """Fail unless a call raises a ValueError; return its text."""
        try:
            call()
        except ValueError as error:
            return str(error)
        except Exception as error:
            received = f"{type(error).__name__}: {error}"
            self.fail(f"a ValueError for {what}", received, remedy)
        return self.fail(f"a ValueError for {what}", "no error", remedy)

    def needs_environment(self):
        """Fail where there is a game, which has neither rewards nor spaces."""
        if not self.playable:
            self.fail(
                "an environment of gymnasium",
                f"{type(self.environment).__name__}",
                f"leave the check out with skip=({self.check!r},).",
            )


def fit(agent, steps):
    """Train silently, whether or not ``fit`` has an argument for it.

    Args:
        agent: An agent.
        steps: Positive integer.
    """
    silent = "verbose" in inspect.signature(agent.fit).parameters
    agent.fit(steps, **({"verbose": 0} if silent else {}))


def state_of(agent):
    """What decides how an agent goes on, as far as it is public.

    Args:
        agent: An agent.

    Returns:
        Dict from name to array.
    """
    kinds = (int, np.integer, np.ndarray)
    state = {
        name: np.array(value)
        for name, value in vars(agent).items()
        if isinstance(value, kinds) and not name.startswith("_")
    }
    learner = getattr(agent, "learner", None)
    for owner in ("learner", "optimizer"):
        model = learner if owner == "learner" else getattr(learner, owner, None)
        for number, variable in enumerate(getattr(model, "variables", ())):
            state[f"{owner}, variable {number}"] = to_numpy(variable)
    kept = agent.arrays() if callable(getattr(agent, "arrays", None)) else {}
    return {**state, **{f"arrays, {n}": np.array(a) for n, a in kept.items()}}


def drawn(agent, observation):
    """Actions that are drawn, of an agent whose ``predict`` draws any.

    Args:
        agent: An agent.
        observation: An observation, or None.

    Returns:
        List of arrays.
    """
    parameters = inspect.signature(agent.predict).parameters
    if observation is None or "deterministic" not in parameters:
        return []
    actions = [agent.predict(observation, deterministic=False) for _ in range(8)]
    return [np.array(leaf) for leaf in leaves(actions)]


def resumed(agent_class, path, environment, steps, evaluate_kwargs):
    """In the new process: what an agent becomes and how it is evaluated.

    Args:
        agent_class: The agent's class.
        path: Path of its file.
        environment: As ``load`` takes it.
        steps: Positive integer, how many to go on for.
        evaluate_kwargs: Dictionary of arguments of ``evaluate``.

    Returns:
        What :func:`state_of` returns, and what ``evaluate`` does.
    """
    agent = agent_class.load(path, environment)
    fit(agent, steps)
    return state_of(agent), agent.evaluate(**evaluate_kwargs)


def _equal(a, b):
    same = a.shape == b.shape and a.dtype == b.dtype
    return same and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _weights(state):
    """Of a state, what is learned."""
    learned = {n: a for n, a in state.items() if n.startswith("learner, ")}
    own = {n: a for n, a in state.items() if ", " not in n}
    return {n: a for n, a in (learned or own).items() if a.dtype.kind == "f"}


def _seed(subject):
    """The seed decides all that is random."""
    remedy = (
        "draw from generators of the agent's own that follow from its seed, and give "
        "layers and initializers seeds that do."
    )
    _, whole = subject.whole
    _, states = subject.parted
    first, second = subject.parts
    subject.same(
        states[-1],
        whole,
        f"fit({first + second}) is fit({first}) and fit({second}) of an agent with the "
        "same seed",
        remedy,
    )
    _, other = subject.other
    if all(_equal(other[name], array) for name, array in whole.items()):
        subject.fail("another agent with another seed", "the same agent", remedy)


def _spaces(subject):
    """Environments that do not fit are refused, when made and when loaded."""
    subject.needs_environment()
    remedy = "compare the spaces with those that the policy is made for."
    others = [WatchedEnvironment(environment) for environment in subject.refuses]
    for environment in (*subject.environment.of_text(), *others):
        subject.refused(
            lambda e=environment: subject.make(environment=e),
            f"the constructor with {_spelled(environment)}",
            remedy,
        )
    path = subject.path.with_name("unused")
    subject.make().save(path)
    for environment in subject.environment.larger():
        subject.refused(
            lambda e=environment: subject.component_class.load(path, e),
            f"load() with {_spelled(environment)}",
            remedy,
        )


def _spelled(watched):
    if not watched.spaces:
        return f"environment={watched.environment!r}"
    return ", ".join(f"{name}={space}" for name, space in watched.spaces.items())


def _evaluate(subject):
    """To evaluate and to predict leaves the agent as it is, and as it goes on."""
    remedy = (
        "evaluate in environments and with generators of its own, and without training."
    )
    agent, _ = subject.parted
    before = state_of(agent)
    draws = "deterministic" in inspect.signature(agent.evaluate).parameters
    for kwargs in ({"deterministic": False}, {}) if draws else ({},):
        first, second = (subject.evaluate(agent, **kwargs) for _ in range(2))
        if first != second:
            subject.fail(f"the second evaluation says {first}", f"{second}", remedy)
    subject.scored = first
    if subject.observation is not None:
        agent.predict(subject.observation)
    drawn(agent, subject.observation)
    subject.same(state_of(agent), before, "the agent after evaluate() is", remedy)
    undisturbed, _ = subject.whole
    for each in (agent, undisturbed):
        subject.fit(each, subject.parts[0])
    subject.same(
        state_of(agent),
        state_of(undisturbed),
        "training after evaluate() and predict() is that without",
        remedy,
    )


def _resume(subject):
    """What goes on from a file in a new process ends as what never stopped."""
    _, states = subject.parted
    names = (subject.component_class.__module__, subject.component_class.__qualname__)
    if "__main__" in names or "<locals>" in names[1]:
        subject.fail(
            "a class that another process can import",
            ".".join(names),
            "define it in a module, or leave the check out with skip=('resume',).",
        )
    try:
        end, score = call_in_new_process(
            resumed,
            subject.component_class,
            subject.path,
            subject.environment,
            subject.parts[1],
            subject.evaluate_kwargs,
        )
    except Exception as error:
        subject.fail(
            "load(), fit() and evaluate() in a new process",
            f"{type(error).__name__}: {error}",
            "let load need the file and what can be imported only, the function that "
            "makes the environment included.",
        )
    remedy = "save all that is not made anew by the constructor: counters, generators, "
    remedy += "the optimizer, memories and running statistics."
    what = f"fit({subject.parts[1]}) after load() in a new process"
    subject.same(end, states[-1], f"{what} is that of the agent itself", remedy)
    if score != getattr(subject, "scored", score):
        subject.fail(f"evaluate() says {subject.scored}", f"{score}", remedy)
    path = subject.path.with_name("unused")
    agent = subject.make()
    drawn(agent, subject.observation)
    agent.save(path)
    loaded = subject.component_class.load(path, subject.environment)
    first, second = (drawn(each, subject.observation) for each in (agent, loaded))
    if not all(_equal(a, b) for a, b in zip(first, second, strict=True)):
        subject.fail(
            f"predict draws after load() what the agent draws, {first}",
            f"{second}",
            remedy,
        )


def _finite(subject):
    """NaN from the environment is an error, and does no harm."""
    subject.needs_environment()
    agent, _ = subject.other
    for fault in ("reward", "observation"):
        if fault == "observation" and np.asarray(subject.observation).dtype.kind != "f":
            continue
        subject.environment.spoil(fault)
        try:
            message = subject.refused(
                lambda: subject.fit(agent, subject.steps),
                f"NaN as {fault}",
                "check what the environment gives before anything is learned from it.",
            )
        finally:
            subject.environment.spoil(None)
        if "nan" not in message.lower():
            subject.fail(
                f"an error that says that the {fault} is NaN",
                message,
                'end the message in f"Received: {name}={value}".',
            )
    subject.fit(agent, subject.steps)
    for name, array in _weights(state_of(agent)).items():
        if not np.isfinite(array).all():
            subject.fail(
                "finite weights after NaN was refused",
                f"{name}: {common.brief(array)}",
                "check what the environment gives before anything is learned from it.",
            )


def _learns(subject):
    """Training changes the weights, and for the better."""
    _, states = subject.parted
    for steps, before, after in zip(subject.parts, states, states[1:], strict=False):
        old, new = _weights(before), _weights(after)
        if all(_equal(new[name], array) for name, array in old.items()):
            subject.fail(
                f"fit({steps}) changes the weights",
                "all of them stay",
                "give the check more steps, or see what fit does with its gradient.",
            )
    if subject.learns is None:
        return
    steps, at_least = subject.learns
    fresh = [subject.evaluate(subject.make(seed))[subject.score] for seed in (0, 1)]
    if min(fresh) >= at_least:
        subject.fail(
            f"a {subject.score} below {at_least} without training",
            f"{fresh}",
            "choose a harder environment or a higher bound.",
        )
    for seed, (agent, _) in enumerate((subject.whole, subject.other)):
        subject.fit(agent, steps)
        score = subject.evaluate(agent)[subject.score]
        if score < at_least:
            subject.fail(
                f"a {subject.score} of at least {at_least} after {steps} steps",
                f"{score}, with seed={seed}",
                "see the signs of the loss; if they are right, give it more steps.",
            )


CHECKS = {
    "seed": _seed,
    "spaces": _spaces,
    "evaluate": _evaluate,
    "resume": _resume,
    "finite": _finite,
    "learns": _learns,
}
