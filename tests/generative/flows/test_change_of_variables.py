"""Tests of dlcompanion.generative.flows.change_of_variables, on every backend."""

import math

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from helpers.models import scramble
from helpers.two_devices import on_two_devices
from keras import ops
from scipy import stats

from dlcompanion.backend import replicas
from dlcompanion.generative import AffineCoupling, NormalizingFlow, RealNVP
from dlcompanion.generative.flows.coupling import DiagonalScaling
from dlcompanion.testing import check_flow, check_model
from dlcompanion.training import fit_in_memory

SMALL = {"event_size": 2, "couplings": 2, "hidden_units": (8,), "seed": 3}


def points(rows=16, size=2, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, size)).astype("float32")


def network(units, hidden=8):
    dense = keras.layers.Dense
    return keras.Sequential([dense(hidden, "tanh"), dense(units)])


def arguments(context_size=0):
    """A flow of two couplings and a scaling."""
    transforms = [
        AffineCoupling(network(2)), AffineCoupling(network(2), swap=True),
        DiagonalScaling(),
    ]  # fmt: skip
    return {
        "event_shape": 2,
        "transforms": transforms,
        "context_size": context_size,
        "seed": 3,
    }


def scrambled(context_size=0, scale=0.5):
    """A flow far from the identity."""
    flow = NormalizingFlow(**arguments(context_size))
    shape = (None, 2)
    flow.build([shape, (None, context_size)] if context_size else shape)
    return scramble(flow, scale)


def test_contract():
    check_model(
        NormalizingFlow, arguments, points(), compile_kwargs={"optimizer": "adam"},
        output_shape=(16,), export=True,
    )  # fmt: skip


def test_contract_with_context():
    check_model(
        NormalizingFlow, lambda: arguments(3), (points(), points(16, 3, seed=1)),
        compile_kwargs={"optimizer": "adam"}, output_shape=(16,),
    )  # fmt: skip


# -- laws ---------------------------------------------------------------------------


@pytest.mark.parametrize("context_size", [0, 3])
def test_inverse_log_det_and_density(context_size):
    context = points(6, context_size, seed=1) if context_size else None
    check_flow(
        NormalizingFlow, lambda: arguments(context_size), points(6), context=context,
        scale=0.5,
    )  # fmt: skip


def test_the_density_has_three_names_and_so_has_a_sample():
    flow, x = scrambled(), points(6)
    z, log_det = flow.to_noise(x)
    expected = stats.norm.logpdf(numpy(z)).sum(axis=1) + numpy(log_det)
    for found in (flow.log_prob(x), flow(x), flow.predict_on_batch(x)):
        np.testing.assert_allclose(numpy(found), expected, atol=1e-5)
    drawn, log_prob = flow.sample_and_log_prob(6, seed=4)
    np.testing.assert_array_equal(numpy(drawn), numpy(flow.sample(6, seed=4)))
    np.testing.assert_allclose(numpy(log_prob), numpy(flow(drawn)), atol=1e-4)


@pytest.mark.parametrize("context_size", [0, 2])
@pytest.mark.tfp
def test_as_a_distribution_of_tfp(context_size):
    flow, x = scrambled(context_size), points(6)
    context = points(6, context_size, seed=1) if context_size else None
    found = flow.distribution(context).log_prob(x)
    np.testing.assert_allclose(
        numpy(found), numpy(flow.log_prob(x, context)), atol=1e-5
    )
    z, log_det = flow.to_noise(x, context)
    bijector = flow.bijector(context)
    np.testing.assert_allclose(numpy(bijector.inverse(x)), numpy(z), atol=1e-5)
    np.testing.assert_allclose(
        numpy(bijector.inverse_log_det_jacobian(x, 1)), numpy(log_det), atol=1e-5
    )
    np.testing.assert_allclose(
        numpy(flow.bijector(context).forward(numpy(z))), x, atol=1e-5
    )


def test_without_tfp_there_is_no_bijector(backend):
    flow = NormalizingFlow(**arguments())
    if backend == "torch":
        for method in (flow.bijector, flow.distribution):
            with pytest.raises(ImportError, match=r"dlcompanion\[tensorflow"):
                method()
    else:
        assert flow.distribution().event_shape == (2,)


