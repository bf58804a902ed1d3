"""check_agent: what an agent promises to those who train it."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from dlcompanion.testing.agent_checks import CHECKS
from dlcompanion.testing.agent_states import AgentSubject
from dlcompanion.testing.errors import run_checks


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
    - ``spaces``: the constructor raises a ValueError that names the space for
      observations or actions of text and for all that ``refuses`` lists, and ``load``
      raises one for an environment with an observation or action more.
    - ``evaluate``: ``evaluate`` says the same twice, and neither it nor ``predict``
      changes what training does next.
    - ``resume``: ``fit(k)``, ``save``, a new process, ``load`` and ``fit(n - k)`` are
      ``fit(n)``.
    - ``finite``: a reward or observation that is NaN makes ``fit`` raise a ValueError
      that says so; afterwards all weights are finite and training can go on.
    - ``learns``: both parts of ``fit(n)`` change the weights, and what ``learns`` says.
    - ``restart``: if the agent has a method ``restart(seed)``, it begins anew as a new
      agent with that seed would.

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
            and 55 percent, change the weights, and more than an episode has.
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
        >>> learns = (4_000, -13)
        >>> check_agent(
        ...     QLearning, {}, world, steps=2_000, learns=learns, skip=["resume"]
        ... )
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
    subject = AgentSubject(agent_class, init_kwargs, environment)
    subject.steps, subject.learns, subject.refuses = steps, learns, refuses
    subject.evaluate_kwargs, subject.score = evaluate_kwargs or {}, score
    with tempfile.TemporaryDirectory() as folder:
        subject.path = Path(folder) / "agent"
        run_checks(subject, CHECKS, skip)
