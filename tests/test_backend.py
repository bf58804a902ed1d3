"""Tests of dlcompanion.backend."""

import ast
import importlib
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from keras import ops

from dlcompanion import autodiff, backend


def found(module, path):
    """The object at ``path`` in ``module``; ``Name()`` means an instance of it."""
    thing = importlib.import_module(module)
    for name in path.split("."):
        thing = getattr(thing, name.removesuffix("()"))
        if name == "Variable()":
            thing = keras.Variable(0.0)
        elif name == "Trainer()":
            thing = keras.Sequential()
            thing.compile()
        elif name == "BaseOptimizer()":
            thing = keras.optimizers.SGD(use_ema=True)
            thing.build([keras.Variable(0.0)])
    return thing


@pytest.mark.parametrize("module, path", backend.PRIVATE)
def test_the_private_part_of_keras_is_still_there(module, path):
    try:
        found(module, path)
    except (ImportError, AttributeError):
        pytest.fail(
            f"Keras {keras.__version__} no longer has the private {module}.{path}, on "
            "which dlcompanion/backend.py relies: find its successor, or narrow the "
            "supported versions of Keras in pyproject.toml."
        )


def test_the_canary_names_a_missing_part():
    with pytest.raises(AttributeError):
        found("keras.src.layers.layer", "Layer._no_such_method")


