"""Every optimizer of tests/optimization/optimizer_table.py: contract and reference.

What is asked of all of them is what users of comparable libraries met: slots that were
not saved, arguments that came back as defaults, skipped steps that left a trace, decay
at every micro-batch.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from helpers.models import state
from keras import layers, ops
from keras.optimizers import LossScaleOptimizer
from optimization.optimizer_table import TABLE
from source_files import PACKAGE, all_of

from dlcompanion import optimization
from dlcompanion.testing import check_optimizer

HERE = Path(__file__).parent
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)

each_line = pytest.mark.parametrize("line", TABLE, ids=lambda line: line.name)
each_case = pytest.mark.parametrize(
    ("line", "case"),
    [(line, case) for line in TABLE for case in line.cases],
    ids=lambda x: x if isinstance(x, str) else x.name,
)


def model_of(optimizer, **compiling):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, "tanh", name="hidden")]
    )
    model.add(layers.Dense(1, name="head"))
    model.compile(optimizer, "mse", **compiling)
    return model


def train(model, epochs=1, batch=4):
    model.fit(X, Y, batch, epochs, shuffle=False, verbose=0)
    return model


def variables_and_gradients(steps, seed=1):
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (4, 3), "bias": (3,)}
    variables = [
        keras.Variable(rng.normal(size=shape).astype("float32"), name=name)
        for name, shape in shapes.items()
    ]
    gradients = [
        [rng.normal(size=shape).astype("float32") for shape in shapes.values()]
        for _ in range(steps)
    ]
    return variables, gradients


def walk(optimizer, steps, seed=1):
    variables, gradients = variables_and_gradients(steps, seed)
    for step in gradients:
        optimizer.apply([ops.convert_to_tensor(g) for g in step], variables)
    return [np.array(numpy(v)) for v in variables]


def innermost(optimizer):
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def equal(found, expected, rtol=0.0, atol=0.0):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# -- the table itself ---------------------------------------------------------


@pytest.mark.once
def test_every_optimizer_of_the_chapter_has_a_line():
    public = {
        getattr(optimization, n) for n in all_of(PACKAGE / "optimization/__init__.py")
    }
    ours = {c for c in public if isinstance(c, type) and issubclass(c, keras.Optimizer)}
    assert ours <= {type(line.make()) for line in TABLE}


@pytest.mark.once
@each_line
def test_the_file_of_an_optimizer_is_short(line):
    module = sys.modules[type(line.make()).__module__]
    lines = set()
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not is_text(node):
            lines |= {node.lineno, node.end_lineno}
    assert len(lines) <= 150


def is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


# -- references ---------------------------------------------------------------


@each_case
def test_all_steps_of_the_reference(line, case):
    reference = np.load(HERE / "references" / f"{line.name}.npz")
    count = sum(key.startswith("in/p") for key in reference.files)
    # a bias is told by its rank, a kernel by its number: v0, v1
    variables = [
        keras.Variable(reference[f"in/p{i}"], name=f"v{i}") for i in range(count)
    ]
    optimizer = line.cases[case](json.loads(str(reference["meta"]))["rate"])
    steps = len(reference["in/g0"])
    assert steps == 50
    for step in range(steps):
        gradients = [reference[f"in/g{i}"][step] for i in range(count)]
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients], variables)
        expected = [reference[f"out/{case}/{i}"][step] for i in range(count)]
        equal([numpy(v) for v in variables], expected, rtol=1e-5, atol=3e-6)


# -- contract -----------------------------------------------------------------


def arguments(optimizer):
    given = optimizer.get_config()
    if "inner_optimizer" in given:
        given["inner_optimizer"] = optimizer.inner_optimizer
    return given


@each_line
def test_contract(line):
    check_optimizer(type(line.make()), lambda: arguments(line.make()), skip=line.skip)


@each_line
def test_arguments_survive_the_configuration(line):
    more = {"weight_decay": 0.01, "clipnorm": 0.5, "use_ema": True, "ema_momentum": 0.5}
    optimizer = line.make(0.05, **more)
    again = type(optimizer).from_config(json.loads(json.dumps(optimizer.get_config())))
    assert again.get_config() == optimizer.get_config()
    equal(walk(again, 20), walk(optimizer, 20))
    assert len(again.variables) == len(optimizer.variables)


@each_line
def test_callbacks_set_the_rate_of_the_innermost_optimizer(line):
    model = model_of(LossScaleOptimizer(line.make(0.5)))
    half = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    plateau = keras.callbacks.ReduceLROnPlateau("loss", 0.1, 1, min_delta=1e9)
    rates = []
    for callback in (half, plateau):
        model.fit(X, Y, epochs=2, callbacks=[callback], verbose=0)
        rates.append(float(innermost(model.optimizer).learning_rate))
    np.testing.assert_allclose(rates, [0.125, 0.0125], rtol=1e-6)


@each_line
def test_a_schedule_is_followed_and_is_not_settable(line):
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    optimizer = line.make(decay)
    walk(optimizer, 2)
    assert float(optimizer.learning_rate) == pytest.approx(0.025)
    with pytest.raises(TypeError, match="learning rate is not settable"):
        optimizer.learning_rate = 0.1
    revived = type(optimizer).from_config(optimizer.get_config())
    assert float(revived.learning_rate) == pytest.approx(0.1)


@each_line
@pytest.mark.parametrize("scheduled", [False, True])
def test_decay_without_a_gradient_is_that_of_keras(line, scheduled):
    """Keras's convention: times 1 - rate * decay in every update."""
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    optimizer = line.make(decay if scheduled else 0.1, weight_decay=0.5)
    (kernel, bias), _ = variables_and_gradients(0)
    slow = fast = np.array(numpy(kernel))
    for step in range(3):
        rate = 0.1 * 0.5**step if scheduled else 0.1
        fast = (1 - 0.5 * rate) * fast
        if line.k and (step + 1) % line.k == 0:
            slow = fast = (slow + fast) / 2
        optimizer.apply([ops.zeros((4, 3)), ops.zeros((3,))], [kernel, bias])
        np.testing.assert_allclose(numpy(kernel), fast, rtol=1e-5)


