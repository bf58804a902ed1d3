"""Tests of dlcompanion.reinforcement.categorical_q."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion.reinforcement import CategoricalQ, DeepQ, NoisyDense
from dlcompanion.testing import check_model

FILE = Path(__file__).parents[1] / "references/categorical_returns.npz"


def net(inputs=3, actions=2, atoms=5):
    last = [keras.layers.Reshape((actions, atoms))] if atoms else []
    dense = keras.layers.Dense(actions * (atoms or 1))
    return keras.Sequential([keras.Input((inputs,)), dense, *last])


def batch(count=8, inputs=3, actions=2, seed=0):
    rng = np.random.default_rng(seed)
    x, following = rng.normal(size=(2, count, inputs)).astype("float32")
    rewards = rng.normal(size=count).astype("float32")
    discounts = (0.9 * (rng.random(count) < 0.7)).astype("float32")
    return x, (
        rng.integers(0, actions, count).astype("int32"),
        rewards,
        following,
        discounts,
    )


def test_contract():
    x, y = batch()
    check_model(
        CategoricalQ,
        lambda: {"network": net(), "support": [-1.0, 0.0, 1.0, 2.0, 4.0]},
        x,
        y,
        compile_kwargs={"optimizer": "adam"},
    )


class Fixed(CategoricalQ):
    """Answers with logits that were worked out before."""

    def outputs_of(self, network, observations):
        return ops.convert_to_tensor(self.answers[network is self.network])


@pytest.mark.parametrize("double", [False, True])
def test_cross_entropy_is_that_of_rlax(double):
    with np.load(FILE) as file:
        rlax = {name: file[name] for name in file.files}
    learner = Fixed(
        net(3, 3, 7), support=rlax["in/even/support"].tolist(), double=double
    )
    object.__setattr__(learner, "answers", [rlax["in/following"], rlax["in/choice"]])
    columns = [rlax[f"in/{name}"] for name in ("rewards", "following", "discounts")]
    targets = learner.targets(*map(ops.convert_to_tensor, columns))
    np.testing.assert_allclose(ops.convert_to_numpy(targets).sum(1), 1.0, rtol=1e-5)
    object.__setattr__(learner, "answers", [None, rlax["in/logits"]])
    weights = np.random.default_rng(0).uniform(size=16).astype("float32")
    loss, (_, errors) = learner.judge(
        None, ops.convert_to_tensor(rlax["in/actions"]), targets, weights
    )
    want = rlax["out/double" if double else "out/cross_entropy"]
    assert float(loss) == pytest.approx((weights * want).mean(), rel=1e-5)
    p = ops.convert_to_numpy(targets)
    entropy = -np.where(p > 0, p * np.log(np.maximum(p, 1e-30)), 0.0).sum(axis=1)
    errors = ops.convert_to_numpy(errors)
    np.testing.assert_allclose(errors, want - entropy, rtol=1e-4, atol=1e-5)
    assert (errors > -1e-6).all()  # a divergence


def test_values_are_the_means():
    learner = CategoricalQ(net(), support=[0.0, 1.0, 2.0, 3.0, 10.0])
    x, _ = batch()
    logits = ops.convert_to_numpy(learner.network(x))
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    want = (p * [0.0, 1.0, 2.0, 3.0, 10.0]).sum(axis=-1)
    np.testing.assert_allclose(ops.convert_to_numpy(learner(x)), want, rtol=1e-5)


def test_without_support_it_is_deep_q():
    x, y = batch()
    ours, plain = CategoricalQ(net(atoms=None)), DeepQ(net(atoms=None))
    plain.network.set_weights(ours.network.get_weights())
    for learner in (ours, plain):
        learner.build((None, 3))
        learner.compile(keras.optimizers.SGD(0.1))
        learner.train_on_batch(x, y)
    for a, b in zip(ours.get_weights(), plain.get_weights(), strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_noise_is_for_learning():
    layers = [keras.Input((3,)), NoisyDense(2, seed=0)]
    learner = CategoricalQ(keras.Sequential(layers), noisy=True)
    x = ops.ones((1, 3))
    np.testing.assert_array_equal(*(ops.convert_to_numpy(learner(x)) for _ in range(2)))
    noisy = [
        ops.convert_to_numpy(learner.outputs_of(learner.network, x)) for _ in range(2)
    ]
    assert (noisy[0] != noisy[1]).any()


def test_rejects():
    with pytest.raises(ValueError, match="support must be increasing"):
        CategoricalQ(net(), support=[1.0, 0.0])
