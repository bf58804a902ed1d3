"""Tests of what the API pages show of a class: docs/_ext/api_methods.py."""

import inspect
from pathlib import Path

import keras
import pytest

import dlcompanion
from dlcompanion import training
from dlcompanion.reinforcement.agents.base_agent import BaseAgent

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = {
    getattr(chapter, name)
    for chapter in [training, *(getattr(dlcompanion, n) for n in dlcompanion.__all__)]
    for name in chapter.__all__
    if inspect.isclass(getattr(chapter, name))
}
KINDS = {"agent": BaseAgent, "model": keras.Model}
CASES = sorted(
    ((c, kind) for c in PUBLIC for kind, base in KINDS.items() if issubclass(c, base)),
    key=lambda case: case[0].__name__,
)

pytestmark = pytest.mark.once


@pytest.fixture
def api_methods(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import api_methods

    return api_methods


@pytest.mark.parametrize("value, kind", CASES, ids=lambda c: getattr(c, "__name__", c))
def test_all_that_users_call_is_named_once(api_methods, value, kind):
    full, linked = api_methods.methods(value, kind, PUBLIC)
    names = full + [name for _, name in linked]
    assert len(names) == len(set(names))
    called = {"fit", "predict", "evaluate", "save", "load", "learn", "restart"}
    assert {name for name in called if hasattr(value, name)} <= set(names)
    assert not {"call", "build", "attach", "arrays", "parts_of"} & set(names)
    assert all(name in vars(owner) for owner, name in linked)


def test_the_page_of_an_agent_shows_what_it_inherits(api_methods):
    full, linked = api_methods.methods(dlcompanion.reinforcement.PPO, "agent", PUBLIC)
    used = "fit learn restart predict evaluate save load get_state set_state"
    assert full == used.split()
    assert linked == []


def test_what_a_public_base_class_shows_is_linked(api_methods):
    model = dlcompanion.generative.ConditionalVAE
    full, linked = api_methods.methods(model, "model", PUBLIC)
    assert full == ["dense", "decode", "sample", "reconstruct"]
    assert (dlcompanion.generative.VAE, "encode") in linked
    assert any(name == "fit" for _, name in linked)


def test_a_layer_that_is_fitted_has_methods_and_another_has_none(api_methods):
    scaling = dlcompanion.uncertainty.TemperatureScaling
    assert api_methods.has_methods(scaling, "layer")
    assert not api_methods.has_methods(dlcompanion.regularization.DropBlock2D, "layer")


def test_a_signature_is_short(api_methods):
    call = api_methods.call_of(dlcompanion.reinforcement.PPO, "fit")
    assert call == "fit(steps, callbacks=None, verbose='auto')"
    assert api_methods.call_of(keras.Model, "fit").endswith(", ...)")
    assert api_methods.call_of(dlcompanion.reinforcement.DQN, "epsilon") == "epsilon"


def test_a_heading_is_the_first_sentence_of_the_module(api_methods):
    assert api_methods.heading(api_methods).startswith("Which methods the API page")