@keras.saving.register_keras_serializable(package="test_change_of_variables")
class Flatten(keras.layers.Layer):
    """(2, 3) to (6,), doubled."""

    def build(self, inputs_shape):
        self.size = math.prod(inputs_shape[1:])

    def call(self, x, inverse=False):
        shape = (-1, 2, 3) if inverse else (-1, 6)
        change = self.size * math.log(2.0) * (-1 if inverse else 1)
        log_det = ops.zeros_like(ops.reshape(x, (-1, 6))[:, 0]) + change
        return ops.reshape(x * (0.5 if inverse else 2.0), shape), log_det

    def compute_output_shape(self, inputs_shape):
        return (inputs_shape[0], 6), (inputs_shape[0],)


def test_events_of_another_shape():
    arguments = {"event_shape": (2, 3), "transforms": [Flatten(), DiagonalScaling()]}
    x = points(4, 6).reshape(4, 2, 3)
    check_flow(NormalizingFlow, arguments, x)
    flow = NormalizingFlow(**arguments, seed=0)
    expected = stats.norm(scale=0.5).logpdf(x).sum(axis=(1, 2))
    np.testing.assert_allclose(numpy(flow.log_prob(x)), expected, rtol=1e-5)
    sample = numpy(flow.sample(500))
    assert sample.shape == (500, 2, 3) and abs(sample.std() - 0.5) < 0.05
    flow.compile("sgd")
    np.testing.assert_allclose(flow.evaluate(x, verbose=0), -expected.mean(), rtol=1e-5)


def grid(half=10, size=161):
    axis = np.linspace(-half, half, size, dtype="float32")
    area = (axis[1] - axis[0]) ** 2
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2), area


@pytest.mark.once
def test_a_conditional_density_integrates_to_one_for_every_context():
    flow, (x, area) = scrambled(context_size=2), grid()
    for context in ([1.0, 0.0], [0.0, 1.0], [-2.0, 0.5]):
        log_prob = numpy(flow.log_prob(x, np.array(context)))
        assert abs(np.exp(log_prob.astype("float64")).sum() * area - 1) < 0.02


def test_under_one_context_it_is_a_flow_with_other_biases():
    conditional, plain = scrambled(context_size=2), scrambled()
    context = np.array([0.7, -1.2], "float32")
    pairs = zip(conditional.transforms[:2], plain.transforms[:2], strict=True)
    for with_context, without in pairs:
        kernel, bias, *rest = with_context.conditioner.get_weights()
        without.conditioner.set_weights(
            [kernel[:1], bias + context @ kernel[1:], *rest]
        )
        without.bound.assign(with_context.bound)
    plain.transforms[2].set_weights(conditional.transforms[2].get_weights())
    x = points(5)
    expected = numpy(plain.log_prob(x))
    rows = np.tile(context, (5, 1))
    for given in (context, rows):
        found = numpy(conditional.log_prob(x, given))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        sample = numpy(conditional.sample(5, given, seed=1))
        np.testing.assert_allclose(sample, numpy(plain.sample(5, seed=1)), atol=1e-5)
    predicted = conditional.predict((x, rows), verbose=0)
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.once
def test_a_conditional_flow_learns_what_the_context_does():
    rng = np.random.default_rng(0)
    context = rng.integers(0, 2, size=(256, 1)).astype("float32")
    x = (rng.normal(size=(256, 2)) + 4 * context - 2).astype("float32")
    flow = RealNVP(2, couplings=2, hidden_units=(8,), context_size=1, seed=0)
    flow.compile(keras.optimizers.Adam(0.02))
    fit_in_memory(flow, (x, context), batch_size=64, epochs=40, verbose=0)
    means = [numpy(flow.sample(256, np.array([c]), seed=0)).mean(0) for c in (0, 1)]
    np.testing.assert_allclose(means, [[-2, -2], [2, 2]], atol=0.5)
    held_out = ((x[:32], context[:32]),)
    history = flow.fit((x, context), validation_data=held_out, verbose=0).history
    marginal = stats.multivariate_normal(x.mean(0), np.cov(x.T)).logpdf(x)
    assert history["val_loss"][0] < history["loss"][0] + 0.5 < -marginal.mean()


# -- a Keras model --------------------------------------------------------------------


def test_sample_weights_weigh():
    x, flow = points(4), scrambled()
    flow.compile("sgd")
    weights = np.array([1.0, 0.0, 2.0, 0.5], "float32")
    loss = flow.evaluate(x, sample_weight=weights, verbose=0)
    expected = -np.mean(weights * numpy(flow.log_prob(x)))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_seeds_and_exact_save(tmp_path):
    flow = scrambled()
    first = numpy(flow.sample(4))
    again = numpy(scrambled().sample(4))
    np.testing.assert_array_equal(first, again)
    flow.compile("adam")
    flow.fit(points(), verbose=0)
    flow.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    for _ in range(2):  # the sequence goes on where it stopped, and moves
        a, b = (numpy(f.sample(4)) for f in (flow, loaded))
        np.testing.assert_array_equal(a, b)
        assert not np.allclose(a, first)
        first = a
    fixed = [numpy(f.sample(4, seed=5)) for f in (flow, flow, loaded)]
    np.testing.assert_array_equal(fixed[0], fixed[1])
    np.testing.assert_array_equal(fixed[0], fixed[2])