def test_every_private_import_is_on_the_list():
    imported = {
        (node.module, alias.name)
        for file in Path(backend.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("keras.src")
        for alias in node.names
    }
    listed = {(module, path.split(".")[0]) for module, path in backend.PRIVATE}
    assert imported and imported <= listed


def private_names():
    """The private attributes of objects of Keras that this package handles."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    averaging = {"use_ema": True, "gradient_accumulation_steps": 2}
    model.compile(keras.optimizers.SGD(**averaging), "mse", metrics=["mse"])
    model.optimizer.build(model.trainable_variables)
    things = [
        model,
        model.layers[0],
        model.optimizer,
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
        keras.optimizers.schedules.CosineDecay(0.1, 1),
        keras.metrics.Mean(),
        keras.losses.MeanSquaredError(),
        keras.callbacks.History(),
        keras.utils.PyDataset(),
        keras.Variable(1.0),
        keras.random.SeedGenerator(1),
        keras.StatelessScope(),
        keras.KerasTensor((1,)),
    ]
    names = {name for thing in things for name in dir(thing)}
    return {name for name in names if name[0] == "_" and name[:2] != "__"}


def private_uses(source, names):
    """Lines that read, set, ask for by string, or override one of these attributes."""
    found = []
    for node in ast.walk(source):
        if isinstance(node, ast.Attribute):
            found.append((node.attr, node.lineno))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "getattr",
            "hasattr",
            "setattr",
        ):
            found.append((getattr(node.args[1], "value", None), node.lineno))
        elif isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
            found += [(method.name, method.lineno) for method in methods]
    return [(name, line) for name, line in found if name in names]


def test_every_private_attribute_in_the_package_is_on_the_list():
    package, names = Path(backend.__file__).parents[1], private_names()
    listed = {path.split(".")[-1] for _, path in backend.PRIVATE}
    unlisted = [
        f"{file.relative_to(package)}:{line}: {name}"
        for file in sorted(package.rglob("*.py"))
        for name, line in private_uses(ast.parse(file.read_text()), names)
        if name not in listed
    ]
    assert not unlisted, "\n".join(unlisted)


@pytest.mark.parametrize(
    "source",
    [
        "optimizer._overwrite_model_variables_with_average_value(v)",
        "x = model._loss_tracker.result()",
        "getattr(layer, '_trainable', None)",
        "class A(keras.Model):\n    def _flatten_layers(self):\n        pass",
    ],
)
def test_the_scan_sees_a_private_attribute(source):
    assert private_uses(ast.parse(source), private_names())


def test_require_returns_the_module_or_names_the_extra():
    assert backend.require("json", "datasets").loads("[1]") == [1]
    with pytest.raises(
        ImportError, match=r'pip install "dlcompanion\[reinforcement\]"'
    ):
        backend.require("no_such_module_at_all", "reinforcement")


class Counter(keras.layers.Layer):
    """A layer with every kind of state: weights, statistics, seeds, a metric."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(3)
        self.normalization = keras.layers.BatchNormalization(momentum=0.5)
        self.seen = keras.metrics.Mean()

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.normalization.build(input_shape)

    def call(self, inputs):
        self.seen.update_state(inputs)
        noise = keras.random.normal(ops.shape(inputs), seed=self.seed_generator)
        return self.scale * self.normalization(inputs, training=True) + noise


def state(layer):
    return [numpy(v) for v in layer.variables + layer.seen.variables]


def test_compiled_functions_keep_the_state_that_they_change():
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    eager, compiled = Counter(), Counter()
    eager.build((None, 3))
    compiled.build((None, 3))
    step = backend.compile(compiled, jit=False)
    for batch in (x, 2 * x, x[:4]):  # the last one is traced anew
        np.testing.assert_allclose(numpy(eager(batch)), numpy(step(batch)), rtol=1e-5)
    for a, b in zip(state(eager), state(compiled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert float(compiled.seen.result()) != 0.0


def test_compiled_functions_see_new_values_of_variables():
    w = keras.Variable(2.0, trainable=False)
    double = backend.compile(lambda x: w * x)
    assert float(double(np.float32(3))) == 6.0
    w.assign(5.0)
    assert float(double(np.float32(3))) == 15.0


def test_a_variable_first_met_in_a_later_trace_is_kept_too():
    a = keras.Variable(1.0, trainable=False)
    b = keras.Variable(10.0, trainable=False)

    def step(x):
        (a if x.shape[0] == 2 else b).assign_add(ops.sum(x))
        return a + b

    step = backend.compile(step, jit=False)
    assert float(step(np.ones(2, "float32"))) == 13.0
    assert float(step(np.ones(3, "float32"))) == 16.0
    assert float(step(np.ones(3, "float32"))) == 19.0
    assert (float(a), float(b)) == (3.0, 16.0)


def test_compiled_functions_nest():
    w = keras.Variable(1.0, trainable=False)
    grow = backend.compile(lambda x: w.assign(w * x), jit=False)

    def twice(x):
        grow(x)
        grow(x)
        return w + 0.0

    assert float(backend.compile(twice, jit=False)(np.float32(3))) == 9.0
    assert float(w) == 9.0


@pytest.mark.parametrize("flag", [True, False])
def test_conditionally_runs_one_branch(flag):
    a = keras.Variable(1.0, trainable=False)
    b = keras.Variable(1.0, trainable=False)

    def step(flag):
        backend.conditionally(flag, lambda: a.assign(a + 5), lambda: b.assign(b * 7))

    step(ops.convert_to_tensor(flag))
    assert (float(a), float(b)) == ((6.0, 1.0) if flag else (1.0, 7.0))
    backend.compile(lambda f: (step(f), f)[1], jit=False)(ops.convert_to_tensor(flag))
    assert (float(a), float(b)) == ((11.0, 1.0) if flag else (1.0, 49.0))


def test_a_recording_scope_sees_through_to_the_outer_scope():
    v = keras.Variable(1.0, trainable=False)
    with keras.StatelessScope([(v, ops.full((), 2.0))]) as outer:
        with backend.RecordingScope() as scope:
            assert float(v.value) == 2.0
            v.assign(3.0)
            assert float(v.value) == 3.0
        assert float(v.value) == 2.0
        backend.write_back(scope.written.values(), scope.updates())
        assert float(outer.get_current_value(v)) == 3.0
    assert float(v.value) == 1.0


@pytest.mark.parametrize("jit", [False, True])
def test_a_repeated_step_has_a_gradient_with_xla_too(jit):
    w = keras.Variable(1.5)

    def slope(x):
        def power(w):
            return backend.repeat(4, lambda step, y: w * y, x)

        return autodiff.grad(power)(ops.convert_to_tensor(w))

    found = backend.compile(slope, jit=jit)(ops.convert_to_tensor(2.0))
    np.testing.assert_allclose(numpy(found), 2 * 4 * 1.5**3, rtol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("count", [1, 4])
def test_a_scan_gives_all_outputs_and_a_gradient_with_xla_too(jit, count):
    w, rows = keras.Variable(1.5), np.arange(1.0, count + 1, dtype="float32")

    def step(carry, row):  # the output has another shape than the carry
        carry = [w * carry[0] + row[0]]
        return carry, {"twice": ops.stack([carry[0], 2.0 * carry[0]])}

    def last(rows):
        carry, outputs = backend.scan(step, [ops.zeros(())], [rows])
        return carry[0], outputs["twice"]

    def run(rows):
        return autodiff.value_and_grad(
            lambda: last(rows), variables=[w], has_aux=True
        )()

    (value, outputs), gradients = backend.compile(run, jit=jit)(rows)
    powers = count - np.arange(1, count + 1)
    want = np.polyval(rows, 1.5)
    assert float(value) == pytest.approx(want) and outputs.shape == (count, 2)
    np.testing.assert_allclose(numpy(outputs)[-1], [want, 2 * want], rtol=1e-6)
    slope = np.sum(rows * powers * 1.5 ** np.maximum(powers - 1, 0))
    np.testing.assert_allclose(numpy(gradients[0]), slope, rtol=1e-6)
