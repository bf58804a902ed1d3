"""Tests of dlcompanion.probability."""

import importlib.metadata

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from dlcompanion import backend, probability
from dlcompanion.installation import check_installation
from dlcompanion.probability import (
    BernoulliSpec,
    CategoricalMixtureOfOneHotCategoricalSpec,
    CategoricalSpec,
    LogisticSpec,
    MixtureLogisticSpec,
    MixtureNormalSpec,
    MixtureSameFamilySpec,
    MultivariateNormalTriLSpec,
    NormalSpec,
    OneHotCategoricalSpec,
    PoissonSpec,
    as_bijector,
    tfp_seed,
)

SPECS = [
    NormalSpec(3),
    LogisticSpec(3),
    BernoulliSpec(3),
    PoissonSpec(3),
    CategoricalSpec(4),
    OneHotCategoricalSpec(4),
    MultivariateNormalTriLSpec(3),
    MixtureNormalSpec(components=2, event_shape=3),
    MixtureLogisticSpec(components=2),
    MixtureSameFamilySpec(2, PoissonSpec()),
    CategoricalMixtureOfOneHotCategoricalSpec(classes=4, components=2),
]

# jax 0.10 about a shape that TFP asks of None, and its draws in 64 bits
tfp_on_jax = pytest.mark.filterwarnings(
    "ignore:shape requires ndarray", "ignore:Explicitly requested dtype"
)


def softplus(x):
    return np.logaddexp(0, x) + 1e-5


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def normal(y, params):
    mu, rho = params[:3], params[3:]
    return stats.norm(mu, softplus(rho)).logpdf(y).sum()


def logistic(y, params):
    mu, rho = params[:3], params[3:]
    return stats.logistic(mu, softplus(rho)).logpdf(y).sum()


def bernoulli(y, params):
    return stats.bernoulli(1 / (1 + np.exp(-params))).logpmf(y).sum()


def poisson(y, params):
    return stats.poisson(np.exp(params)).logpmf(y).sum()


def categorical(y, params):
    return np.log(softmax(params)[int(y)])


def one_hot(y, params):
    return np.log(softmax(params) @ y)


def multivariate_normal(y, params):
    # the triangle of fill_triangular: its last row first, then around the corner
    mu, (a, b, c, d, e, f) = params[:3], params[3:]
    lower = np.array([[softplus(d), 0, 0], [f, softplus(e), 0], [c, b, softplus(a)]])
    return stats.multivariate_normal(mu, lower @ lower.T).logpdf(y)


def mixture(y, params):
    rest = params[2:].reshape(2, 6)
    each = [np.exp(normal(y, one)) for one in rest]
    return np.log(softmax(params[:2]) @ each)


def logistic_mixture(y, params):
    mu, rho = params[2:].reshape(2, 2).T
    each = stats.logistic(mu, softplus(rho)).pdf(y)
    return np.log(softmax(params[:2]) @ each)


def poisson_mixture(y, params):
    return np.log(softmax(params[:2]) @ stats.poisson(np.exp(params[2:])).pmf(y))


def one_hot_mixture(y, params):
    each = [softmax(one) @ y for one in params[2:].reshape(2, 4)]
    return np.log(softmax(params[:2]) @ each)


LOG_PROBS = [
    normal,
    logistic,
    bernoulli,
    poisson,
    categorical,
    one_hot,
    multivariate_normal,
    mixture,
    logistic_mixture,
    poisson_mixture,
    one_hot_mixture,
]


def values(spec, rows, seed=0):
    """Some values of the support."""
    rng = np.random.default_rng(seed)
    shape = (rows, *spec.event_shape)
    if "one-hot" in spec.support:
        return np.eye(4, dtype="float32")[rng.integers(4, size=rows)]
    if "numbers" in spec.support:
        return rng.normal(size=shape).astype("float32")
    return rng.integers(2, size=shape).astype("float32")


