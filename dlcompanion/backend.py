"""The one file that imports backend packages and Keras internals.

Everything here hides a difference between TensorFlow, JAX and PyTorch. The rest of
the package is written in ``keras.ops``. Each private name of Keras that is used is
listed in :data:`PRIVATE`, and a test says so by name when one disappears.
"""

import contextlib
import functools
import importlib
import threading
import warnings

import keras
import numpy as np

#: Private names of Keras that this package relies on: (module, attribute path).
PRIVATE = (
    ("keras.src.backend.common.stateless_scope", "get_stateless_scope"),
    ("keras.src.backend.common.stateless_scope", "StatelessScope.add_update"),
    ("keras.src.backend.common.stateless_scope", "StatelessScope.get_current_value"),
    ("keras.src.layers.layer", "Layer._flatten_layers"),
    ("keras.src.layers.layer", "Layer.add_loss"),
    ("keras.src.trainers.trainer", "Trainer._aggregate_additional_loss"),
    ("keras.src.trainers.trainer", "Trainer._assert_compile_called"),
    ("keras.src.trainers.trainer", "Trainer._get_metrics_result_or_logs"),
    ("keras.src.trainers.trainer", "Trainer._symbolic_build"),
    ("keras.src.random.seed_generator", "global_seed_generator"),
    ("keras.src.trainers.data_adapters.array_data_adapter", "ArrayDataAdapter"),
    ("keras.src.trainers.data_adapters.array_slicing", "train_validation_split"),
)


