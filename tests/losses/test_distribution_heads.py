"""Tests of dlcompanion.losses.distribution_heads, and of specs in losses and models."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion import autodiff, backend, probability
from dlcompanion.installation import check_installation
from dlcompanion.losses import (
    DistributionHead,
    DistributionSample,
    KLDivergencePenalty,
    NegativeLogLikelihood,
)
from dlcompanion.probability import (
    BernoulliSpec,
    CategoricalMixtureOfOneHotCategoricalSpec,
    CategoricalSpec,
    FunctionSpec,
    LogisticSpec,
    MixtureLogisticSpec,
    MixtureNormalSpec,
    MixtureSameFamilySpec,
    MultivariateNormalTriLSpec,
    NormalSpec,
    OneHotCategoricalSpec,
    PoissonSpec,
    check_distribution,
)
from dlcompanion.testing import check_layer, check_loss
from dlcompanion.training import fit_in_memory

VECTORS = Path(__file__).parents[1] / "references" / "distribution_heads.npz"
SPECS = {
    "normal": NormalSpec((2, 2)),
    "logistic": LogisticSpec(3),
    "bernoulli": BernoulliSpec(3),
    "poisson": PoissonSpec(3),
    "one_hot": OneHotCategoricalSpec(4),
    "tril": MultivariateNormalTriLSpec(3),
    "mixture_normal": MixtureNormalSpec(3, 2),
    "mixture_logistic": MixtureLogisticSpec(3),
    "same_family": MixtureSameFamilySpec(2, LogisticSpec(2)),
    "one_hot_mixture": CategoricalMixtureOfOneHotCategoricalSpec(4, 3),
}


@keras.saving.register_keras_serializable(package="tests")
def student_t(params):
    loc, rho = ops.unstack(params, axis=-1)
    return probability.tfd().StudentT(4.0, loc, rho)


@keras.saving.register_keras_serializable(package="tests")
def by_covariance(params):
    tfd = probability.tfd()
    covariance = ops.reshape(params, (*ops.shape(params)[:-1], 2, 2))
    return tfd.MultivariateNormalFullCovariance(ops.zeros(2), covariance)


@keras.saving.register_keras_serializable(package="tests")
def by_probs(params):
    return probability.tfd().OneHotCategorical(probs=params)


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


# -- contract -----------------------------------------------------------------------


def test_contract_of_the_head():
    spec, (x,) = MixtureNormalSpec(2, (2, 1)), arrays((4, 3))
    check_layer(DistributionHead, {"spec": spec}, x, output_shape=(4, 10))


@pytest.mark.tfp
@pytest.mark.parametrize(
    "spec, shape",
    [(NormalSpec(2), (4, 2)), (BernoulliSpec(), (4,))],
    ids=["vectors", "scalars"],
)
def test_contract_of_the_loss(spec, shape):
    batch = shape[: len(shape) - len(spec.event_shape)]
    params, y = arrays((*batch, spec.params_size), shape)
    y = (y > 0).astype("float32") if spec.support == "zeros and ones" else y
    # TFP on JAX knows no symbolic sizes; training has none
    skip = ("symbolic",) if keras.backend.backend() == "jax" else ()
    check_loss(NegativeLogLikelihood, {"spec": spec}, y, params, skip=skip)


# -- reference ----------------------------------------------------------------------


@pytest.mark.tfp
@pytest.mark.parametrize("name", SPECS)
def test_likelihood_and_gradient_are_those_of_tfp_layers(name):
    stored = np.load(VECTORS)
    params, y = stored[f"in/{name}/params"], stored[f"in/{name}/y"]
    loss = NegativeLogLikelihood(SPECS[name], reduction="sum")
    both = autodiff.value_and_grad(lambda p: loss(ops.convert_to_tensor(y), p))
    value, gradient = backend.compile(both, jit=False)(params)
    # 1e-5 on each scale is all that differs
    np.testing.assert_allclose(float(value), -stored[f"out/{name}"].sum(), rtol=1e-3)
    np.testing.assert_allclose(
        ops.convert_to_numpy(gradient), -stored[f"g/{name}"], rtol=1e-3, atol=2e-3
    )


@pytest.mark.tfp
def test_a_kernel_trained_with_tfp_layers_can_be_carried_over():
    stored, spec = np.load(VECTORS), SPECS["mixture_normal"]
    params, y = stored["in/mixture_normal/params"], stored["in/mixture_normal/y"]
    head = DistributionHead(spec)
    head.build((None, 6))
    head.dense.set_weights([params, np.zeros(15)])  # the identity gives these rows
    found = head.distribution(head(np.eye(6, dtype="float32"))).log_prob(y)
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), stored["out/mixture_normal"], rtol=1e-4
    )


# -- laws ---------------------------------------------------------------------------


@pytest.mark.tfp
def test_one_component_is_no_mixture():
    params, y = arrays((5, 4), (5, 2))
    logits = np.full((5, 1), 3.0, "float32")
    one = MixtureNormalSpec(1, 2).log_prob(np.hstack([logits, params]), y)
    np.testing.assert_allclose(
        ops.convert_to_numpy(one),
        ops.convert_to_numpy(NormalSpec(2).log_prob(params, y)),
        rtol=1e-5,
    )


@pytest.mark.tfp
def test_fit_finds_the_moments_and_resumes_exactly(tmp_path):
    """A head without inputs that say anything learns mean and spread of the targets."""
    rng = np.random.default_rng(0)
    x, y = np.ones((256, 1), "float32"), rng.normal(3.0, 0.5, 256).astype("float32")
    spec = NormalSpec()

    def made():
        head = DistributionHead(spec, kernel_initializer="zeros")  # any seed will do
        model = keras.Sequential([keras.Input((1,)), head])
        model.compile(keras.optimizers.Adam(0.05), NegativeLogLikelihood(spec))
        return model

    model = made()
    fit_in_memory(model, x, y, batch_size=256, epochs=400, verbose=0)
    found = spec(model.predict(x[:1], verbose=0))
    np.testing.assert_allclose(ops.convert_to_numpy(found.mean()), y.mean(), rtol=1e-3)
    np.testing.assert_allclose(ops.convert_to_numpy(found.stddev()), y.std(), rtol=1e-2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].spec.get_config() == spec.get_config()
    for one in (model, loaded):
        one.fit(x, y, epochs=2, batch_size=64, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(
        model.evaluate(x, y, verbose=0),
        -np.mean(ops.convert_to_numpy(spec(model.predict(x, verbose=0)).log_prob(y))),
        rtol=1e-5,
    )


@pytest.mark.tfp
def test_a_frozen_head_stays():
    x, y = arrays((8, 2), (8,))
    head = DistributionHead(NormalSpec())
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), head])
    head.trainable = False
    model.compile("sgd", NegativeLogLikelihood(head.spec))
    before, body = head.get_weights(), model.layers[0].get_weights()
    model.fit(x, y, verbose=0)
    for a, b in zip(before, head.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(body[0], model.layers[0].get_weights()[0])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModel is TensorFlow's"
)
def test_export_serves_parameters(tmp_path):
    import tensorflow as tf

    (x,) = arrays((3, 2))
    model = keras.Sequential([keras.Input((2,)), DistributionHead(NormalSpec(2))])
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(x), model.predict(x, verbose=0), rtol=1e-5)


def test_half_precision_does_not_reach_the_parameters():
    head = DistributionHead(NormalSpec(), dtype="mixed_bfloat16")
    params = head(ops.cast(np.ones((2, 3)), "bfloat16"))
    assert keras.backend.standardize_dtype(params.dtype) == "float32"
    assert head.dense.compute_dtype == "float32"


@pytest.mark.tfp
def test_a_function_is_a_spec(tmp_path):
    spec, (params, y) = FunctionSpec(student_t, 2), arrays((4, 2), (4,))
    params = np.abs(params)
    from scipy import stats

    expected = stats.t(4.0, params[:, 0], params[:, 1]).logpdf(y)
    model = keras.Sequential([keras.Input((2,)), DistributionHead(spec)])
    model.compile("sgd", NegativeLogLikelihood(spec))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").loss
    found = loaded.call(ops.convert_to_tensor(y), ops.convert_to_tensor(params))
    np.testing.assert_allclose(ops.convert_to_numpy(found), -expected, rtol=1e-4)


# -- bad input ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DistributionHead, NegativeLogLikelihood])
def test_a_spec_is_needed(kind):
    with pytest.raises(ValueError, match="must be a spec .* Received: spec='normal'"):
        kind("normal")


def test_a_lambda_cannot_be_saved():
    for function in (lambda p: p, np.exp):
        with pytest.raises(ValueError, match="must be registered.* Received: function"):
            FunctionSpec(function, 1)


@pytest.mark.parametrize(
    "spec, shape",
    [
        (NormalSpec(), (4, 1)),  # would make 4 x 4 densities
        (NormalSpec(1), (4,)),
        (NormalSpec(2), (4, 1)),
        (NormalSpec(2), (1, 2)),
        (CategoricalSpec(3), (4, 3)),
        (OneHotCategoricalSpec(3), (4,)),
    ],
)
def test_shapes_that_would_be_broadcast_are_refused(spec, shape):
    params, y = np.zeros((4, spec.params_size), "float32"), np.zeros(shape)
    with pytest.raises(ValueError, match=r"nothing is broadcast. Received: y.shape="):
        NegativeLogLikelihood(spec)(y, params)
    if keras.backend.backend() != "torch":
        model = keras.Sequential([keras.Input((2,)), DistributionHead(spec)])
        model.compile("sgd", NegativeLogLikelihood(spec))
        with pytest.raises(ValueError):
            model.fit(np.zeros((4, 2)), y, batch_size=4, verbose=0)


OUTSIDE = [
    (BernoulliSpec(), [0.5, 0.0], "zeros and ones"),
    (PoissonSpec(), [1.0, -1.0], "counts"),
    (PoissonSpec(), [1.0, 1.5], "counts"),
    (CategoricalSpec(3), [3, 0], "integers from 0 to 2"),
    (OneHotCategoricalSpec(2), [[1.0, 1.0], [1.0, 0.0]], "one-hot"),
    (MixtureSameFamilySpec(2, PoissonSpec()), [-1.0, 0.0], "counts"),
    (NormalSpec(), [0.0, np.nan], "finite numbers"),
    (NormalSpec(), [0.0, np.inf], "finite numbers"),
]


@pytest.mark.parametrize("spec, y, rule", OUTSIDE)
def test_values_outside_the_support_are_refused(spec, y, rule):
    params = np.zeros((2, spec.params_size), "float32")
    with pytest.raises(ValueError, match=f"distribution of {rule}.* Received: 1 other"):
        NegativeLogLikelihood(spec)(np.array(y), params)


@pytest.mark.tfp
@pytest.mark.parametrize("spec, y, rule", OUTSIDE[:4])
def test_in_a_step_they_make_loss_and_gradient_nan(spec, y, rule):
    y = ops.convert_to_tensor(np.array(y, "float32"))
    loss = NegativeLogLikelihood(spec, reduction="sum")
    params = np.zeros((2, spec.params_size), "float32")
    value, gradient = autodiff.value_and_grad(lambda p: loss(y, p))(params)
    assert np.isnan(float(value))
    assert np.isnan(ops.convert_to_numpy(gradient)).any()


@pytest.mark.tfp
@pytest.mark.parametrize(
    "function, params, message",
    [
        (student_t, [[0.0, -1.0]], "scale of StudentT must be positive"),
        (student_t, [[0.0, np.nan]], "scale of StudentT must be positive"),
        (by_covariance, [[1.0, 2.0, 2.0, 1.0]], "positive definite"),
        (by_probs, [[0.5, 0.6]], "sum to one"),
        (by_probs, [[1.5, -0.5]], "between 0 and 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*MultivariateNormalFullCovariance:Warning")
def test_impossible_distributions_are_refused(function, params, message):
    params = np.array(params, "float32")
    with pytest.raises(ValueError, match=f"{message}.*Received: "):
        FunctionSpec(function, params.shape[1], event_shape=2)(params)


@pytest.mark.tfp
def test_possible_ones_are_not():
    tfd = probability.tfd()
    check_distribution(tfd.Bernoulli(probs=[0.2, 0.2]))
    parts = tfd.Independent(tfd.Normal([[0.0, 1.0]], [[1.0, 2.0]]), 1)
    check_distribution(tfd.MixtureSameFamily(tfd.Categorical(probs=[1.0]), parts))
    with pytest.raises(ValueError, match="scale of Normal must be positive"):
        check_distribution(tfd.Independent(tfd.Normal([0.0, 1.0], [1.0, 0.0]), 1))


def test_pytorch_is_told_what_to_do():
    with pytest.raises(ImportError, match="the Keras backend is torch"):
        check_installation("torch")
    if keras.backend.backend() == "torch":  # and it is asked before TFP is imported
        with pytest.raises(ImportError, match="the Keras backend is torch"):
            NegativeLogLikelihood(NormalSpec())(
                np.zeros(2), np.zeros((2, 2), "float32")
            )


ONE = float(np.log(np.expm1(1 - 1e-5)))  # the scale of it is 1
STANDARD = [0.0, 0.0, ONE, ONE]


def params(rows=6, size=4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, size)).astype("float32")


def divergence(x):
    """Of independent normals from standard ones, in closed form."""
    mean, scale = x[:, :2], np.log1p(np.exp(x[:, 2:])) + 1e-5
    return 0.5 * (mean**2 + scale**2 - 1 - 2 * np.log(scale)).sum(axis=1)


@pytest.mark.tfp
def test_contract():
    check_layer(
        DistributionSample,
        {"spec": NormalSpec((2, 1)), "seed": 0},
        params(),
        output_shape=(6, 2, 1),
        batch_independent=False,
    )
    check_layer(
        KLDivergencePenalty,
        {"spec": NormalSpec(2), "prior_spec": NormalSpec(2), "prior_params": STANDARD},
        params(),
        output_shape=(6, 4),
        skip=("float16", "bfloat16"),  # parameters pass through as they come
    )


@pytest.mark.tfp
def test_divergence_is_that_of_the_closed_form_and_of_samples():
    x = params()
    expected = divergence(x).mean()
    arguments = (NormalSpec(2), NormalSpec(2), STANDARD)
    exact = KLDivergencePenalty(*arguments, weight=0.5)
    np.testing.assert_array_equal(ops.convert_to_numpy(exact(x)), x)
    assert float(exact.losses[0]) == pytest.approx(0.5 * expected, rel=1e-5)
    drawn = KLDivergencePenalty(*arguments, samples=4000, seed=0)
    drawn(x)
    assert float(drawn.losses[0]) == pytest.approx(expected, rel=0.05)


@pytest.mark.tfp
def test_draws_have_the_moments_and_go_on_after_a_reload(tmp_path):
    x = np.tile(np.array([[3.0, ONE + 1]], "float32"), (4000, 1))
    layer = DistributionSample(NormalSpec(), seed=1)
    drawn = ops.convert_to_numpy(layer(x))
    assert drawn.mean() == pytest.approx(3.0, abs=0.1)
    assert drawn.std() == pytest.approx(np.log1p(np.exp(ONE + 1)), rel=0.05)
    model = keras.Sequential([keras.Input((2,)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    a, b = (ops.convert_to_numpy(m(x[:5])) for m in (model, loaded))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, drawn[:5])


@pytest.mark.tfp
def test_a_logistic_has_no_closed_form():
    spec, x = LogisticSpec(), params(3, 2)
    layer = KLDivergencePenalty(spec, NormalSpec(), [0.0, ONE])
    with pytest.raises(ValueError, match="no closed form: give samples.* Received"):
        layer(x)
    layer = KLDivergencePenalty(spec, NormalSpec(), [0.0, ONE], samples=10, seed=0)
    layer(x)
    assert np.isfinite(float(layer.losses[0]))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DistributionSample("normal"), "spec must be .* Received: spec="),
        (
            lambda: KLDivergencePenalty(NormalSpec(), LogisticSpec(2), [0.0] * 4),
            "event shape .* Received: prior_spec=",
        ),
        (
            lambda: KLDivergencePenalty(NormalSpec(), NormalSpec(), [0.0]),
            "2 finite numbers .* Received: prior_params=",
        ),
        (
            lambda: KLDivergencePenalty(NormalSpec(), NormalSpec(), [0.0, np.nan]),
            "2 finite numbers .* Received: prior_params=",
        ),
        (
            lambda: KLDivergencePenalty(NormalSpec(), NormalSpec(), [0, 0], weight=-1),
            "weight must be .* Received: weight=-1",
        ),
        (
            lambda: KLDivergencePenalty(NormalSpec(), NormalSpec(), [0, 0], samples=0),
            "samples must be .* Received: samples=0",
        ),
        (
            lambda: DistributionSample(NormalSpec(2)).build((None, 3)),
            "needs parameters .* Received: input_shape=",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
