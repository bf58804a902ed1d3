"""Tests of dlcompanion.autodiff: against finite differences on every backend."""

import tracemalloc

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from keras import ops

from dlcompanion import autodiff, backend
from dlcompanion.autodiff import grad, hessian_vector_product, jacobian, value_and_grad

# JAX has no float64 unless asked for, and Keras's matmul on PyTorch casts it down:
# there the differences are coarser.
DTYPE = "float64" if keras.backend.backend() == "tensorflow" else "float32"
STEP, TOLERANCE = (2e-2, 5e-3) if DTYPE == "float32" else (1e-5, 1e-7)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(DTYPE)


def finite_differences(f, x):
    """Central differences of a tensor-valued function of one array."""
    f, columns = backend.compile(f, jit=False), []
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = STEP
        columns.append(numpy(f(x + step)) - numpy(f(x - step)))
    table = np.stack(columns, axis=-1) / (2 * STEP)
    return table.reshape(*table.shape[:-1], *x.shape)


def close(actual, expected, tolerance=TOLERANCE):
    actual, expected = numpy(actual), numpy(expected)
    assert actual.shape == expected.shape
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual / scale, expected / scale, atol=tolerance)


def network(x):
    """A scalar function with matrix products, saturation, maxima and logs."""
    w1, w2 = (
        ops.convert_to_tensor(normal(3, 5, seed=1) / 2),
        ops.convert_to_tensor(normal(5, 4, seed=2) / 2),
    )
    hidden = ops.tanh(ops.matmul(x, w1))
    scores = ops.matmul(ops.sigmoid(hidden), w2)
    return ops.mean(ops.logsumexp(scores, axis=-1) - ops.log(1.0 + scores[:, 0] ** 2))


# -- functions of arrays ------------------------------------------------------------


def test_gradient_is_the_finite_difference():
    x = normal(2, 3)
    value, gradient = value_and_grad(network)(x)
    close(gradient, finite_differences(network, x))
    close(value, network(x), 1e-6)


def test_second_order_is_the_finite_difference_of_the_first():
    x, v = normal(2, 3), normal(2, 3, seed=5)
    hessian = jacobian(grad(network))(x)
    close(hessian, finite_differences(grad(network), x))
    close(hessian, np.transpose(numpy(hessian), (2, 3, 0, 1)), 1e-6)
    product = np.tensordot(numpy(hessian), v, axes=2)
    close(hessian_vector_product(network)(x, v), product, 1e-5)


def test_value_and_grad_can_be_differentiated_again():
    def penalized(x):  # a gradient penalty: value and gradient both count
        value, gradient = value_and_grad(network)(x)
        return value + ops.sum(gradient**2)

    x = normal(2, 3)
    close(grad(penalized)(x), finite_differences(penalized, x))


def test_powers_down_to_the_fourth_derivative():
    derivative = grad(grad(grad(grad(lambda x: x**5))))
    close(derivative(2.0), 240.0, 1e-5)


def test_a_step_of_descent_inside_is_differentiated_through():
    """MAML: the gradient passes through the inner gradient step."""
    net = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(6, "tanh", dtype=DTYPE),
            keras.layers.Dense(1, dtype=DTYPE),
        ]
    )
    support, query = normal(8, 2, seed=3), normal(8, 2, seed=4)

    def error(weights, x):
        y, _ = net.stateless_call(weights, [], x)
        return ops.mean((y[:, 0] - ops.sin(3 * x[:, 0])) ** 2)

    def adapted(weights, second_order=True):
        steps = grad(lambda w: error(w, ops.convert_to_tensor(support)))(weights)
        if not second_order:
            steps = [ops.stop_gradient(s) for s in steps]
        weights = [w - 0.3 * s for w, s in zip(weights, steps, strict=True)]
        return error(weights, ops.convert_to_tensor(query))

    start = [numpy(w) for w in net.trainable_variables]

    def of_kernel(kernel):
        return adapted([ops.convert_to_tensor(w) for w in [kernel, *start[1:]]])

    full = numpy(grad(adapted)(start)[0])
    close(full, finite_differences(of_kernel, start[0]))
    first_order = numpy(grad(lambda w: adapted(w, second_order=False))(start)[0])
    assert np.abs(full - first_order).max() > 0.02