def require(module, extra):
    """Import an optional package where it is needed.

    Args:
        module: String, the module to import, for example ``"gymnasium"``.
        extra: String, the extra of dlcompanion that installs it.

    Returns:
        The module.

    Raises:
        ImportError: If it is not installed; the message names the extra.

    Example:
        >>> require("json", "datasets").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"This needs the package {module!r}, which could not be imported "
            f'({error}). Install it with: pip install "dlcompanion[{extra}]"'
        ) from error


# -- variables inside pure functions (JAX) ------------------------------------------


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


# -- compilation --------------------------------------------------------------------


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


# -- differentiation ----------------------------------------------------------------


def differentiate(f, tensors, variables):
    """Value of a scalar function and its gradients, on any backend.

    Args:
        f: Function of the list ``tensors`` that returns ``(scalar, aux)``.
        tensors: List of float tensors.
        variables: List of Keras variables that ``f`` reads.

    Returns:
        ``(value, aux, tensor_gradients, variable_gradients)``. The gradient of a
        tensor that the value does not depend on is zero, that of a variable ``None``.
    """
    name = keras.backend.backend()
    if name == "tensorflow":
        return _tf_differentiate(f, tensors, variables)
    if name == "jax":
        return _jax_differentiate(f, tensors, variables)
    return _torch_differentiate(f, tensors, variables)


def _tf_differentiate(f, tensors, variables):
    import tensorflow as tf

    values = [v.value for v in variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for source in tensors + values:
            tape.watch(source)
        value, aux = f(tensors)
    gradients = tape.gradient(value, tensors + values)
    gradients = [g if g is None else tf.convert_to_tensor(g) for g in gradients]
    split = len(tensors)
    return value, aux, _zeros(gradients[:split], tensors), gradients[split:]


def _zeros(gradients, tensors):
    pairs = zip(gradients, tensors, strict=True)
    return [keras.ops.zeros_like(t) if g is None else g for g, t in pairs]


def _jax_differentiate(f, tensors, variables):
    import jax

    written, connected = {}, set()

    @jax.custom_vjp
    def probe(values):
        return values

    def forward(values):
        return [v.value for v in values], None

    def backward(_, cotangents):
        zero = jax.custom_derivatives.SymbolicZero
        connected.update(n for n, c in enumerate(cotangents) if type(c) is not zero)
        return (
            [jax.numpy.zeros(c.shape, c.dtype) if type(c) is zero else c
             for c in cotangents],
        )  # fmt: skip

    probe.defvjp(forward, backward, symbolic_zeros=True)

    def pure(tensors, values):
        mapping = zip(variables, probe(values), strict=True) if variables else None
        with RecordingScope(mapping) as scope:
            value, aux = f(tensors)
        written.update(scope.written)
        return value, (aux, scope.updates())

    values = [v.value for v in variables]
    (value, (aux, updates)), (on_tensors, on_values) = jax.value_and_grad(
        pure, argnums=(0, 1), has_aux=True
    )(tensors, values)
    write_back(written.values(), updates)
    on_values = [g if n in connected else None for n, g in enumerate(on_values)]
    return value, aux, on_tensors, on_values


_nesting = threading.local()  # how many of our gradients are being taken (PyTorch)


def _torch_differentiate(f, tensors, variables):
    import torch

    values = [v.value for v in variables]
    with _torch_tracing(tensors, values) as (leaves, again):
        value, aux = f(leaves)
        # whether somebody outside differentiates again is known for arrays only
        again = again and (_nesting.depth > 1 or not variables)
        gradients = [None] * (len(leaves) + len(values))
        if value.requires_grad:
            gradients = torch.autograd.grad(
                value, leaves + values, create_graph=again, allow_unused=True
            )
        if _nesting.depth == 1:
            again = again and _has_other_leaves([value, *gradients], leaves)
    if not again:
        value, aux, gradients = _detached((value, aux, list(gradients)))
    split = len(tensors)
    return value, aux, _zeros(gradients[:split], tensors), list(gradients[split:])


def _torch_jacobian(f, tensors):
    import torch

    with _torch_tracing(tensors, []) as (leaves, again):
        target = f(leaves)
        rows = [[torch.zeros_like(t) for t in leaves]] * target.numel()
        if target.requires_grad:
            rows = [
                torch.autograd.grad(
                    x, leaves, retain_graph=True, create_graph=again, allow_unused=True
                )
                for x in target.reshape(-1)
            ]
            rows = [_zeros(row, leaves) for row in rows]
        shape = tuple(target.shape)
        result = [
            torch.stack(column).reshape(shape + tuple(t.shape))
            if column
            else torch.zeros(shape + tuple(t.shape), dtype=t.dtype)
            for t, column in zip(leaves, zip(*rows, strict=True), strict=True)
        ]
        if _nesting.depth == 1:
            again = again and _has_other_leaves(result, leaves)
    return result if again else _detached(result)


@contextlib.contextmanager
def _torch_tracing(tensors, values):
    """Fresh leaves of the autograd graph, and whether to record the gradient too."""
    import torch

    again = torch.is_grad_enabled()
    frozen = [x for x in values if not x.requires_grad]
    _nesting.depth = getattr(_nesting, "depth", 0) + 1
    try:
        with torch.enable_grad():
            for x in frozen:
                x.requires_grad_(True)
            yield (
                [
                    t.view_as(t)  # only what the function itself does with t counts
                    if again and t.requires_grad
                    else t.detach().requires_grad_()
                    for t in tensors
                ],
                again,
            )
    finally:
        _nesting.depth -= 1
        for x in frozen:
            x.requires_grad_(False)


def _detached(structure):
    import torch

    return keras.tree.map_structure(
        lambda x: x.detach() if isinstance(x, torch.Tensor) else x, structure
    )


def _has_other_leaves(tensors, leaves):
    """Whether the graph of ``tensors`` ends in anything else than ``leaves``."""
    own = {id(x) for x in leaves}
    stack = [x.grad_fn for x in tensors if x is not None and x.grad_fn is not None]
    seen = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in own:
            return True
        stack += [following for following, _ in node.next_functions if following]
    return False


def jacobian(f, tensors):
    """Derivative of a tensor by each of a list of tensors: ``[(*out, *in), ...]``."""
    name = keras.backend.backend()
    if name == "jax":
        import jax

        written = {}

        def pure(tensors):
            with RecordingScope() as scope:
                result = f(tensors)
            written.update(scope.written)
            return result, scope.updates()

        result, updates = jax.jacrev(pure, has_aux=True)(tensors)
        write_back(written.values(), updates)
        return result
    if name == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            target = f(tensors)
        return tape.jacobian(target, tensors, unconnected_gradients="zero")
    return _torch_jacobian(f, tensors)


# -- one step of training -----------------------------------------------------------


def training_step(model, update, args):
    """Run ``update(data)`` as the step that each of Keras's trainers calls.

    TensorFlow and PyTorch call it with ``data``; JAX with ``(state, data)`` and takes
    the new state back. The state is made of the model's trainable, non-trainable,
    optimizer (in training) and metric variables, in this order.
    """
    name = keras.backend.backend()
    if name == "tensorflow":
        return update(args[0])
    if name == "torch":
        import torch

        with torch.no_grad():
            return update(args[0])
    state, data = args
    groups = [model.trainable_variables, model.non_trainable_variables]
    if len(state) == 4:
        groups.append(model.optimizer.variables)
    groups.append(model.metrics_variables)
    mapping = [
        pair
        for variables, values in zip(groups, state, strict=True)
        for pair in zip(variables, values, strict=True)
    ]
    known = {id(v) for v, _ in mapping}
    with RecordingScope(mapping) as scope:
        logs = update(data)
        logs = {k: keras.ops.convert_to_tensor(v) for k, v in logs.items()}
    lost = [v.path for k, v in scope.written.items() if k not in known]
    if lost:
        raise ValueError(
            "A step changed variables that the model does not track, so that their new "
            "values would be lost. Make each an attribute of the model, and give each "
            f"optimizer to compile(). Received: variables={lost}"
        )
    return logs, tuple([scope.get_current_value(v) for v in g] for g in groups)


@contextlib.contextmanager
def collected_losses(model):
    """Collect what the layers of ``model`` pass to ``add_loss`` inside the block."""
    losses = []
    layers = model._flatten_layers()

    def recorder(layer):
        def add_loss(loss):
            type(layer).add_loss(layer, loss)
            losses.extend(keras.tree.flatten(loss))

        return add_loss

    for layer in layers:
        object.__setattr__(layer, "add_loss", recorder(layer))
    try:
        yield losses
    finally:
        for layer in layers:
            object.__delattr__(layer, "add_loss")


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


# -- sums over the edges of a graph -------------------------------------------------


def segment_sum(data, segment_ids, num_segments):
    """Sum the rows of ``data`` that have the same segment, on any backend.

    Keras's own op has a detour through float32 on PyTorch, and is slow there.

    Args:
        data: Float tensor of shape ``(rows, ...)``.
        segment_ids: Integer tensor of shape ``(rows,)``, in any order.
        num_segments: Integer.

    Returns:
        Tensor of shape ``(num_segments, ...)``; an empty segment sums to 0.

    Example:
        >>> segment_sum(keras.ops.ones((3, 1)), [0, 0, 2], 3)[:, 0].tolist()
        [2.0, 0.0, 1.0]
    """
    if keras.backend.backend() != "torch":
        return keras.ops.segment_sum(data, segment_ids, num_segments=num_segments)
    sums = data.new_zeros((num_segments, *data.shape[1:]))
    return sums.index_add(0, keras.ops.convert_to_tensor(segment_ids), data)


class SparseMatrix:
    """A constant sparse matrix that multiplies dense tensors from the left, fast.

    The entries are sorted once. On TensorFlow and JAX a product gathers rows and sums
    them, which XLA compiles well; on PyTorch it is a product in compressed rows, with
    the compressed transpose kept for the gradient. The gradient is a product of the
    same kind, so that products are differentiable as often as one likes.

    Args:
        rows: Integer array of shape ``(entries,)``.
        columns: Integer array of shape ``(entries,)``.
        values: Float array of shape ``(entries,)``; entries of one place add up.
        shape: Tuple of two integers.

    Example:
        >>> matrix = SparseMatrix([0, 2], [1, 1], [2.0, 3.0], (3, 2))
        >>> keras.ops.convert_to_numpy(matrix @ keras.ops.ones((2, 1)))[:, 0]
        array([2., 0., 3.], dtype=float32)
    """

    def __init__(self, rows, columns, values, shape):
        order = np.lexsort((columns, rows))
        self.rows = np.asarray(rows, "int32")[order]
        self.columns = np.asarray(columns, "int32")[order]
        self.values = np.asarray(values, "float32")[order]
        self.shape = tuple(shape)
        self._compressed = {}  # PyTorch: the matrix and its transpose, by device, dtype

    def __matmul__(self, dense):
        """Product with a tensor of shape ``(columns, ...)``."""
        if keras.backend.backend() == "torch":
            return self._torch_matmul(dense)
        values = keras.ops.cast(self.values, dense.dtype)
        values = keras.ops.reshape(values, (-1,) + (1,) * (len(dense.shape) - 1))
        messages = keras.ops.take(dense, self.columns, axis=0) * values
        return keras.ops.segment_sum(messages, self.rows, num_segments=self.shape[0])

    def _torch_matmul(self, dense):
        trailing = tuple(dense.shape[1:])
        if dense.device.type == "meta":  # Keras asks for the shape only
            return dense.new_empty((self.shape[0], *trailing))
        key = (dense.device, dense.dtype)
        if key not in self._compressed:
            matrix = _torch_csr(self.rows, self.columns, self.values, self.shape, key)
            order = np.lexsort((self.rows, self.columns))
            transposed = (self.columns, self.rows, self.values)
            transposed = [entries[order] for entries in transposed]
            transpose = _torch_csr(*transposed, self.shape[::-1], key)
            self._compressed[key] = matrix, transpose
        flat = dense.reshape(dense.shape[0], -1)
        product = _torch_product()(flat, *self._compressed[key])
        return product.reshape(self.shape[0], *trailing)


def _torch_csr(rows, columns, values, shape, key):
    import torch

    starts = np.searchsorted(rows, np.arange(shape[0] + 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)  # "is in beta state"
        return torch.sparse_csr_tensor(
            torch.as_tensor(starts),
            torch.as_tensor(columns, dtype=torch.int64),
            torch.as_tensor(values),
            shape,
            device=key[0],
            dtype=key[1],
        )


@functools.cache
def _torch_product():
    import torch

    class Product(torch.autograd.Function):
        """``matrix @ dense``, whose gradient is such a product again."""

        @staticmethod
        def forward(ctx, dense, matrix, transpose):
            ctx.matrix, ctx.transpose = matrix, transpose
            return matrix @ dense

        @staticmethod
        def backward(ctx, gradient):
            product = Product.apply(gradient, ctx.transpose, ctx.matrix)
            return product, None, None

    return Product.apply


# -- random states, epochs and layers of any model -----------------------------------


def random_state():
    """Random states outside of the model: Keras's own seed, and the backend's.

    TensorFlow's generators cannot be read; its global seed, from which they all come,
    is given instead, for comparison.
    """
    from keras.src.random.seed_generator import global_seed_generator

    state = {"keras": global_seed_generator().state, "tensorflow_seed": None}
    name = keras.backend.backend()
    if name == "tensorflow":
        from tensorflow.python.eager import context

        state["tensorflow_seed"] = context.global_seed()
    elif name == "torch":
        import torch

        state["torch"] = torch.get_rng_state()
    return state


def set_random_state(state):
    """Restore what :func:`random_state` gave, TensorFlow's seed excepted."""
    from keras.src.random.seed_generator import global_seed_generator

    global_seed_generator().state.assign(state["keras"])
    if keras.backend.backend() == "torch":
        import torch

        torch.set_rng_state(torch.as_tensor(state["torch"], dtype=torch.uint8))