@pytest.mark.tfp
@pytest.mark.parametrize("spec, expected", list(zip(SPECS, LOG_PROBS, strict=True)))
def test_log_prob_is_that_of_scipy(spec, expected):
    rng = np.random.default_rng(0)
    params = rng.normal(size=(5, spec.params_size)).astype("float32")
    y = values(spec, 5)
    value = ops.convert_to_numpy(spec(params).log_prob(y))
    reference = [expected(a, b.astype("float64")) for a, b in zip(y, params)]  # noqa: B905
    np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        ops.convert_to_numpy(spec.log_prob(params, y)), value, rtol=1e-6
    )


@pytest.mark.tfp
@tfp_on_jax
@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_samples_have_the_event_and_the_batch(spec):
    params = np.zeros((2, 5, spec.params_size), "float32")
    event = spec.event_shape
    seed = tfp_seed(keras.random.SeedGenerator(0))
    draw = backend.compile(lambda p, seed: spec(p).sample(400, seed=seed), jit=False)
    sample = draw(params, seed)
    assert tuple(sample.shape) == (400, 2, 5, *event)
    # all parameters zero: a fair coin, four equal classes, rate one, mean zero
    mean = 1.0 if "Poisson" in repr(spec) else 0.0
    mean = {BernoulliSpec: 0.5, CategoricalSpec: 1.5}.get(type(spec), mean)
    mean = 0.25 if "OneHot" in repr(spec) else mean
    assert abs(float(np.mean(ops.convert_to_numpy(sample))) - mean) < 0.1
    assert ops.convert_to_numpy(spec.in_support(sample)).all()


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_config_round_trip(spec):
    config = keras.saving.serialize_keras_object(spec)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(spec)
    assert copy.get_config() == spec.get_config()
    assert copy.params_size == spec.params_size


@pytest.mark.tfp
def test_half_precision_parameters_make_a_float32_density():
    params = ops.cast(np.ones((2, 2)), "bfloat16")
    log_prob = NormalSpec(1)(params).log_prob(np.zeros((2, 1), "float32"))
    assert keras.backend.standardize_dtype(log_prob.dtype) == "float32"


@pytest.mark.tfp
@pytest.mark.parametrize("spec", [NormalSpec(1), MultivariateNormalTriLSpec(1)])
def test_no_parameter_makes_the_scale_zero(spec):
    stddev = spec(np.array([[0.0, -1e4]], "float32")).stddev()
    np.testing.assert_allclose(ops.convert_to_numpy(stddev), [[1e-5]], rtol=1e-5)


@pytest.mark.tfp
def test_seeds_advance_in_compiled_code_and_repeat():
    def draws(seed):
        generator = keras.random.SeedGenerator(seed)
        spec = NormalSpec(2)

        def draw(params):
            return spec(params).sample(seed=tfp_seed(generator))

        compiled = backend.compile(draw, jit=False)
        params = np.zeros((3, 4), "float32")
        return [ops.convert_to_numpy(compiled(params)) for _ in range(2)]

    (a, b), (c, d) = draws(1), draws(1)
    assert not np.allclose(a, b)
    np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(b, d)


class Cubic(keras.layers.Layer):
    """y = x^3, and a count of how often it was asked."""

    asked = 0

    def call(self, x, inverse=False):
        self.asked += 1
        y = ops.sign(x) * ops.abs(x) ** (1 / 3) if inverse else x**3
        slope = ops.log(3 * ops.square(y if inverse else x))
        log_det = ops.sum(slope, axis=-1)
        return y, -log_det if inverse else log_det


@pytest.mark.tfp
@pytest.mark.parametrize("inverted", [False, True])
def test_a_layer_as_bijector_is_asked_once_for_value_and_log_det(inverted):
    layer = Cubic()
    tfd, tfb = probability.tfd(), probability.tfb()
    bijector = as_bijector(layer)
    bijector = tfb.Chain([tfb.Invert(bijector) if inverted else bijector])
    base = tfd.Independent(tfd.Normal(np.zeros(2, "float32"), 1.0), 1)
    x = np.array([[0.5, -2.0], [1.5, 0.3]], "float32")
    value = tfd.TransformedDistribution(base, bijector).log_prob(x)
    assert layer.asked == 1
    z = x**3 if inverted else np.cbrt(x)
    slope = 3 * x**2 if inverted else 1 / (3 * z**2)
    expected = (stats.norm.logpdf(z) + np.log(slope)).sum(axis=1)
    np.testing.assert_allclose(ops.convert_to_numpy(value), expected, rtol=1e-5)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_parameters_of_another_size_or_dtype_are_refused(spec):
    for shape in [(4, spec.params_size + 1), ()]:
        with pytest.raises(ValueError, match=r"needs floating point .* Received"):
            spec(np.zeros(shape, "float32"))
    with pytest.raises(ValueError, match=r"needs floating point .* Received"):
        spec(np.zeros((4, spec.params_size), "int32"))


