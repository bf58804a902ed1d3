"""The checks of check_agent, one function each."""

import inspect

import numpy as np

from dlcompanion.testing import common
from dlcompanion.testing.agent_states import drawn, equal, resumed, state_of
from dlcompanion.testing.new_process import call_in_new_process
from dlcompanion.testing.watched_environment import WatchedEnvironment


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
    if all(equal(other[name], array) for name, array in whole.items()):
        subject.fail("another agent with another seed", "the same agent", remedy)


def _spaces(subject):
    """Environments that do not fit are refused, when made and when loaded."""
    subject.needs_environment()
    remedy = "compare the spaces with those that the policy is made for."
    others = [WatchedEnvironment(environment) for environment in subject.refuses]
    for environment in (*subject.environment.of_text(), *others):
        what = f"the constructor with {_spelled(environment)}"
        message = subject.refused(
            lambda e=environment: subject.make(environment=e), what, remedy
        )
        if "space" not in message:
            subject.fail(
                f"a ValueError that names the space for {what}", message, remedy
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
    if not all(equal(a, b) for a, b in zip(first, second, strict=True)):
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
        if all(equal(new[name], array) for name, array in old.items()):
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


def _restart(subject):
    """An agent that begins anew with a seed is a new agent with that seed."""
    agent, _ = subject.other
    if not hasattr(agent, "restart"):
        return
    _, whole = subject.whole
    agent.restart(0)
    subject.fit(agent, subject.steps)
    subject.same(
        state_of(agent),
        whole,
        f"restart(0) and fit({subject.steps}) are those of a new agent with seed=0",
        "make anew all that the constructor makes: weights, the optimizer, counters, "
        "generators, memories and running statistics.",
    )


CHECKS = {
    "seed": _seed,
    "spaces": _spaces,
    "evaluate": _evaluate,
    "resume": _resume,
    "finite": _finite,
    "learns": _learns,
    "restart": _restart,
}