def start_at_epoch(model, epoch):
    """Let the running ``fit`` begin at ``epoch``; None: where its caller says."""
    model._initial_epoch = epoch


def flatten_layers(model):
    """All layers of a model, nested ones too, without the model itself."""
    return model._flatten_layers(include_self=False, recursive=True)


# -- an epoch as one program ----------------------------------------------------------


def pack_arrays(x, y, sample_weight, class_weight, split):
    """The tensors that ``fit`` would slice, and those that it would validate on."""
    from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
    from keras.src.trainers.data_adapters.array_slicing import train_validation_split

    arrays, held_out = (x, y, sample_weight), None
    if split:
        arrays, held_out = train_validation_split(arrays, split)
    adapter = ArrayDataAdapter(*arrays, class_weight=class_weight)
    return keras.tree.map_structure(_to_device, adapter._inputs), held_out


def _to_device(array):
    array = keras.ops.convert_to_numpy(array)
    if array.dtype.kind not in "biufV":
        raise ValueError(
            f"The data must be numbers. Received: an array of dtype={array.dtype}"
        )
    dtype = keras.config.floatx() if array.dtype.kind in "fV" else None
    return keras.ops.convert_to_tensor(array, dtype=dtype)


def prepare_fit(model, batch):
    """Build model, metrics and optimizer as ``fit`` does; refuse what cannot be run."""
    model._assert_compile_called("fit_in_memory")
    distributed = keras.distribution.distribution() is not None
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        distributed = tf.distribute.has_strategy()
        distributed |= model.distribute_strategy.num_replicas_in_sync > 1
    if distributed:
        raise ValueError(
            "fit_in_memory runs on one device; use fit for several. "
            f"Received: model={model.name} under a distribution"
        )
    model._symbolic_build(data_batch=batch)