@pytest.mark.parametrize("bad", [0, -1, 2.0, "3", True])
def test_sizes_are_positive_integers(bad):
    for cls in (NormalSpec, LogisticSpec, BernoulliSpec, PoissonSpec):
        for shape in (bad, (2, bad)):
            with pytest.raises(ValueError, match="event_shape must be .* Received"):
                cls(shape)
    with pytest.raises(ValueError, match="event_size must be .* Received"):
        MultivariateNormalTriLSpec(bad)
    with pytest.raises(ValueError, match="components must be"):
        MixtureNormalSpec(bad)
    for cls in (CategoricalSpec, OneHotCategoricalSpec):
        with pytest.raises(ValueError, match="at least 2. Received: classes="):
            cls(bad)
    with pytest.raises(ValueError, match="event_ndims must be"):
        as_bijector(keras.layers.Identity(), event_ndims=bad)


def test_a_component_is_a_spec():
    with pytest.raises(ValueError, match="component must be a spec.* Received: comp"):
        MixtureSameFamilySpec(2, "normal")


def test_one_class_is_no_choice():
    with pytest.raises(ValueError, match="at least 2. Received: classes=1"):
        CategoricalSpec(1)


def test_a_seed_comes_from_a_generator():
    with pytest.raises(ValueError, match=r"needs a keras.random.SeedGenerator"):
        tfp_seed(3)


def installed(monkeypatch, **versions):
    """Pretend that exactly these distributions are installed."""

    def version(name):
        try:
            return versions[name.replace("-", "_")]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_pytorch_is_told_what_to_do():
    with pytest.raises(ImportError, match=r"KERAS_BACKEND=tensorflow and pip install"):
        check_installation("torch")
    if keras.backend.backend() == "torch":
        with pytest.raises(ImportError, match="the Keras backend is torch"):
            probability.tfd()
        with pytest.raises(ImportError, match="the Keras backend is torch"):
            NormalSpec(1)(np.zeros((1, 2), "float32"))


@pytest.mark.parametrize(
    "name, extra", [("tensorflow", "tensorflow"), ("jax", "jax-probability")]
)
def test_installations_that_cannot_work_are_refused(monkeypatch, name, extra):
    remedy = rf"dlcompanion\[{extra}\]"
    installed(monkeypatch, tensorflow_probability="0.25.0", tfp_nightly="0.26.0.dev1")
    with pytest.raises(ImportError, match=rf"(?s)both installed.*pip .*{remedy}"):
        check_installation(name)
    installed(monkeypatch)
    with pytest.raises(ImportError, match=rf"needs TensorFlow Prob.*{remedy}"):
        check_installation(name)


@pytest.mark.parametrize(
    "tfp, jax, works",
    [("0.25.0", "0.10.2", False), ("0.25.0", "0.6.2", True), ("0.26.0", "0.7.0", True)],
)
def test_old_tfp_and_new_jax_do_not_go_together(monkeypatch, tfp, jax, works):
    installed(monkeypatch, tensorflow_probability=tfp, jax=jax)
    check_installation("tensorflow")
    if works:
        check_installation("jax")
    else:
        with pytest.raises(ImportError, match=r"(?s)does not work with jax.*nightly"):
            check_installation("jax")


def test_an_import_that_fails_names_the_extra(monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'tf_keras'")

    monkeypatch.setattr(probability.door.importlib, "import_module", fail)
    monkeypatch.setattr(probability.door, "check_installation", lambda backend: None)
    with pytest.raises(ImportError, match=r"tf_keras.*pip install \"dlcompanion\["):
        probability.door._tfp.__wrapped__()