@each_line
def test_micro_batches_equal_one_batch(line):
    """Decay, clipping and adaptive clipping act on the mean, once an update."""
    more = {"weight_decay": 0.1, "global_clipnorm": 0.5}
    whole = model_of(line.make(0.1, **more))
    parts = model_of(line.make(0.1, gradient_accumulation_steps=3, **more))
    train(whole, epochs=7, batch=12)
    train(parts, epochs=7, batch=4)
    equal(parts.get_weights(), whole.get_weights(), rtol=1e-5, atol=2e-6)
    assert int(parts.optimizer.iterations) == int(whole.optimizer.iterations) == 7


@each_line
def test_skipped_steps_leave_no_trace(line):
    """Two steps of infinite gradients, then one of finite ones: it is the first."""
    model = model_of(LossScaleOptimizer(line.make(), initial_scale=8.0))
    bare = model_of(line.make())
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    start = model.get_weights()
    inner = [np.array(numpy(v)) for v in optimizer.inner_optimizer.variables]
    infinite = X.copy()
    infinite[0, 0] = np.inf
    for _ in range(2):
        model.train_on_batch(infinite, Y)
        equal(model.get_weights(), start)
        equal([numpy(v) for v in optimizer.inner_optimizer.variables], inner)
    assert float(optimizer.dynamic_scale) == 2.0
    model.train_on_batch(X, Y)
    bare.train_on_batch(X, Y)
    equal(model.get_weights(), bare.get_weights(), rtol=1e-5, atol=1e-6)
    assert int(innermost(optimizer).iterations) == 1


@each_line
def test_trains_under_mixed_float16(line):
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        model = model_of(line.make())
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    first = model.evaluate(X, Y, verbose=0)
    train(model, epochs=20, batch=12)
    assert isinstance(model.optimizer, LossScaleOptimizer)
    assert model.evaluate(X, Y, verbose=0) < first
    assert {v.dtype for v in model.trainable_variables} == {"float32"}


@each_line
def test_an_average_of_the_weights(line):
    """Keras's, of the weights that the innermost optimizer leaves."""
    optimizer = line.make(0.1, use_ema=True, ema_momentum=0.5)
    variables, gradients = variables_and_gradients(4)
    average = None
    for step, given in enumerate(gradients):
        synchronizes = line.k and (step + 1) % line.k == 0
        if synchronizes:
            break  # what is averaged are the fast weights, which are not to be seen
        optimizer.apply([ops.convert_to_tensor(g) for g in given], variables)
        now = [np.array(numpy(v)) for v in variables]
        old = now if average is None else average
        average = [0.5 * (a + b) for a, b in zip(old, now, strict=True)]
    optimizer.finalize_variable_values(variables)
    equal([numpy(v) for v in variables], average, rtol=1e-5, atol=1e-6)


@each_line
def test_a_sparse_gradient_is_a_gradient(line):
    def embedded(**compiling):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((2,), dtype="int32")])
        model.add(layers.Embedding(5, 3))
        model.add(layers.Dense(1))
        model.compile(line.make(0.1), "mse", **compiling)
        model.fit(np.array([[1, 3], [3, 0]]), np.ones((2, 2, 1)), verbose=0)
        return model.get_weights()

    equal(embedded(), embedded(run_eagerly=True), rtol=1e-4, atol=1e-6)


# -- resuming -----------------------------------------------------------------

RESUME = """
import sys, keras, numpy as np, dlcompanion
sys.path[:0] = [{here!r}, {here!r} + "/optimization"]
from test_optimizer_table import train, state
for name in {names!r}:
    model = keras.models.load_model(f"{folder}/{{name}}.keras")
    loaded = state(model)
    resumed = state(train(model, 2))
    np.savez(f"{folder}/{{name}}.npz", *loaded, *resumed)
"""


def test_resumes_exactly_in_a_new_process(tmp_path):
    """Four epochs are two, a file, and two in a new process."""
    wanted, saved = {}, {}
    for line in TABLE:
        for scaled in (False, True) if line.name == "three_wrappers" else (False,):
            name = f"{line.name}_{scaled}"
            outer = LossScaleOptimizer if scaled else lambda optimizer: optimizer
            wanted[name] = state(train(model_of(outer(line.make(0.05))), 4))
            model = train(model_of(outer(line.make(0.05))), 2)
            fresh = model_of(outer(line.make(0.05)))
            fresh.optimizer.build(fresh.trainable_variables)
            saved[name] = state(model)
            changed = [
                not np.array_equal(a, b)
                for a, b in zip(saved[name], state(fresh), strict=True)
                if a.size > 1
            ]
            assert np.mean(changed) > 0.7, name  # the file has more than zeros
            model.save(tmp_path / f"{name}.keras")
    program = RESUME.format(here=str(HERE), folder=str(tmp_path), names=list(wanted))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    for name, expected in wanted.items():
        with np.load(tmp_path / f"{name}.npz") as file:
            found = [file[f"arr_{i}"] for i in range(len(file.files))]
        half = len(expected)
        assert len(found) == 2 * half, name
        equal(found[:half], saved[name])
        equal(found[half:], expected, rtol=1e-6, atol=1e-7)
