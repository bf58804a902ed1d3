"""Tests of docs/migrating and coming-from: names have rows, and rows are true."""

import ast
import importlib.util
import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import dlcompanion
from dlcompanion import probability, reinforcement
from dlcompanion.losses import NegativeLogLikelihood

pytestmark = pytest.mark.once

PAGE = Path(__file__).parents[1] / "docs/migrating/tfp_layers.rst"
COMING_FROM = PAGE.parents[1] / "paths/coming-from.rst"
HAS_TFP = keras.backend.backend() != "torch"

#: ``tfp.layers`` of 0.25: what it calls its allowed symbols, and what it imports
#: beside them (VariationalGaussianProcess) or keeps in a module (WeightNorm).
PUBLIC = """
AutoregressiveTransform BlockwiseInitializer CategoricalMixtureOfOneHotCategorical
Convolution1DFlipout Convolution1DReparameterization Convolution2DFlipout
Convolution2DReparameterization Convolution3DFlipout Convolution3DReparameterization
DenseFlipout DenseLocalReparameterization DenseReparameterization DenseVariational
DistributionLambda IndependentBernoulli IndependentLogistic IndependentNormal
IndependentPoisson KLDivergenceAddLoss KLDivergenceRegularizer MixtureLogistic
MixtureNormal MixtureSameFamily MultivariateNormalTriL OneHotCategorical VariableLayer
VariationalGaussianProcess default_loc_scale_fn default_mean_field_normal_fn
default_multivariate_normal_fn weight_norm.WeightNorm
""".split()


@keras.saving.register_keras_serializable(package="test_migrating")
def student_t(params):
    loc, rho = ops.unstack(params, axis=-1)
    return probability.tfd().StudentT(4.0, loc, ops.softplus(rho) + 1e-5)


def rows():
    """Name, expression and text of every row of the table."""
    pattern = r"^   \* - ``([\w.]+)``\n     - (?:``(.+)``|(none))\n     - (.+)$"
    found = re.findall(pattern, PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    table = [(name, code or none, text) for name, code, none, text in found]
    return [row for row in table if row[0] != "tfp.layers"]


def names():
    """What a reader of the page has imported."""
    scope = {"keras": keras, "student_t": student_t}
    scope |= {"mean": ops.zeros((3, 2)), "rho": ops.ones((3, 2))}
    for module in (
        probability,
        dlcompanion.losses,
        dlcompanion.generative,
        dlcompanion.uncertainty,
    ):
        scope |= {name: getattr(module, name) for name in module.__all__}
    return scope


def test_every_public_name_has_a_row_and_only_one():
    assert [name for name, _, _ in rows()] == PUBLIC


def test_the_list_is_that_of_the_installed_tfp():
    spec = importlib.util.find_spec("tensorflow_probability")
    if spec is None:
        assert not HAS_TFP
        return
    path = Path(spec.origin).parent / "python/layers/__init__.py"
    body = ast.parse(path.read_text(encoding="utf-8")).body
    allowed = next(
        ast.literal_eval(node.value)
        for node in body
        if isinstance(node, ast.Assign) and node.targets[0].id == "_allowed_symbols"
    )
    imported = {a.name for n in body if isinstance(n, ast.ImportFrom) for a in n.names}
    public = {n for n in PUBLIC if "." not in n}
    assert set(allowed) <= public
    assert {n for n in imported if n[0].isupper()} - {"JAX_MODE"} <= public


@pytest.mark.parametrize("name, code, text", rows(), ids=PUBLIC)
def test_a_row_says_what_runs(name, code, text):
    assert len(text) > 10
    if code == "none":
        assert "not here yet" in text.lower()
        return
    made = eval(code, names())
    if not isinstance(made, keras.layers.Layer):
        assert made is not None
        return
    kind = type(made).__name__
    if "Posterior" in kind:
        made.build((3, 4))
        assert made.weights
        return
    if kind == "KLDivergencePenalty":
        shape = (2, made.spec.params_size)
    elif kind.startswith("Conv"):
        shape = (2, *[5] * int(kind[4]), 2)
    else:
        shape = (2, getattr(made, "event_size", 3))
    needs_tfp = kind == "KLDivergencePenalty" or "SpecPosterior" in code
    if needs_tfp and not HAS_TFP:
        return
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    outputs = ops.convert_to_numpy(made(x))
    assert np.isfinite(outputs).all() and len(outputs) == 2
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(made)
    )
    assert type(copy) is type(made)
    if kind == "DistributionHead" and HAS_TFP:
        # what was a distribution there is one after one call, and has a loss
        drawn = made.distribution(outputs).mean()
        assert tuple(drawn.shape) == (2, *made.spec.event_shape)
        assert NegativeLogLikelihood(made.spec).spec is made.spec


def test_keras_says_what_the_page_quotes():
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    with pytest.raises(ValueError) as error:
        keras.Sequential([object()])
    assert f"ValueError: {str(error.value).split('. ')[0]}" in text
    if keras.backend.backend() != "tensorflow":
        return  # a distribution of JAX is a tree of arrays, and gets further

    class Normal(keras.layers.Layer):
        def call(self, inputs):
            return probability.tfd().Normal(inputs, 1.0)

    with pytest.raises(ValueError, match="must be tensors") as error:
        keras.Sequential([keras.Input((1,)), Normal()])
    assert f"ValueError: {str(error.value).split('. ')[0]}" in text


#: Arguments of the agents of Stable-Baselines3 2 that have a counterpart here, and
#: ``n_envs`` of its ``make_vec_env``.
ALL = "env learning_rate gamma seed n_envs policy"
ON_POLICY = f"{ALL} n_steps gae_lambda ent_coef max_grad_norm"
OFF_POLICY = f"{ALL} buffer_size learning_starts batch_size train_freq gradient_steps"
THEIRS = {
    "A2C": ON_POLICY,
    "PPO": f"{ON_POLICY} batch_size n_epochs clip_range vf_coef",
    "DQN": f"{OFF_POLICY} max_grad_norm target_update_interval exploration_fraction "
    "exploration_final_eps",
    "SAC": f"{OFF_POLICY} ent_coef tau target_entropy",
}


def agent_arguments():
    """Argument there, argument here and agent, for every agent of every row."""
    table = COMING_FROM.read_text(encoding="utf-8").split("The arguments of the agents")
    row = r"^   \* - ``(\w+)``\n     - ``(\w+)``\n     - ([\w, ]+)\n     - "
    found = re.findall(row, table[1], re.MULTILINE)
    assert len(found) == table[1].count("   * - ") - 1  # the first one is the header
    return [(a, b, agent) for a, b, agents in found for agent in agents.split(", ")]


def unknown_arguments(rows):
    """The rows whose argument here is none of the agent's."""
    return [
        (theirs, ours, agent)
        for theirs, ours, agent in rows
        if ours not in inspect.signature(getattr(reinforcement, agent)).parameters
    ]


def test_arguments_for_those_who_come_from_stable_baselines3_exist():
    assert unknown_arguments(agent_arguments()) == []
    wrong = [("gamma", "discount", "PPO"), ("gae_lambda", "trace", "PPO")]
    assert unknown_arguments(wrong) == wrong[1:]


def test_arguments_of_stable_baselines3_have_a_row_and_only_one():
    for agent, names_there in THEIRS.items():
        found = [theirs for theirs, _, name in agent_arguments() if name == agent]
        assert sorted(found) == sorted(names_there.split())
    assert {agent for _, _, agent in agent_arguments()} == set(THEIRS)