def test_argnums_chooses_the_arguments():
    def f(x, y, scale=1.0):
        return scale * ops.sum(x * y**2)

    x, y = (ops.convert_to_tensor(normal(3, seed=n)) for n in (0, 1))
    close(grad(f)(x, y), y**2, 1e-6)
    close(grad(f, argnums=1)(x, y), 2 * x * y, 1e-6)
    close(grad(f, argnums=-1)(x, y, scale=3.0), 6 * x * y, 1e-6)
    by_y, by_x = grad(f, argnums=(1, 0))(x, y)
    close(by_y, 2 * x * y, 1e-6)
    close(by_x, y**2, 1e-6)
    assert isinstance(jacobian(f, argnums=(0,))(x, y), tuple)


def test_structures_come_back_as_they_were():
    tree = {"a": [normal(2), normal(2, seed=1)], "b": (normal(2, seed=2),)}

    def f(tree):
        return ops.sum(tree["a"][0] * tree["a"][1] ** 2 * tree["b"][0])

    gradient = grad(f)(tree)
    keras.tree.assert_same_structure(gradient, tree)
    close(gradient["a"][1], 2 * tree["a"][0] * tree["a"][1] * tree["b"][0], 1e-6)
    table = jacobian(lambda t: t["a"][0] * t["b"][0])(tree)
    close(table["a"][0], np.diag(tree["b"][0]), 1e-6)
    close(table["a"][1], np.zeros((2, 2)))
    product = hessian_vector_product(f)(tree, tree)
    close(product["b"][0], 3 * tree["a"][0] * tree["a"][1] ** 2, 1e-5)


def test_aux_is_passed_on():
    def f(x):
        return ops.sum(x**2), {"x": x, "name": "parabola"}

    x = normal(3)
    gradient, aux = grad(f, has_aux=True)(x)
    close(gradient, 2 * x, 1e-6)
    close(aux["x"], x, 1e-6)
    (value, aux), gradient = value_and_grad(f, has_aux=True)(x)
    close(value, np.sum(x**2), 1e-6)
    assert aux["name"] == "parabola"


def test_where_nothing_depends_the_gradient_is_zero():
    x, y = normal(3), normal(2)
    by_x, by_y = grad(lambda x, y: ops.sum(x), argnums=(0, 1))(x, y)
    close(by_x, np.ones(3))
    close(by_y, np.zeros(2))
    close(grad(grad(lambda x: 3.0 * x))(1.0), 0.0)
    close(jacobian(lambda x: ops.stop_gradient(x))(x), np.zeros((3, 3)))


def test_only_the_argument_counts_not_the_same_tensor_elsewhere():
    t = ops.convert_to_tensor(normal(3))
    close(grad(lambda a: ops.sum(a * t))(t), t, 1e-6)


def test_gradients_have_the_dtype_of_their_arguments():
    for dtype in ("float16", "bfloat16", "float32"):
        x = ops.ones((2,), dtype)
        gradient = grad(lambda x: ops.sum(ops.cast(x, "float32") ** 2))(x)
        assert keras.backend.standardize_dtype(gradient.dtype) == dtype


def test_jacobian_of_a_linear_map_is_its_matrix():
    a = normal(4, 3)
    table = jacobian(lambda x: ops.matmul(ops.convert_to_tensor(a), x))(normal(3))
    close(table, a, 1e-6)
    assert numpy(jacobian(lambda x: x[:0])(normal(3))).shape == (0, 3)


def test_results_are_plain_tensors():
    """No graph hangs on them where nobody asked for one (PyTorch)."""
    value, gradient = value_and_grad(network)(normal(2, 3))
    assert np.isfinite(float(value)) and np.asarray(gradient).shape == (2, 3)
    assert np.asarray(jacobian(grad(network))(normal(1, 3))).shape == (1, 3, 1, 3)


