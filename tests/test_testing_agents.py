"""Tests of dlcompanion.testing.check_agent: planted faults are named."""

import os

import keras
import numpy as np
import planted_agents as agents
import pytest
from planted_agents import Healthy, Sign

from dlcompanion.testing import ConformanceError, check_agent
from dlcompanion.testing.new_process import call_in_new_process
from dlcompanion.testing.watched_environment import WatchedEnvironment

SETTINGS = {"steps": 40, "learns": (160, 0.4)}


@pytest.mark.once
@pytest.mark.parametrize(
    "agent_class, check, text",
    [
        (agents.DrawsFromGlobalGenerator, "seed", "of an agent with the same seed"),
        (agents.TakesWeightsFromGlobalGenerator, "seed", "agent with the same seed"),
        (agents.StartsAnewInEachFit, "seed", "is fit(18) and fit(22) of an agent"),
        (agents.IgnoresSeed, "seed", "another agent with another seed"),
        (agents.TakesAnySpace, "spaces", "observation_space=Text"),
        (agents.RefusesWithAnotherError, "spaces", "Received: AssertionError"),
        (agents.RefusesForAnotherReason, "spaces", "Received: A matrix does not fit."),
        (agents.LoadsIntoAnySpace, "spaces", "load() with observation_space=Box"),
        (agents.EvaluationTrains, "evaluate", "the agent after evaluate() is"),
        (agents.EvaluationDrawsForTraining, "evaluate", "training after evaluate()"),
        (agents.EvaluationHasNoSeed, "evaluate", "the second evaluation"),
        (agents.PredictionTrains, "evaluate", "training after evaluate()"),
        (agents.ForgetsVelocity, "resume", "after load() in a new process"),
        (agents.ForgetsCounter, "resume", "Received: steps: [22] for [40]"),
        (agents.ForgetsDraws, "resume", "after load() in a new process"),
        (agents.ForgetsArguments, "resume", "after load() in a new process"),
        (agents.ForgetsPredictions, "resume", "predict draws after load()"),
        (agents.RemembersInItsProcess, "resume", "KeyError"),
        (agents.LearnsNaN, "finite", "NaN as reward"),
        (agents.LearnsNaNObservations, "finite", "NaN as observation"),
        (agents.SwallowsNaN, "finite", "Received: no error"),
        (agents.RaisesAnotherError, "finite", "Received: AssertionError"),
        (agents.RaisesWithoutReason, "finite", "Received: Something went wrong."),
        (agents.LearnsBeforeItRaises, "finite", "finite weights"),
        (agents.IsBrokenForGood, "finite", "Received: ValueError"),
        (agents.NeverLearns, "learns", "fit(18) changes the weights"),
        (agents.LearnsInTheBeginning, "learns", "fit(22) changes the weights"),
        (agents.LearnsTheOpposite, "learns", "at least 0.4 after 160 steps"),
        (agents.RestartForgetsMomentum, "restart", "of a new agent with seed=0"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_agent_fault_is_named(agent_class, check, text):
    with pytest.raises(ConformanceError) as caught:
        check_agent(agent_class, {"rate": 0.1}, Sign, **SETTINGS)
    assert caught.value.check == check
    message = str(caught.value)
    assert message.startswith(f"agent {agent_class.__name__} fails the check {check!r}")
    assert text in message


def test_healthy_agent_passes():
    check_agent(Healthy, {"rate": 0.1}, Sign, **SETTINGS)


# --- agents with a learner ------------------------------------------------------


def small():
    dense = keras.layers.Dense(2, kernel_initializer="zeros")
    return {
        "network": keras.Sequential([keras.Input((2,)), dense]),
        "optimizer": "adam",
        "num_envs": 2,
        "rollout_length": 4,
        "gradient_steps": 1,
        "horizon": 8,
        "batch_size": 8,
        "learning_starts": 8,
    }


def test_a_forgotten_optimizer_is_named():
    with pytest.raises(ConformanceError, match="Received: learner, variable") as caught:
        check_agent(agents.ForgetsOptimizer, small, Sign, steps=60)
    assert caught.value.check == "resume"


# --- what the check itself refuses ----------------------------------------------


def test_what_another_process_cannot_import_is_refused():
    class Local(Healthy):
        pass

    with pytest.raises(ConformanceError, match="define it in a module") as caught:
        check_agent(Local, {}, Sign)
    assert caught.value.check == "resume"
    with pytest.raises(ConformanceError, match="what can be imported only") as caught:
        check_agent(Healthy, {}, lambda: Sign())
    assert caught.value.check == "resume"
    check_agent(Local, {}, lambda: Sign(), skip="resume")


def test_a_bound_that_everybody_reaches_is_refused():
    with pytest.raises(ConformanceError, match="without training") as caught:
        check_agent(Healthy, {}, Sign, learns=(10, -1.0))
    assert caught.value.check == "learns"


def test_too_few_steps_are_refused():
    with pytest.raises(ConformanceError, match="give the check more steps") as caught:
        check_agent(agents.LearnsLate, {}, Sign, steps=20, skip="resume")
    assert caught.value.check == "learns"
    check_agent(agents.LearnsLate, {}, Sign, steps=200, skip="resume")


def test_a_game_has_no_spaces_and_no_rewards():
    game = agents.Heads()
    for check in ("spaces", "finite"):
        with pytest.raises(
            ConformanceError, match="environment of gymnasium"
        ) as caught:
            check_agent(agents.Player, {}, game, skip={"spaces", "finite"} - {check})
        assert caught.value.check == check
    check_agent(agents.Player, {}, game, skip=("spaces", "finite"), learns=(50, 0.9))


def test_other_environments_are_refused():
    check_agent(Healthy, {}, Sign, refuses=["CartPole-v1"], skip="resume")
    with pytest.raises(ConformanceError, match="planted_agents.Sign") as caught:
        check_agent(Healthy, {}, Sign, refuses=[Sign])
    assert caught.value.check == "spaces"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"steps": 1}, "Received: steps=1"),
        ({"steps": 9.0}, "Received: steps=9.0"),
        ({"init_kwargs": {"nets": [keras.Sequential()]}}, "must not share a network"),
        ({"skip": "nan"}, "skip may name only these checks: seed, spaces"),
        ({"learns": 0.4}, "Received: learns=0.4"),
    ],
)
def test_bad_arguments_of_the_check_are_value_errors(arguments, message):
    arguments = {"init_kwargs": {}, **arguments}
    with pytest.raises(ValueError, match=message):
        check_agent(Healthy, environment=Sign, **arguments)


# --- its parts ------------------------------------------------------------------


def test_a_new_process_knows_nothing_of_this_one():
    first = call_in_new_process(os.getpid)
    assert first != os.getpid()
    assert call_in_new_process(os.getpid) == first  # it serves many calls
    with pytest.raises(ZeroDivisionError):
        call_in_new_process(divmod, 1, 0)
    with pytest.raises(RuntimeError, match="the new process ended"):
        call_in_new_process(os._exit, 3)
    assert call_in_new_process(os.getpid) != first


def test_a_watched_environment_is_the_environment_until_it_is_spoiled():
    make = WatchedEnvironment("CartPole-v1")
    ours, plain = make(), make.made()
    assert ours.get_wrapper_attr("_max_episode_steps") == 500
    for environment in (ours, plain):
        environment.reset(seed=3)
    for action in (0, 1, 1):
        for a, b in zip(ours.step(action), plain.step(action), strict=True):
            np.testing.assert_array_equal(a, b)
    make.spoil("observation")
    assert np.isfinite(ours.step(0)[0]).all() and np.isnan(ours.step(0)[0]).all()
    make.spoil(None)
    assert np.isfinite(ours.step(0)[0]).all()
