"""Tests of dlcompanion.generative.score_function."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion import backend
from dlcompanion.generative import LearnedBaseline, score_function_gradient
from dlcompanion.generative.score_function import score_function_loss
from dlcompanion.testing import check_layer

COSTS = np.array([3.0, 5.0, 4.0, 9.0], "float32")
LOGITS = np.array([0.5, -0.3, 0.1, -1.0], "float32")


def log_prob(logits, samples):
    """Categorical: samples (samples, batch) of logits (..., classes)."""
    picked = ops.one_hot(samples, 4) * ops.log_softmax(logits)
    return ops.sum(picked, axis=-1)


def cost(samples):
    return ops.take(ops.convert_to_tensor(COSTS), samples)


def enumerated():
    """The gradient of the mean cost: p_k (f_k - mean cost)."""
    p = np.exp(LOGITS) / np.exp(LOGITS).sum()
    return p * (COSTS - p @ COSTS)


def estimates(baseline, samples, repeats=4000, seed=0):
    """One estimate for each row of logits: (repeats, classes)."""
    p = np.exp(LOGITS) / np.exp(LOGITS).sum()
    rng = np.random.default_rng(seed)
    drawn = rng.choice(4, size=(samples, repeats), p=p).astype("int32")
    logits = np.tile(LOGITS, (repeats, 1))
    gradient = score_function_gradient(log_prob, cost, logits, drawn, baseline)
    return ops.convert_to_numpy(gradient)


@pytest.mark.parametrize("baseline", ["none", 5.0, "leave_one_out"])
def test_unbiased_against_enumeration(baseline):
    found = estimates(baseline, samples=4)
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    z = (found.mean(axis=0) - enumerated()) / error
    assert np.abs(z).max() < 3


def test_a_baseline_that_sees_its_own_sample_would_be_biased():
    # the planted fault that the test above must be able to see: mean of all samples
    found = estimates("leave_one_out", samples=4) * 3 / 4
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert np.abs((found.mean(axis=0) - enumerated()) / error).max() > 5


def test_leave_one_out_cuts_the_variance_fivefold():
    plain = estimates("none", samples=8).var(axis=0).sum()
    assert plain / estimates("leave_one_out", samples=8).var(axis=0).sum() > 5


def test_all_states_as_samples_give_the_exact_gradient_of_two_bernoullis():
    # weight every one of the four states by its probability: no chance is left
    logits = np.array([0.7, -0.4], "float32")
    states = np.array(list(itertools.product([0, 1], repeat=2)), "float32")
    p = 1 / (1 + np.exp(-logits))
    probabilities = np.prod(np.where(states == 1, p, 1 - p), axis=1)
    f = np.array([1.0, -2.0, 3.0, 0.5], "float32")

    def bernoulli(logits, x):
        log = x * ops.log_sigmoid(logits) + (1 - x) * ops.log_sigmoid(-logits)
        return ops.sum(log, axis=-1)

    def weighted(x):  # importance: the mean over states becomes the expectation
        return ops.convert_to_tensor((4 * probabilities * f).astype("float32"))

    gradient = score_function_gradient(bernoulli, weighted, logits, states)
    expected = [  # d/dlogit_j of sum_x p(x) f(x)
        np.sum(probabilities * f * (states[:, j] - p[j])) for j in range(2)
    ]
    np.testing.assert_allclose(ops.convert_to_numpy(gradient), expected, rtol=1e-5)


def test_equation_in_numpy():
    drawn = np.array([0, 3, 1, 1, 2], "int32")
    f = COSTS[drawn]
    score = np.eye(4)[drawn] - np.exp(LOGITS) / np.exp(LOGITS).sum()
    for baseline, b in [
        ("none", 0.0),
        (2.5, 2.5),
        ("leave_one_out", (f.sum() - f) / 4),
    ]:
        gradient = score_function_gradient(log_prob, cost, LOGITS, drawn, baseline)
        expected = np.mean((f - b)[:, None] * score, axis=0)
        np.testing.assert_allclose(
            ops.convert_to_numpy(gradient), expected, rtol=1e-5, atol=1e-6
        )


def test_equal_costs_leave_nothing_to_leave_one_out():
    drawn = np.array([0, 3, 1], "int32")

    def constant(samples):
        return ops.ones(ops.shape(samples))

    gradient = score_function_gradient(
        log_prob, constant, LOGITS, drawn, "leave_one_out"
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(gradient), np.zeros(4))


@pytest.mark.parametrize("baseline", ["none", 7.0, "leave_one_out"])
def test_the_value_of_the_loss_is_the_mean_cost(baseline):
    costs = np.array([[1.0, 2.0], [5.0, 0.0]], "float32")
    loss = score_function_loss(-costs, costs, baseline)
    np.testing.assert_allclose(ops.convert_to_numpy(loss), [3.0, 1.0], rtol=1e-6)


def test_a_cost_with_parameters_keeps_its_own_gradient():
    # E[log q(x)]: the score part with baseline, and d log q itself, whose mean is zero
    from dlcompanion import autodiff

    drawn = np.array([0, 1, 3], "int32")

    def loss(logits):
        log_q = log_prob(logits, drawn)
        return score_function_loss(log_q, log_q, "leave_one_out")

    log_q = ops.convert_to_numpy(log_prob(LOGITS, drawn))
    score = np.eye(4)[drawn] - np.exp(LOGITS) / np.exp(LOGITS).sum()
    advantage = log_q - (log_q.sum() - log_q) / 2
    expected = np.mean((advantage + 1)[:, None] * score, axis=0)
    found = ops.convert_to_numpy(autodiff.grad(loss)(LOGITS))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@keras.saving.register_keras_serializable(package="test_score_function")
class Policy(keras.Model):
    """Finds the cheapest class by sampling, inside fit."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.logits = self.add_weight(shape=(4,), initializer="zeros")
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs):
        logits = ops.convert_to_tensor(self.logits)
        many = ops.tile(logits[None], (4, 1))
        drawn = keras.random.categorical(many, 8, seed=self.seed_generator)
        costs = ops.take(ops.convert_to_tensor(COSTS), drawn)  # (4, 8)
        self.add_loss(
            ops.mean(score_function_loss(log_prob(logits, drawn), costs, 4.0))
        )
        return inputs