# -- functions of Keras variables ---------------------------------------------------


def stateful_model(dropout=0.5, dtype="float32"):
    penalty = keras.regularizers.L2(0.1)
    return keras.Sequential(
        [
            keras.Input((3,), dtype=dtype),
            keras.layers.Dense(4, "tanh", dtype=dtype),
            keras.layers.BatchNormalization(momentum=0.5, dtype=dtype),
            keras.layers.Dropout(dropout, seed=7, dtype=dtype),
            keras.layers.Dense(1, activity_regularizer=penalty, dtype=dtype),
        ],
    )


def state_of(model):
    return [numpy(v).copy() for v in model.variables]


def copy_of(model):
    twin = stateful_model()
    for a, b in zip(twin.variables, model.variables, strict=True):
        a.assign(numpy(b))
    return twin


X = np.random.default_rng(9).normal(size=(8, 3)).astype("float32")


def loss_of(model, x=X):
    return lambda: ops.mean((model(x, training=True) - 1.0) ** 2)


def differences_of(f, variable, step=1e-2):
    """Central differences of ``f()`` by one Keras variable."""
    f = backend.compile(f, jit=False)
    start = numpy(variable).astype("float64")
    table = np.zeros_like(start)
    for i in np.ndindex(start.shape):
        for sign in (1, -1):
            moved = start.copy()
            moved[i] += sign * step
            variable.assign(moved)
            table[i] += sign * float(numpy(f())) / (2 * step)
    return table


def test_gradient_by_variables_is_the_finite_difference():
    model = stateful_model(dropout=0.0)
    kernel = model.trainable_variables[0]
    f = loss_of(model)
    _, (gradient,) = value_and_grad(f, variables=[kernel])()
    close(gradient, differences_of(f, kernel), 2e-3)