def first_epoch(model, initial_epoch):
    """``initial_epoch``, unless a callback that resumes has set another."""
    return model._initial_epoch or initial_epoch


def epoch_logs(model, logs):
    """The metrics of the model, where they are what the step returned."""
    return dict(model._get_metrics_result_or_logs(logs))


def shuffled(size, seed):
    """A random order of ``range(size)``, decided by ``seed``, two int32."""
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return tf.random.experimental.stateless_shuffle(tf.range(size), seed)
    if name == "jax":
        import jax

        key = jax.random.fold_in(jax.random.key(seed[0]), seed[1])
        return jax.random.permutation(key, size)
    import torch

    generator = torch.Generator().manual_seed((int(seed[0]) << 32) + int(seed[1]))
    return torch.randperm(size, generator=generator).to(_torch_device())


def _torch_device():
    from keras.src.backend.torch.core import get_device

    return get_device()


def epoch_program(model, size, batch_size, shuffle, training):
    """Compile a whole epoch: order, gathering and all steps, the last partial one too.

    The program is kept with the model until the model is compiled again.

    Returns:
        A function of the structure of tensors, each of ``size`` rows, and of a seed of
        two int32, that updates the model and returns the logs of the last step.
    """
    settings = (size, batch_size, shuffle, training)
    settings += (model.jit_compile, model.run_eagerly, len(model.trainable_variables))
    compiled, programs = getattr(model, "_epoch_programs", (None, None))
    if compiled is not model._compile_config:
        programs = {}
        object.__setattr__(model, "_epoch_programs", (model._compile_config, programs))
    if settings not in programs:
        name = keras.backend.backend()
        if name == "tensorflow" and not model.run_eagerly:
            make = _tf_epoch
        elif name == "jax" and not model.run_eagerly:
            make = _jax_epoch
        else:
            make = _plain_epoch
        programs[settings] = make(model, size, batch_size, shuffle, training)
    return programs[settings]