@pytest.mark.once
def test_as_a_loss_in_fit_it_finds_the_cheapest_class():
    model = Policy()
    model.compile(keras.optimizers.Adam(0.2))
    history = model.fit(np.zeros((60, 1)), batch_size=1, verbose=0).history["loss"]
    assert history[0] < 5.25  # the mean cost of all classes, the value at the start
    probabilities = ops.convert_to_numpy(ops.softmax(model.logits))
    assert np.argmax(probabilities) == 0 and probabilities[0] > 0.9


def small_network():
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    network.set_weights([np.array([[1.0], [-2.0], [0.5]]), np.array([0.25])])
    return network


def test_learned_baseline_contract():
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    # costs that broadcast; nothing is learned through the output, only by the loss
    check_layer(
        LearnedBaseline,
        lambda: {"network": small_network()},
        x,
        output_shape=(6,),
        call_kwargs={"costs": np.full(1, 2.0, "float32")},
        skip=("gradient", "jit"),
    )


def test_learned_baseline_descends_on_the_squared_error_alone():
    from dlcompanion import autodiff

    layer = LearnedBaseline(small_network())
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    costs = np.random.default_rng(1).normal(size=(2, 6)).astype("float32")
    layer.build(x.shape)

    def loss():
        b = layer(x, costs=costs)
        return ops.sum(b) + layer.losses[0]

    variables = layer.trainable_variables
    value, (by_kernel, by_bias) = autodiff.value_and_grad(loss, variables=variables)()
    b = x @ np.array([1.0, -2.0, 0.5]) + 0.25
    error = b - costs
    np.testing.assert_allclose(float(value), b.sum() + (error**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        ops.convert_to_numpy(by_kernel)[:, 0],
        2 * (error[..., None] * x).mean(axis=(0, 1)),
        rtol=1e-4,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(by_bias), [2 * error.mean()], rtol=1e-4
    )


@keras.saving.register_keras_serializable(package="test_score_function")
class Contextual(keras.Model):
    """One sample an example; the level of the cost depends on the context."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.baseline = LearnedBaseline(keras.layers.Dense(1))
        self.seed_generator = keras.random.SeedGenerator(0)
        self.logits = self.add_weight(shape=(4,), initializer="zeros")

    def call(self, inputs):
        logits = ops.tile(ops.convert_to_tensor(self.logits)[None], (16, 1))
        drawn = keras.random.categorical(logits, 1, seed=self.seed_generator)[:, 0]
        costs = ops.take(ops.convert_to_tensor(COSTS), drawn) + 50.0 * inputs[:, 0]
        b = self.baseline(inputs, costs=costs)
        log_probs = log_prob(logits, drawn)[None]
        self.add_loss(ops.mean(score_function_loss(log_probs, costs[None], b)))
        return inputs


@pytest.mark.once
def test_in_fit_the_baseline_learns_the_level_and_the_policy_the_class():
    keras.utils.set_random_seed(0)
    model = Contextual()
    model.compile(keras.optimizers.Adam(0.5))
    x = np.random.default_rng(0).uniform(-1, 1, (16 * 250, 1)).astype("float32")
    model.fit(x, batch_size=16, verbose=0)
    kernel, _ = model.baseline.network.get_weights()
    np.testing.assert_allclose(kernel[0, 0], 50.0, atol=1.5)
    assert np.argmax(ops.convert_to_numpy(model.logits)) == 0


def test_learned_baseline_refuses_what_is_no_network():
    with pytest.raises(ValueError, match="network must be a Keras layer. Received"):
        LearnedBaseline(np.mean)
    with pytest.raises(ValueError, match=r"\(batch, 1\). Received: output of shape"):
        LearnedBaseline(keras.layers.Dense(2)).build((None, 3))


def test_compiled():
    drawn = np.array([0, 3, 1], "int32")

    def gradient(logits, drawn):
        return score_function_gradient(log_prob, cost, logits, drawn, "leave_one_out")

    compiled = backend.compile(gradient, jit=False)(LOGITS, drawn)
    np.testing.assert_allclose(
        ops.convert_to_numpy(compiled),
        ops.convert_to_numpy(gradient(LOGITS, drawn)),
        rtol=1e-6,
        atol=1e-7,  # one entry is a difference of equal numbers
    )


def test_nan_comes_out_as_nan():
    costs = np.array([1.0, np.nan], "float32")
    assert np.isnan(float(score_function_loss(-costs, costs, "none")))


def test_unknown_baseline():
    x = np.ones(3, "float32")
    with pytest.raises(ValueError, match="Received: baseline='mean'"):
        score_function_loss(x, x, "mean")
    with pytest.raises(ValueError, match="must be finite. Received: baseline=nan"):
        score_function_loss(x, x, float("nan"))
    with pytest.raises(ValueError, match="one constant for all samples"):
        score_function_loss(x, x, np.ones(3, "float32"))


def test_leave_one_out_needs_two():
    x = np.ones((1, 5), "float32")
    with pytest.raises(ValueError, match=r"at least two. Received: costs.shape=\(1, 5"):
        score_function_loss(x, x, "leave_one_out")


@pytest.mark.parametrize(
    "shapes", [((3,), (4,)), ((3, 2), (3,)), ((), ()), ((0,), (0,))]
)
def test_shapes_must_agree_and_hold_samples(shapes):
    log_probs, costs = (np.ones(shape, "float32") for shape in shapes)
    with pytest.raises(ValueError, match="must have one shape.*Received"):
        score_function_loss(log_probs, costs)


def test_integers_are_refused():
    x = np.ones(3, "float32")
    with pytest.raises(ValueError, match="must be floating point"):
        score_function_loss(x, np.ones(3, "int32"))