def test_variables_and_arrays_give_the_same_gradients():
    model = stateful_model()
    weights = [numpy(v) for v in model.trainable_variables]
    others = [numpy(v) for v in model.non_trainable_variables]

    def pure(weights):
        y, _ = model.stateless_call(weights, others, X, training=True)
        return ops.mean((y - 1.0) ** 2)

    by_arrays = grad(pure)(weights)
    _, gradients = value_and_grad(loss_of(model), variables=model.trainable_variables)()
    for a, b in zip(by_arrays, gradients, strict=True):
        np.testing.assert_allclose(numpy(a), numpy(b), atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_what_the_function_changes_is_kept(compiled):
    model = stateful_model()
    twin = copy_of(model)
    mean = keras.metrics.Mean()

    def f():
        value = loss_of(model)()
        mean.update_state(value)
        return value

    def step(_):
        return value_and_grad(f, variables=model.trainable_variables)()

    if compiled:
        step = backend.compile(step, jit=False)
    values = [step(X[:1])[0] for _ in range(3)]
    expected = [numpy(loss_of(twin)()) for _ in range(3)]
    np.testing.assert_allclose(np.ravel(values), expected, rtol=1e-5)
    np.testing.assert_allclose(numpy(mean.result()), np.mean(expected), rtol=1e-5)
    for a, b in zip(state_of(model), state_of(twin), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert numpy(model.layers[2].seed_generator.state)[1] == 3  # three draws


def test_state_is_kept_inside_a_stateless_scope():
    model = stateful_model()
    variables = model.trainable_variables
    moved = [2.0 * v for v in variables]
    twin = copy_of(model)
    for v, x in zip(twin.trainable_variables, moved, strict=True):
        v.assign(x)
    before = state_of(model)
    with keras.StatelessScope(zip(variables, moved, strict=True)) as scope:
        value, gradients = value_and_grad(loss_of(model), variables=variables)()
        statistic = scope.get_current_value(model.layers[1].moving_mean)
    for a, b in zip(before, state_of(model), strict=True):
        np.testing.assert_array_equal(a, b)
    expected, others = value_and_grad(
        loss_of(twin), variables=twin.trainable_variables
    )()
    close(value, expected, 1e-6)
    close(statistic, twin.layers[1].moving_mean.value, 1e-6)
    for a, b in zip(gradients, others, strict=True):
        close(a, b, 1e-6)


def test_nested_a_gradient_penalty_by_variables():
    """Inner gradient by the inputs, outer one by the variables, state kept."""
    hidden = keras.layers.Dense(4, "tanh", dtype=DTYPE)
    hidden.build((None, 3))
    (kernel, _), mean = hidden.variables, keras.metrics.Mean()
    x = ops.convert_to_tensor(X.astype(DTYPE))

    def penalty():
        def total(x):
            value = ops.sum(hidden(x) ** 2)
            mean.update_state(value)
            return value

        return ops.sum(grad(total)(x) ** 2)

    _, (gradient,) = value_and_grad(penalty, variables=[kernel])()
    np.testing.assert_allclose(mean.result(), numpy(ops.sum(hidden(x) ** 2)), rtol=1e-5)
    assert float(mean.count) == 1.0
    exact = DTYPE == "float64"
    expected = differences_of(penalty, kernel, step=STEP if exact else 5e-3)
    scale = np.abs(expected).max()
    close(gradient / scale, expected / scale, TOLERANCE if exact else 2e-3)


def test_second_order_through_batch_normalization():
    """Right, but for TensorFlow's moments; drop the docstring's warning with this."""
    layer = keras.layers.BatchNormalization(dtype=DTYPE)
    layer.build((None, 2))
    slope = grad(lambda x: ops.sum(ops.tanh(layer(x, training=True)) ** 2))
    x = normal(6, 2)
    error = numpy(jacobian(slope)(x)) - finite_differences(slope, x)
    assert (np.abs(error).max() > 0.05) == (keras.backend.backend() == "tensorflow")
    assert "moments" in autodiff.__doc__


def test_nested_by_variables_twice():
    w = keras.Variable(3.0)
    seen = keras.Variable(0.0, trainable=False)

    def cube():
        seen.assign_add(1.0)
        return w**3

    def slope():
        return value_and_grad(cube, variables=[w])()[1][0]

    value, (second,) = value_and_grad(slope, variables=[w])()
    assert (float(value), float(second), float(seen)) == (27.0, 18.0, 1.0)


def test_inside_keras_own_training_step():
    """A gradient penalty in compute_loss reaches the weights under plain fit."""

    class Smooth(keras.Sequential):
        def compute_loss(
            self, x=None, y=None, y_pred=None, sample_weight=None, training=True
        ):
            slope = grad(lambda x: ops.sum(self(x, training=True) ** 2))(x)
            return ops.mean(slope**2)

    model = Smooth([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign([[0.5]])
    model.compile(keras.optimizers.SGD(0.01))
    model.fit(np.full((4, 1), 2.0, "float32"), verbose=0)
    # slope = 2 w^2 x = 1, its square 4 w^4 x^2, by w: 16 w^3 x^2 = 8
    np.testing.assert_allclose(numpy(model.layers[0].kernel), 0.5 - 0.08, rtol=1e-5)


def test_losses_of_layers_are_there_while_the_function_runs():
    model = stateful_model(dropout=0.0)
    model.layers[-1].bias.assign([1.0])

    def f():
        model(X, training=True)
        return sum(model.losses)

    value, (gradient,) = value_and_grad(f, variables=[model.layers[-1].bias])()
    y = numpy(model(X, training=True))
    np.testing.assert_allclose(value, 0.1 * np.mean(y**2), rtol=1e-4)
    np.testing.assert_allclose(gradient, [0.2 * np.mean(y)], rtol=1e-4)


def test_frozen_variables_and_embeddings():
    table = keras.layers.Embedding(5, 2)
    table.build()
    table.trainable = False
    (variable,) = table.variables
    _, (gradient,) = value_and_grad(
        lambda: ops.sum(table(np.array([1, 1, 3]))), variables=[variable]
    )()
    expected = np.zeros((5, 2))
    expected[1], expected[3] = 2, 1
    np.testing.assert_allclose(numpy(gradient), expected)
    assert not getattr(variable.value, "requires_grad", False)


def test_training_by_hand_equals_fit():
    by_fit = stateful_model()
    by_hand = copy_of(by_fit)
    y = np.random.default_rng(1).normal(size=(8, 1)).astype("float32")
    by_fit.compile(keras.optimizers.Adam(0.01), "mse")
    by_fit.fit(X, y, batch_size=8, epochs=5, shuffle=False, verbose=0)

    optimizer = keras.optimizers.Adam(0.01)
    variables = by_hand.trainable_variables
    optimizer.build(variables)
    loss = keras.losses.MeanSquaredError()

    def step(x, y):
        def f():
            return loss(y, by_hand(x, training=True)) + sum(by_hand.losses)

        value, gradients = value_and_grad(f, variables=variables)()
        optimizer.apply(gradients, variables)
        return value

    step = backend.compile(step, jit=False)
    for _ in range(5):
        step(X, y)
    for a, b in zip(state_of(by_fit), state_of(by_hand), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# -- what the page of backpropagation claims -----------------------------------------


def by_hand(weights, x, y):
    """The four steps but the last, in NumPy: forward, error, backward."""
    kept = [x]
    for kernel in weights[:-1]:
        kept.append(np.tanh(kept[-1] @ kernel))
    scores = kept[-1] @ weights[-1]
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    error = p.copy()
    error[np.arange(len(y)), y] -= 1
    error /= len(y)
    gradients = []
    for kernel, h in zip(reversed(weights), reversed(kept), strict=True):
        gradients.insert(0, h.T @ error)
        error = (error @ kernel.T) * (1 - h**2)
    return -np.log(p[np.arange(len(y)), y]).mean(), gradients


def deep(depth, width=16, classes=3, rows=20):
    sizes = [width] * depth + [classes]
    weights = [
        normal(a, b, seed=n) / np.sqrt(a).astype(DTYPE)
        for n, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True))
    ]
    y = np.random.default_rng(0).integers(classes, size=rows)
    return weights, normal(rows, width), y


def test_hand_written_backpropagation_gives_the_same_gradients():
    weights, x, y = deep(depth=5)

    def loss(weights):
        h = ops.convert_to_tensor(x)
        for kernel in weights[:-1]:
            h = ops.tanh(ops.matmul(h, kernel))
        p = ops.softmax(ops.matmul(h, weights[-1]))
        return -ops.mean(ops.log(ops.take_along_axis(p, y[:, None], axis=1)))

    value, gradients = value_and_grad(loss)(weights)
    expected_value, expected = by_hand(weights, x, y)
    np.testing.assert_allclose(numpy(value), expected_value, rtol=1e-6)
    for a, b in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(numpy(a), b, atol=1e-5 * np.abs(b).max())


def test_memory_for_activations_grows_linearly_with_depth():
    depths, peaks = np.array([4, 8, 16, 32]), []
    for depth in depths:
        arguments = deep(depth, rows=2000)
        tracemalloc.start()
        by_hand(*arguments)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    slope, start = np.polyfit(depths, peaks, 1)
    np.testing.assert_allclose(peaks, start + slope * depths, rtol=0.01)
    assert 1.0 <= slope / arguments[1].nbytes < 1.05  # one array of activations a layer


# -- inside the compilers of the backends -------------------------------------------


def test_compiled_by_the_backend_itself():
    x, name = normal(2, 3), keras.backend.backend()
    second = jacobian(grad(network))
    if name == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(second)
        xla = tf.function(grad(network), jit_compile=True)
        close(xla(tf.constant(x)), grad(network)(x), 1e-6)
    elif name == "jax":
        import jax

        compiled = jax.jit(second)
    else:
        compiled = second
    close(compiled(ops.convert_to_tensor(x)), second(x), 1e-5)


def test_the_compiler_of_the_backend_keeps_state_or_is_refused():
    w, count = keras.Variable(2.0), keras.Variable(0.0, trainable=False, name="count")

    def f():
        count.assign_add(1.0)
        return w**2

    step, name = value_and_grad(f, variables=[w]), keras.backend.backend()
    if name == "jax":  # a bare jax.jit would lose the count
        import jax

        with pytest.raises(ValueError, match=r"dlcompanion.backend.compile.*count"):
            jax.jit(step)()
        assert float(count) == 0.0
        return
    if name == "tensorflow":
        import tensorflow as tf

        step = tf.function(step)
    assert numpy(step()[1][0]) == 4.0 and float(count) == 1.0


# -- errors -------------------------------------------------------------------------


def test_a_loss_must_be_a_scalar():
    with pytest.raises(ValueError, match=r"scalar.*Received: a value of shape \(3,\)"):
        grad(lambda x: x**2)(normal(3))
    w = keras.Variable([1.0, 2.0])
    with pytest.raises(ValueError, match=r"Received: a value of shape \(2,\)"):
        value_and_grad(lambda: w * 1.0, variables=[w])()


@pytest.mark.parametrize("bad", [3, True, np.arange(3), [1.0, np.arange(2)]])
def test_integers_have_no_gradient(bad):
    with pytest.raises(ValueError, match=r"Only floating-point.*args\[0\].*dtype"):
        grad(lambda x: 1.0)(bad)


@pytest.mark.parametrize("bad", [None, "text"])
def test_what_is_no_array_has_no_gradient(bad):
    with pytest.raises(ValueError, match=r"floating-point.*Received: args\[0\]"):
        grad(lambda x: 1.0)(bad)


def test_a_result_must_be_floating_point():
    with pytest.raises(ValueError, match="floating-point tensor.*dtype int32"):
        grad(lambda x: ops.cast(x, "int32"))(1.0)
    with pytest.raises(ValueError, match="type dict"):
        grad(lambda x: {"loss": x})(1.0)
    with pytest.raises(ValueError, match="floating-point"):
        jacobian(lambda x: ops.cast(x, "int32"))(1.0)


def test_unconnected_variables_are_named():
    used, cut = keras.Variable(1.0, name="used"), keras.Variable(1.0, name="cut")
    unused = keras.Variable(1.0, name="unused")
    with pytest.raises(ValueError, match=r"variables=\['cut', 'unused'\]"):
        value_and_grad(
            lambda: used * ops.stop_gradient(cut.value), variables=[used, cut, unused]
        )()


def test_variables_must_be_float_variables():
    with pytest.raises(ValueError, match="must be Keras variables"):
        value_and_grad(lambda: 1.0, variables=[np.ones(2)])
    count = keras.Variable(1, dtype="int32", trainable=False, name="count")
    with pytest.raises(ValueError, match="count of dtype int32"):
        value_and_grad(lambda: 1.0, variables=[count])


@pytest.mark.parametrize("argnums", [1, -2, (0, 1), (), "x"])
def test_argnums_must_exist(argnums):
    with pytest.raises(ValueError, match="argnums must name.*Received: argnums="):
        grad(lambda x: x, argnums=argnums)(1.0)


def test_argnums_must_not_repeat():
    with pytest.raises(ValueError, match="each argument once"):
        grad(lambda x, y: x, argnums=(0, -2))(1.0, 1.0)


def test_aux_must_be_a_pair():
    with pytest.raises(ValueError, match=r"must return \(value, aux\)"):
        grad(lambda x: x, has_aux=True)(1.0)


def test_the_vector_must_fit():
    with pytest.raises(ValueError, match="structure and the shapes of x"):
        hessian_vector_product(network)(normal(2, 3), normal(3, 2))


def test_the_module_documents_all_its_functions():
    for name in ("grad", "value_and_grad", "jacobian", "hessian_vector_product"):
        assert "Example:" in getattr(autodiff, name).__doc__
