"""Functions that read and assign Keras variables, compiled on each backend."""

import keras


class RecordingScope(keras.StatelessScope):
    """A stateless scope that sees through to the outer one and remembers writes.

    Keras's own scope forgets which variables were assigned, and a scope inside
    another does not see the outer values. With both mended, a function that reads
    and assigns Keras variables can be run as a pure function anywhere, and what it
    changed can be carried out of it again.

    Attributes:
        written: Dict from id to each variable assigned inside the scope.
        read: Dict from id to each variable whose value came from no scope at all.
    """

    def __init__(self, state_mapping=None):
        super().__init__(state_mapping, collect_losses=True)
        self.written = {}
        self.read = {}
        self.original_scope = None

    def add_update(self, update):
        self.written[id(update[0])] = update[0]
        super().add_update(update)

    def get_current_value(self, variable):
        value = self.state_mapping.get(id(variable))
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        if value is None:
            self.read[id(variable)] = variable
            value = variable._value
        return value

    def updates(self):
        """Values of the written variables, in the order of ``written``."""
        return [self.state_mapping[key] for key in self.written]


def write_back(variables, values):
    """Assign what a pure function returned; refuse values that would leak."""
    from keras.src.backend.common.stateless_scope import get_stateless_scope

    if keras.backend.backend() == "jax" and get_stateless_scope() is None:
        import jax

        leaks = [
            v.path
            for v, x in zip(variables, values, strict=True)
            if isinstance(x, jax.core.Tracer)
        ]
        if leaks:
            raise ValueError(
                "A function that is traced by JAX changed Keras variables, and their "
                "new values would be lost. Compile it with "
                "dlcompanion.backend.compile instead of jax.jit, or call it inside a "
                f"keras.StatelessScope. Received: variables={leaks}"
            )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def compile(fn, jit=True):
    """Compile a function of tensors that may read and assign Keras variables.

    On TensorFlow this is ``tf.function``. On JAX it is ``jax.jit`` of the pure
    function that takes all Keras variables that ``fn`` uses and gives back those that
    it changed, found while tracing: BatchNormalization statistics, seed generators,
    metrics and optimizers work as on TensorFlow, where a bare ``jax.jit`` would freeze
    or lose them. On PyTorch the function runs as it is.

    Args:
        fn: Function of tensors, arrays and structures of them.
        jit: Boolean, whether TensorFlow compiles with XLA. JAX always does.

    Returns:
        A function with the signature of ``fn``.

    Example:
        >>> double = compile(lambda x: 2.0 * x)
        >>> float(double(keras.ops.ones(())))
        2.0
    """
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return tf.function(fn, jit_compile=jit or None, reduce_retracing=True)
    if name == "jax":
        return _Compiled(fn)
    return fn


class _Compiled:
    """jax.jit of a function together with the Keras variables that it uses."""

    def __init__(self, fn):
        import jax

        self.fn = fn
        self.variables = {}  # id -> variable, in the order of the inputs
        self.traced = False
        self.jitted = jax.jit(self.pure)

    def pure(self, values, args, kwargs):
        variables = list(self.variables.values())
        with RecordingScope(zip(variables, values, strict=True)) as scope:
            result = self.fn(*args, **kwargs)
        self.variables.update(scope.read)
        self.variables.update(scope.written)
        order = list(self.variables)
        changed = {str(order.index(k)): scope.state_mapping[k] for k in scope.written}
        return result, changed

    def __call__(self, *args, **kwargs):
        if not self.traced:  # find the variables without compiling anything
            import jax

            jax.eval_shape(self.pure, [], args, kwargs)
            self.traced = True
        while True:
            variables = list(self.variables.values())
            values = [v.value for v in variables]
            result, changed = self.jitted(values, args, kwargs)
            if len(self.variables) == len(variables):
                break  # a trace that met a new variable used it as a constant: again
        write_back([variables[int(i)] for i in changed], list(changed.values()))
        return result


def conditionally(condition, when_true, when_false):
    """Run one of two functions that assign Keras variables and return nothing."""
    if keras.backend.backend() != "jax":
        keras.ops.cond(condition, when_true, when_false)
        return
    import jax

    written = {}

    def pure(fn):
        def run():
            with RecordingScope() as scope:
                fn()
            written.update(scope.written)
            return [scope.get_current_value(v) for v in written.values()]

        return run

    for fn in (when_true, when_false):
        jax.eval_shape(pure(fn))  # finds all variables that either one assigns
    values = jax.lax.cond(condition, pure(when_true), pure(when_false))
    write_back(written.values(), values)


def repeat(count, body, value):
    """Apply ``value = body(step, value)`` for each step, in one compiled loop.

    As :func:`keras.ops.fori_loop`, whose gradient TensorFlow's XLA cannot compile: it
    wants to be told the number of steps.

    Args:
        count: Integer, the number of steps.
        body: Function of the step, an integer tensor, and the value.
        value: Tensor or structure of tensors to begin with.

    Returns:
        The value after the last step.

    Example:
        >>> float(repeat(3, lambda step, x: 2.0 * x, keras.ops.ones(())))
        8.0
    """
    if keras.backend.backend() != "tensorflow":
        return keras.ops.fori_loop(0, count, body, value)
    import tensorflow as tf

    return tf.while_loop(
        lambda step, _: step < count,
        lambda step, value: (step + 1, body(step, value)),
        (0, value),
        maximum_iterations=count,
    )[1]


def scan(step, carry, rows):
    """Apply ``carry, output = step(carry, row)`` to each row, in one compiled loop.

    As :func:`keras.ops.scan`, which on TensorFlow wants outputs of the carry's shape
    and has no gradient under XLA.

    Args:
        step: Function of the carry and a row, that returns both anew.
        carry: Tensor or structure of tensors to begin with. It keeps its shapes and
            types.
        rows: Structure of tensors ``(rows, ...)``, with a static number of rows.

    Returns:
        The carry after the last row, and the outputs, each ``(rows, ...)``.

    Example:
        >>> total, sums = scan(
        ...     lambda total, x: (total + x, total + x),
        ...     keras.ops.zeros(()),
        ...     keras.ops.ones((3,)),
        ... )
        >>> float(total), keras.ops.convert_to_numpy(sums).tolist()
        (3.0, [1.0, 2.0, 3.0])
    """
    if keras.backend.backend() != "tensorflow":
        # a function of its own: JAX would remember the variables of an earlier trace
        return keras.ops.scan(lambda c, row: step(c, row), carry, rows)
    import tensorflow as tf

    count = keras.tree.flatten(rows)[0].shape[0]

    def one(number, carry):
        return step(carry, keras.tree.map_structure(lambda x: x[number], rows))

    carry, first = one(0, carry)  # says what the outputs are
    if count == 1:
        return carry, keras.tree.map_structure(lambda y: y[None], first)
    arrays = keras.tree.map_structure(
        lambda y: tf.TensorArray(y.dtype, count, element_shape=y.shape).write(0, y),
        first,
    )

    def body(number, carry, arrays):
        carry, outputs = one(number, carry)
        arrays = keras.tree.map_structure(
            lambda array, y: array.write(number, y), arrays, outputs
        )
        return number + 1, carry, arrays

    _, carry, arrays = tf.while_loop(
        lambda number, *_: number < count,
        body,
        (1, carry, arrays),
        maximum_iterations=count - 1,
    )
    return carry, keras.tree.map_structure(lambda array: array.stack(), arrays)
