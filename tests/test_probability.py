"""Tests of dlcompanion.probability."""

import importlib.metadata

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from dlcompanion import backend, probability
from dlcompanion.probability import (
    BernoulliSpec,
    CategoricalSpec,
    MixtureNormalSpec,
    MultivariateNormalTriLSpec,
    NormalSpec,
    as_bijector,
    check_installation,
    tfp_seed,
)

SPECS = [
    NormalSpec(3),
    BernoulliSpec(3),
    CategoricalSpec(4),
    MixtureNormalSpec(components=2, event_size=3),
    MultivariateNormalTriLSpec(3),
]

# jax 0.10 about a shape that TFP asks of None
tfp_on_jax = pytest.mark.filterwarnings("ignore:shape requires ndarray")


def softplus(x):
    return np.logaddexp(0, x) + 1e-5


def normal(y, params):
    mu, rho = params[:3], params[3:]
    return stats.norm(mu, softplus(rho)).logpdf(y).sum()


def bernoulli(y, params):
    return stats.bernoulli(1 / (1 + np.exp(-params))).logpmf(y).sum()


def categorical(y, params):
    return params[y] - np.log(np.exp(params).sum())


def mixture(y, params):
    weights = np.exp(params[:2]) / np.exp(params[:2]).sum()
    mu, rho = params[2:8].reshape(2, 3), params[8:].reshape(2, 3)
    return np.log(
        sum(
            weights[k] * stats.norm(mu[k], softplus(rho[k])).pdf(y).prod()
            for k in range(2)
        )
    )


def multivariate_normal(y, params):
    mu, (a, b, c, d, e, f) = params[:3], params[3:]
    lower = np.array([[softplus(a), 0, 0], [b, softplus(c), 0], [d, e, softplus(f)]])
    return stats.multivariate_normal(mu, lower @ lower.T).logpdf(y)


LOG_PROBS = [normal, bernoulli, categorical, mixture, multivariate_normal]


@pytest.mark.tfp
@pytest.mark.parametrize("spec, expected", list(zip(SPECS, LOG_PROBS, strict=True)))
def test_log_prob_is_that_of_scipy(spec, expected):
    rng = np.random.default_rng(0)
    params = rng.normal(size=(5, spec.params_size)).astype("float32")
    y = rng.normal(size=(5, 3)).astype("float32")
    if isinstance(spec, BernoulliSpec):
        y = (y > 0).astype("float32")
    if isinstance(spec, CategoricalSpec):
        y = np.array([0, 1, 2, 3, 0])
    value = ops.convert_to_numpy(spec(params).log_prob(y))
    reference = [expected(a, b.astype("float64")) for a, b in zip(y, params)]  # noqa: B905
    np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.tfp
@tfp_on_jax
@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_samples_have_the_event_and_the_batch(spec):
    params = np.zeros((2, 5, spec.params_size), "float32")
    event = () if isinstance(spec, CategoricalSpec) else (3,)
    seed = tfp_seed(keras.random.SeedGenerator(0))
    sample = spec(params).sample(400, seed=seed)
    assert tuple(sample.shape) == (400, 2, 5, *event)
    # all parameters zero: the mean of a fair coin, of four classes, of a normal
    mean = {BernoulliSpec: 0.5, CategoricalSpec: 1.5}.get(type(spec), 0.0)
    assert abs(float(np.mean(ops.convert_to_numpy(sample))) - mean) < 0.1


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_config_round_trip(spec):
    config = keras.saving.serialize_keras_object(spec)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(spec)
    assert copy.get_config() == spec.get_config()
    assert copy.params_size == spec.params_size


@keras.saving.register_keras_serializable(package="test_probability")
class NegativeLogLikelihood(keras.losses.Loss):
    def __init__(self, spec, **kwargs):
        super().__init__(**kwargs)
        self.spec = spec

    def call(self, y_true, y_pred):
        return -self.spec(y_pred).log_prob(ops.cast(y_true, "float32"))

    def get_config(self):
        spec = keras.saving.serialize_keras_object(self.spec)
        return {**super().get_config(), "spec": spec}

    @classmethod
    def from_config(cls, config):
        spec = keras.saving.deserialize_keras_object(config["spec"])
        return cls(**{**config, "spec": spec})


@keras.saving.register_keras_serializable(package="test_probability")
class Head(keras.layers.Layer):
    def __init__(self, spec, **kwargs):
        super().__init__(**kwargs)
        self.spec = spec
        self.dense = keras.layers.Dense(spec.params_size, dtype="float32")

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        spec = keras.saving.serialize_keras_object(self.spec)
        return {**super().get_config(), "spec": spec}

    @classmethod
    def from_config(cls, config):
        spec = keras.saving.deserialize_keras_object(config["spec"])
        return cls(**{**config, "spec": spec})


@pytest.mark.tfp
def test_a_model_keeps_the_specs_of_its_head_and_of_its_loss(tmp_path):
    spec = MixtureNormalSpec(components=2, event_size=1)
    model = keras.Sequential([keras.Input((2,)), Head(spec)])
    model.compile("sgd", NegativeLogLikelihood(spec))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 2)), rng.normal(size=(16, 1))
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].spec.get_config() == spec.get_config()
    assert loaded.loss.spec.get_config() == spec.get_config()
    for one in (model, loaded):  # the same next step
        one.fit(x, y, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    distribution = loaded.layers[0].spec(loaded.predict(x, verbose=0))
    nll = -np.mean(ops.convert_to_numpy(distribution.log_prob(y.astype("float32"))))
    np.testing.assert_allclose(nll, model.evaluate(x, y, verbose=0), rtol=1e-5)


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
    for cls in (NormalSpec, BernoulliSpec, MultivariateNormalTriLSpec):
        with pytest.raises(ValueError, match="event_size must be .* Received"):
            cls(bad)
    with pytest.raises(ValueError, match="components must be"):
        MixtureNormalSpec(bad)
    with pytest.raises(ValueError, match="at least 2. Received: classes="):
        CategoricalSpec(bad)
    with pytest.raises(ValueError, match="event_ndims must be"):
        as_bijector(keras.layers.Identity(), event_ndims=bad)


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

    monkeypatch.setattr(probability.importlib, "import_module", fail)
    monkeypatch.setattr(probability, "check_installation", lambda backend: None)
    with pytest.raises(ImportError, match=r"tf_keras.*pip install \"dlcompanion\["):
        probability._tfp.__wrapped__()