def _tf_epoch(model, size, batch_size, shuffle, training):
    import tensorflow as tf

    full, rest = divmod(size, batch_size)
    step = model.train_step if training else model.test_step

    @tf.function
    def on_rows(data, rows):
        batch = keras.tree.map_structure(lambda a: tf.gather(a, rows), data)
        return keras.tree.map_structure(tf.convert_to_tensor, step(batch))

    def epoch(data, seed):
        order = shuffled(size, seed) if shuffle else tf.range(size)
        logs = {}
        if full:
            traced = on_rows.get_concrete_function(data, order[:batch_size])
            zeros = keras.tree.map_structure(
                lambda spec: tf.zeros(spec.shape, spec.dtype), traced.structured_outputs
            )
            _, logs = tf.while_loop(
                lambda start, logs: start < full * batch_size,
                lambda start, logs: (
                    start + batch_size,
                    on_rows(data, tf.slice(order, [start], [batch_size])),
                ),
                (tf.constant(0), zeros),
                parallel_iterations=1,
            )
        if rest:
            logs = on_rows(data, order[full * batch_size :])
        return logs

    return tf.function(epoch, jit_compile=model.jit_compile or None, autograph=False)


def _jax_state(model, training):
    groups = [model.trainable_variables, model.non_trainable_variables]
    if training:
        groups.append(model.optimizer.variables)
    return [*groups, model.metrics_variables]