def test_compiled_functions_see_later_training():
    flow, x = NormalizingFlow(**arguments()), points(64) + 3
    before = numpy(flow.log_prob(x)).mean()
    flow.compile(keras.optimizers.Adam(0.1))
    flow.fit(x, epochs=3, verbose=0)
    after = numpy(flow.log_prob(x)).mean()
    assert after > before + 1


def trained():
    keras.utils.set_random_seed(0)
    flow = NormalizingFlow(**arguments(3))
    flow.compile("adam")
    data = points(), points(16, 3, seed=1)
    loss = flow.fit(data, batch_size=8, epochs=2, shuffle=False, verbose=0)
    weights = np.concatenate([w.ravel() for w in flow.get_weights()])
    return loss.history["loss"], weights


def test_two_devices_train_the_same_flow_as_one(backend):
    if backend == "torch":  # there one process has one device
        assert replicas() == 1
        return
    for a, b in zip(trained(), on_two_devices(trained), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# -- bad input ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((4, 3), "float32"), "points of shape .*Received: shape="),
        (np.zeros(4, "float32"), "points of shape .*Received: shape="),
        (np.zeros((4, 2, 1), "float32"), "points of shape .*Received: shape="),
        (np.zeros((0, 2), "float32"), "at least one of them"),
        (np.zeros((4, 2), "int32"), "floating point data. Received: dtype=int32"),
        (np.array([[0, 1], [np.nan, 0]]), r"finite data. Received: 1 rows .* x\[1\]"),
    ],
)
def test_data_is_checked_at_the_door(x, message):
    flow = NormalizingFlow(**arguments())
    flow.compile("sgd")
    for method in (flow.fit, flow.evaluate, flow.predict):
        with pytest.raises(ValueError, match=message):
            method(x, verbose=0)
    if np.isfinite(x).all():
        with pytest.raises(ValueError, match=message):
            flow.log_prob(x)
    else:
        found = numpy(flow.log_prob(x))
        np.testing.assert_array_equal(np.isnan(found), [False, True])


@pytest.mark.parametrize(
    "method", [lambda f, x: f.log_prob(x[0], x[1]), lambda f, x: f.predict(x)]
)
def test_the_context_is_checked_at_the_door(method):
    flow, x = NormalizingFlow(**arguments(3)), points(4)
    for context in (points(4, 2), points(3, 3), points(4, 3)[:, :, None]):
        with pytest.raises(ValueError, match=r"context of shape \(4, 3\).*Received"):
            method(flow, (x, context))
    plain = NormalizingFlow(**arguments())
    with pytest.raises(ValueError, match="context_size=0"):
        method(plain, (x, x))


def test_a_pair_where_there_is_a_context():
    flow, x, context = NormalizingFlow(**arguments(3)), points(4), points(4, 3)
    flow.compile("sgd")
    with pytest.raises(ValueError, match=r"takes the pair \(x, context\)"):
        flow.fit(x, verbose=0)
    with pytest.raises(ValueError, match=r"validation_data is \(\(x, context\),\)"):
        flow.fit((x, context), validation_data=(x, context), verbose=0)
    with pytest.raises(ValueError, match=r"finite data.*context\[0\]"):
        flow.fit((x, np.full((4, 3), np.nan)), verbose=0)
    with pytest.raises(ValueError, match="Received: context of shape None"):
        flow.sample(4)


@pytest.mark.parametrize("bad", [0, (), (2, 0), 2.0])
def test_an_event_has_a_shape(bad):
    with pytest.raises(ValueError, match="event.*Received: event_shape="):
        NormalizingFlow(bad, [DiagonalScaling()])
    with pytest.raises(ValueError, match="at least one transform"):
        NormalizingFlow(2, [])


def test_targets_and_counts():
    flow = NormalizingFlow(**arguments())
    flow.compile("sgd")
    with pytest.raises(ValueError, match="without targets"):
        flow.fit(points(), points())
    with pytest.raises(ValueError, match="n must be an integer of at least 1"):
        flow.sample(0)
    with pytest.raises(ValueError, match="needs inputs of shape"):
        flow.build((None, 3))
