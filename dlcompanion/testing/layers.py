"""check_layer: what a layer promises to every model that it is put into."""

import inspect

import keras
import numpy as np
from keras import ops

from dlcompanion.testing import common
from dlcompanion.testing.common import Subject, leaves, restore, snapshot
from dlcompanion.testing.errors import run_checks
from dlcompanion.testing.layer_checks import CHECKS


def check_layer(
    layer_class,
    init_kwargs,
    inputs,
    *,
    output_shape=None,
    training=None,
    batch_independent=True,
    mask="auto",
    symbolic_shapes=None,
    large=100.0,
    call_kwargs=None,
    skip=(),
):
    """Check that a layer keeps the promises that Keras's own layers keep.

    The checks, in this order, with the names that ``skip`` and
    :class:`ConformanceError` use: ``config``, ``build``, ``shape``, ``seed``,
    ``batch``, ``mask``, ``freeze``, ``gradient``, ``jit``, ``reload``, ``clone``,
    ``dynamic``, ``float16``, ``bfloat16`` (the mixed policies), ``pure_half`` (the
    policies float16 and bfloat16), ``float64`` (under that ``floatx``; not on JAX,
    which has none), and ``numpy_data`` (arrays of float64). Calls
    :func:`keras.utils.set_random_seed`.

    Args:
        layer_class: The layer's class.
        init_kwargs: Dictionary of arguments of the class, or a function that
            returns one.
        inputs: NumPy array, or list or dictionary of them: the first argument of
            the layer. A dictionary whose keys are arguments of ``call`` is passed
            by keyword. The first axis is the batch, of at least 2 examples.
        output_shape: Expected shape with the batch size, or a list of them.
        training: ``True`` or ``False`` to check this mode only, ``None`` for both.
        batch_independent: ``True`` if row i of the output depends on row i of the
            inputs alone, ``"inference"`` if so in inference only
            (BatchNormalization), ``False`` if rows are not examples (graphs).
        mask: ``False`` leaves masking out. ``"auto"`` checks it where ``call`` has an
            argument ``mask`` and the inputs are one array of rank 3 or more, ``True``
            there without this argument, too; and either of them where the layer treats
            each step of ``(batch, time, features)`` by itself: it must hand the mask
            on, and masked steps change neither losses nor state. Inputs of rank 2 are
            made into sequences for it.
        symbolic_shapes: Shapes like ``inputs``, with ``None`` where a size may
            change. By default the first axis of each.
        large: Largest absolute value of the inputs of the float16 check.
        call_kwargs: Dictionary of further arguments of the call, same for all.
        skip: Names of checks that do not apply.

    Raises:
        ConformanceError: At the first promise that is broken.
        ValueError: If an argument of the check itself is wrong.

    Example:
        >>> x = np.ones((4, 3), "float32")
        >>> check_layer(keras.layers.Dense, {"units": 2}, x, output_shape=(4, 2))
    """
    if batch_independent not in (True, False, "inference"):
        raise ValueError(
            "batch_independent must be True, False or 'inference'. "
            f"Received: batch_independent={batch_independent!r}"
        )
    subject = _Layer(layer_class, init_kwargs, inputs, call_kwargs or {})
    subject.output_shape = output_shape
    subject.modes = (False, True) if training is None else (bool(training),)
    subject.batch_independent = batch_independent
    subject.mask = mask
    subject.shapes = symbolic_shapes
    subject.large = large
    keras.utils.set_random_seed(0)
    run_checks(subject, CHECKS, skip)


class _Layer(Subject):
    """A layer class with its inputs; one built layer is shared by the checks."""

    def __init__(self, layer_class, init_kwargs, inputs, call_kwargs):
        super().__init__("layer", layer_class, init_kwargs)
        self.inputs = keras.tree.map_structure(np.asarray, inputs)
        self.call_kwargs = call_kwargs
        parameters = inspect.signature(layer_class.call).parameters
        self.by_keyword = isinstance(inputs, dict) and set(inputs) <= set(parameters)
        self.has_mask = "mask" in parameters
        for array in keras.tree.flatten(self.inputs):
            if array.ndim == 0 or array.shape[0] < 2:
                raise ValueError(
                    "inputs need a first axis of at least 2 examples. "
                    f"Received: shape={array.shape}"
                )
            if array.dtype == np.float64:
                raise ValueError(
                    "inputs must not be float64, which JAX does not have: use "
                    f"x.astype('float32'). Received: dtype={array.dtype}"
                )

    def built(self):
        """The shared layer, built by a call."""
        if not hasattr(self, "_layer"):
            self._layer = self.make()
            self.call(self._layer, self.inputs, training=self.modes[-1])
        return self._layer

    def call(self, layer, inputs, **kwargs):
        kwargs = {**self.call_kwargs, **kwargs}
        if self.by_keyword:
            return layer(**inputs, **kwargs)
        return layer(inputs, **kwargs)

    def outputs(self, layer, inputs, **kwargs):
        tensors = keras.tree.map_structure(ops.convert_to_tensor, inputs)
        return leaves(self.call(layer, tensors, **kwargs))

    def repeatable(self, layer, inputs, **kwargs):
        """Outputs from the layer's present state, which is put back after."""
        state = snapshot(layer.variables)
        outputs = self.outputs(layer, inputs, **kwargs)
        restore(layer.variables, state)
        return outputs

    def symbolic(self):
        """Keras inputs in the structure of the inputs."""
        shapes = self.shapes
        if shapes is None:
            arrays = keras.tree.flatten(self.inputs)
            shapes = [(None, *a.shape[1:]) for a in arrays]
        else:
            if isinstance(shapes, dict):
                shapes = [shapes[key] for key in sorted(shapes)]
            elif not common.is_nested(shapes):
                shapes = [shapes]
        made = [
            keras.Input(batch_shape=tuple(s), dtype=str(a.dtype))
            for s, a in zip(shapes, keras.tree.flatten(self.inputs), strict=True)
        ]
        return keras.tree.pack_sequence_as(self.inputs, made)

    def model(self, layer):
        """A functional model around the layer, compiled, with arrays to fit."""
        inputs = self.symbolic()
        outputs = keras.tree.flatten(self.call(layer, inputs))
        kept = [i for i, o in enumerate(outputs) if common.is_float(o)]
        if not kept:
            return None
        outputs = [outputs[i] for i in kept]
        model = keras.Model(
            keras.tree.flatten(inputs), outputs if len(outputs) > 1 else outputs[0]
        )
        model.compile(common.momentum(), "mse", jit_compile=common.JIT)
        eager = self.repeatable(layer, self.inputs, training=False)
        rng = np.random.default_rng(0)
        targets = [rng.normal(size=eager[i].shape).astype("float32") for i in kept]
        data = keras.tree.flatten(self.inputs)
        x = data if len(data) > 1 else data[0]
        return model, x, targets if len(targets) > 1 else targets[0]
