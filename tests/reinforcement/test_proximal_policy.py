"""Tests of dlcompanion.reinforcement.proximal_policy."""

import keras
import numpy as np
import pytest
from keras import ops
from toy_networks import net, softmax

from dlcompanion import autodiff
from dlcompanion.reinforcement import (
    Categorical,
    MultiCategorical,
    ProximalPolicy,
    clipped_surrogate_loss,
    policy_gradient_loss,
    standardised,
)
from dlcompanion.testing import check_model

numpy = ops.convert_to_numpy


def rollout(n, kind, seed=0):
    """Observations, actions, behaviour, advantages, returns."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype("float32")
    behaviour = rng.normal(size=(n, kind.outputs)).astype("float32")
    actions = kind.sample(behaviour, rng)
    actions = actions.astype("int32" if actions.dtype.kind == "i" else "float32")
    advantages, returns = rng.normal(size=(2, n)).astype("float32")
    return x, (actions, behaviour, advantages, returns)


def test_contract():
    kind = MultiCategorical([2, 3])
    x, y = rollout(8, kind)
    check_model(
        ProximalPolicy,
        lambda: {
            "policy": net(4, kind.outputs),
            "critic": net(4, 1),
            "distribution": kind,
            "entropy_weight": 0.1,
        },
        x,
        y,
        compile_kwargs=lambda: {"optimizer": keras.optimizers.Adam(0.01)},
    )


def test_a_schedule_of_the_clip_range_is_saved(tmp_path):
    schedule = keras.optimizers.schedules.PolynomialDecay(0.2, 100, 0.0)
    learner = ProximalPolicy(net(4, 3), net(4, 1), Categorical(3), schedule)
    learner.build((None, 4))
    learner.compile("sgd")
    learner.save(tmp_path / "learner.keras")
    again = keras.saving.load_model(tmp_path / "learner.keras")
    assert again.clip_range.get_config() == schedule.get_config()


def test_one_update_is_the_written_one():
    kind = Categorical(3)
    x, (actions, behaviour, advantages, returns) = rollout(64, kind)
    weights = (np.arange(64) % 5 > 0).astype("float32")
    learner = ProximalPolicy(net(4, 3), net(4, 1), kind, 0.2, 0.3, 0.05)
    learner.build((None, 4))
    learner.compile(keras.optimizers.SGD(0.1))
    kernel, bias = learner.policy.get_weights()
    value = learner.critic.get_weights()
    logs = learner.train_on_batch(
        x, (actions, behaviour, advantages, returns), weights, return_dict=True
    )
    count = weights.sum()

    def mean(y):
        return (weights * y).sum() / count

    a = advantages - mean(advantages)
    a = a / np.sqrt(mean(a**2))
    p, rows = softmax(x @ kernel + bias), np.arange(64)
    ratio = p[rows, actions] / softmax(behaviour)[rows, actions]
    clipped = np.clip(ratio, 0.8, 1.2)
    assert logs["policy_loss"] == pytest.approx(
        -mean(np.minimum(ratio * a, clipped * a)), rel=1e-4
    )
    passes = ratio * a <= clipped * a  # the gradient goes through what is smaller
    assert 0 < (weights * passes).sum() < count
    entropy = -(p * np.log(p)).sum(axis=1, keepdims=True)
    on_logits = (p - np.eye(3)[actions]) * (ratio * a * passes)[:, None]
    on_logits += 0.05 * p * (np.log(p) + entropy)
    on_logits *= weights[:, None] / count
    want = [kernel - 0.1 * x.T @ on_logits, bias - 0.1 * on_logits.sum(0)]
    for got, expected in zip(learner.policy.get_weights(), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    error = (x @ value[0] + value[1])[:, 0] - returns
    on_values = (0.3 * 2 * error * weights / count)[:, None]
    want = [value[0] - 0.1 * x.T @ on_values, value[1] - 0.1 * on_values.sum(0)]
    for got, expected in zip(learner.critic.get_weights(), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert logs["value_loss"] == pytest.approx(mean(error**2), rel=1e-4)
    assert logs["entropy"] == pytest.approx(mean(entropy[:, 0]), rel=1e-4)
    kl = mean(ratio - 1 - np.log(ratio))
    assert logs["kl"] == pytest.approx(kl, rel=1e-3) and kl > 0
    outside = mean((np.abs(ratio - 1) > 0.2).astype("float64"))
    assert logs["clip_fraction"] == pytest.approx(outside, rel=1e-5)


def gradient(f, x):
    return numpy(autodiff.grad(f)(ops.convert_to_tensor(x)))


def test_the_first_step_is_the_policy_gradient():
    # before any step all ratios are 1, and nothing is clipped
    kind = Categorical(3)
    _, (actions, behaviour, advantages, _) = rollout(32, kind)
    weights = np.ones(32, "float32")
    before = kind.log_prob(behaviour, actions)

    def surrogate(outputs):
        log_ratio = kind.log_prob(outputs, actions) - before
        return clipped_surrogate_loss(log_ratio, advantages, 0.2, weights)

    def plain(outputs):
        return policy_gradient_loss(outputs, actions, advantages, weights)

    got, want = gradient(surrogate, behaviour), gradient(plain, behaviour)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_what_has_gone_far_enough_is_left_alone_and_a_mistake_is_not():
    log_ratio = np.log(np.array([1.3, 0.7, 1.3, 0.7], "float32"))
    advantages = np.array([1.0, -1.0, -1.0, 1.0], "float32")
    ones = np.ones(4, "float32")

    def loss(x):
        return clipped_surrogate_loss(x, advantages, 0.2, ones)

    # d loss / d log ratio = - ratio A / n where nothing is clipped
    want = [0.0, 0.0, 1.3 / 4, -0.7 / 4]
    np.testing.assert_allclose(gradient(loss, log_ratio), want, rtol=1e-5, atol=1e-8)


def test_standardised_advantages_have_mean_0_and_deviation_1():
    rng = np.random.default_rng(0)
    weights = (rng.random(50) < 0.7).astype("float32")
    x = rng.normal(3, 9, 50).astype("float32")
    got = numpy(standardised(x, weights))[weights > 0]
    assert abs(got.mean()) < 1e-5 and got.std() == pytest.approx(1, rel=1e-5)
    # equal advantages say nothing, and no batch without a step that counts is a NaN
    np.testing.assert_array_equal(numpy(standardised(ops.ones(3), ops.ones(3))), 0)
    assert np.isfinite(numpy(standardised(ops.ones(3), ops.zeros(3)))).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"clip_range": 0}, "above 0. Received: clip_range=0"),
        ({"clip_range": -0.2}, "Received: clip_range=-0.2"),
        ({"value_weight": -1}, "Received: value_weight=-1"),
        ({"entropy_weight": "a"}, "Received: entropy_weight='a'"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProximalPolicy(net(4, 3), net(4, 1), Categorical(3), **arguments)
