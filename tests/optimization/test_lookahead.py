"""Tests of dlcompanion.optimization.lookahead."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from dlcompanion.optimization import Lookahead
from dlcompanion.testing import check_optimizer

REFERENCE = np.load(Path(__file__).parents[1] / "references" / "lookahead.npz")
META = json.loads(str(REFERENCE["meta"]))


def walk(optimizer, starts, gradients):
    """The parameters after every step under fixed gradients."""
    weights = [keras.Variable(p) for p in starts]
    path = []
    for step in range(len(gradients[0])):
        grads = [keras.ops.convert_to_tensor(g[step]) for g in gradients]
        optimizer.apply(grads, weights)
        path.append([np.array(keras.ops.convert_to_numpy(w)) for w in weights])
    return [np.stack(steps) for steps in zip(*path, strict=True)]


def test_contract():
    check_optimizer(Lookahead, {"inner_optimizer": "adam", "k": 3, "alpha": 0.8})


@pytest.mark.parametrize(
    ("case", "inner"),
    [
        ("torch_adam", lambda r: keras.optimizers.Adam(r, epsilon=META["epsilon"])),
        ("torch_sgd", lambda r: keras.optimizers.SGD(r)),
        ("optax_adam", lambda r: keras.optimizers.Adam(r, epsilon=META["epsilon"])),
        ("optax_momentum", lambda r: keras.optimizers.SGD(r, momentum=0.9)),
    ],
)
def test_fifty_steps_of_the_reference_libraries(case, inner):
    optimizer = Lookahead(inner(META["rate"]), k=META["k"], alpha=META["alpha"])
    starts = [REFERENCE[f"in/p{i}"] for i in range(2)]
    gradients = [REFERENCE[f"in/g{i}"] for i in range(2)]
    for i, path in enumerate(walk(optimizer, starts, gradients)):
        np.testing.assert_allclose(
            path, REFERENCE[f"out/{case}/{i}"], rtol=1e-5, atol=2e-6
        )


def random_problem(steps=12):
    rng = np.random.default_rng(3)
    return [rng.normal(size=4).astype("float32")], [
        rng.normal(size=(steps, 4)).astype("float32")
    ]


def test_alpha_one_is_the_inner_optimizer():
    starts, gradients = random_problem()
    wrapped = walk(Lookahead(keras.optimizers.Adam(0.1), alpha=1.0), starts, gradients)
    plain = walk(keras.optimizers.Adam(0.1), starts, gradients)
    np.testing.assert_allclose(wrapped[0], plain[0], rtol=1e-6)


def test_slow_weights_cut_the_line_between_the_synchronizations():
    starts, gradients = random_problem(steps=4)
    optimizer = Lookahead(keras.optimizers.SGD(0.1), k=4, alpha=0.25)
    (path,) = walk(optimizer, starts, gradients)
    alone = starts[0] - 0.1 * gradients[0].sum(axis=0)
    expected = starts[0] + 0.25 * (alone - starts[0])
    np.testing.assert_allclose(path[-1], expected, rtol=1e-5)
    slow = keras.ops.convert_to_numpy(optimizer.slow_weights[0])
    np.testing.assert_allclose(slow, expected, rtol=1e-5)


def test_weights_loaded_before_the_first_step_are_where_it_starts():
    weight = keras.Variable(np.zeros(2, "float32"))
    optimizer = Lookahead(keras.optimizers.SGD(1.0), k=1, alpha=0.5)
    optimizer.build([weight])
    weight.assign(np.array([10.0, 20.0]))
    optimizer.apply([keras.ops.convert_to_tensor([1.0, 1.0])], [weight])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), [9.5, 19.5])


def test_accumulated_micro_batches_are_one_step():
    starts, gradients = random_problem(steps=12)
    pairs = [gradients[0].reshape(6, 2, 4).mean(axis=1)]
    accumulating = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    micro = walk(Lookahead(accumulating, k=3), starts, gradients)[0][1::2]
    whole = walk(Lookahead(keras.optimizers.SGD(0.1), k=3), starts, pairs)[0]
    np.testing.assert_allclose(micro, whole, rtol=1e-5, atol=1e-6)


def test_a_constraint_holds_after_the_step_back():
    weight = keras.Variable(np.array([3.0, 4.0], "float32"))
    weight.constraint = keras.constraints.UnitNorm(axis=0)
    optimizer = Lookahead(keras.optimizers.SGD(0.1), k=1)
    optimizer.apply([keras.ops.convert_to_tensor([0.3, -2.0])], [weight])
    norm = np.linalg.norm(keras.ops.convert_to_numpy(weight))
    np.testing.assert_allclose(norm, 1.0, rtol=1e-5)


@pytest.mark.once
def test_stationary_variance_of_the_noisy_quadratic():
    """Proposition 2 of the paper, as a law of the update rule."""
    rate, k, alpha = 0.5, 5, 0.5
    rng = np.random.default_rng(0)
    weight = keras.Variable(np.zeros(20_000, "float32"))
    optimizer = Lookahead(keras.optimizers.SGD(rate), k=k, alpha=alpha)
    for _ in range(8 * k):
        noise = rng.normal(size=20_000).astype("float32")
        gradient = keras.ops.convert_to_numpy(weight) - noise
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
    r = (1 - rate) ** k
    expected = rate / (2 - rate) * alpha * (1 + r) / (2 - alpha * (1 - r))
    measured = np.var(keras.ops.convert_to_numpy(weight))
    np.testing.assert_allclose(measured, expected, rtol=0.05)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"k": 0}, "k must be an integer of at least 1"),
        ({"k": 2.5}, "k must be an integer of at least 1"),
        ({"alpha": 0.0}, r"alpha must lie in \(0, 1\]"),
        ({"alpha": 1.5}, r"alpha must lie in \(0, 1\]"),
    ],
)
def test_rejects_degenerate_arguments(bad, message):
    with pytest.raises(ValueError, match=message):
        Lookahead("sgd", **bad)


def test_rejects_loss_scaling_on_the_inside():
    inner = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    with pytest.raises(ValueError, match="Loss scaling goes outside"):
        Lookahead(inner)