def _jax_epoch(model, size, batch_size, shuffle, training):
    import jax

    full, rest = divmod(size, batch_size)
    step = model.train_step if training else model.test_step

    def epoch(state, data, seed):
        def on_rows(state, rows):
            batch = jax.tree.map(lambda a: a[rows], data)
            logs, new = step(tuple(state), batch)
            new = [  # a carry must keep its types
                [jax.numpy.asarray(x, old.dtype) for x, old in zip(n, o, strict=True)]
                for n, o in zip(new, state, strict=True)
            ]
            return new, logs

        order = shuffled(size, seed) if shuffle else jax.numpy.arange(size)
        logs = {}
        if full:
            rows = order[: full * batch_size].reshape(full, batch_size)
            state, logs = jax.lax.scan(on_rows, state, rows)
            logs = jax.tree.map(lambda a: a[-1], logs)
        if rest:
            state, logs = on_rows(state, order[full * batch_size :])
        return logs, state

    compiled = jax.jit(epoch)

    def run(data, seed):
        groups = _jax_state(model, training)
        logs, state = compiled([[v.value for v in g] for g in groups], data, seed)
        for variables, values in zip(groups, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return logs

    return run


def _plain_epoch(model, size, batch_size, shuffle, training):
    step = _plain_step(model, training)

    def run(data, seed):
        order = shuffled(size, seed) if shuffle else keras.ops.arange(size)
        logs = {}
        for start in range(0, size, batch_size):
            rows = order[start : start + batch_size]
            batch = keras.tree.map_structure(lambda a, r=rows: _take(a, r), data)
            logs = step(batch)
        return logs

    if keras.backend.backend() != "torch":
        return run

    def run_in_mode(data, seed):
        model.train(training)
        try:
            return run(data, seed)
        finally:
            model.eval()

    return run_in_mode


def _take(array, rows):
    if keras.backend.backend() == "torch":
        return array.index_select(0, rows)
    return keras.ops.take(array, rows, axis=0)


def _plain_step(model, training):
    name = keras.backend.backend()
    step = model.train_step if training else model.test_step
    if name == "tensorflow":
        return step
    if name == "torch":
        (model.make_train_function if training else model.make_test_function)()
        function = model.train_function if training else model.test_function
        return lambda batch: function([batch])

    def stateful(batch):
        groups = _jax_state(model, training)
        logs, state = step(tuple([v.value for v in g] for g in groups), batch)
        for variables, values in zip(groups, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return logs

    return stateful
