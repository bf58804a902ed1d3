"""check_flow: what an invertible layer promises to the density that it is part of."""

import inspect

import keras
import numpy as np

from dlcompanion.checks import check_number
from dlcompanion.testing.common import Subject, leaves, to_numpy
from dlcompanion.testing.errors import run_checks
from dlcompanion.testing.flow_checks import CHECKS, compiled


def check_flow(
    flow_class,
    init_kwargs,
    x,
    *,
    context=None,
    one_way=False,
    scale=0.3,
    atol=1e-5,
    skip=(),
):
    r"""Check the map of a normalizing flow, its inverse and its log-determinant.

    The component is a layer whose ``call(x, inverse=False)`` returns ``(y, log_det)``
    with :math:`\log |\det \partial y / \partial x|` of shape ``(batch,)``, or a model
    whose ``to_noise(x)`` and ``to_data(z)`` return such pairs and whose ``log_prob(x)``
    is the log-density under standard normal noise. With a context all of them take it
    as ``context``. One component is made and its map run once with ``training=True``,
    for layers that start from their first batch; then its trainable weights are moved,
    since many flows start as the identity.

    The checks, in this order, with the names that ``skip`` and
    :class:`ConformanceError` use:

    - ``config``: as in :func:`check_layer`.
    - ``shape``: a log-determinant for each example, and all outputs are finite.
    - ``inverse``: the inverse undoes the map.
    - ``opposite``: the log-determinants of the two directions have a sum of 0.
    - ``log_det``: the log-determinant is that of the Jacobian of each example.
    - ``batch``: row i of all outputs depends on row i of the inputs alone.
    - ``context``: another context changes each row of the outputs.
    - ``gradient``: the gradient of the log-density reaches every trainable weight, and
      that of map and inverse together is the identity's: 1 by ``x``, 0 by the weights.
    - ``density``: ``log_prob`` of a model is the log-density, and that of a sample is
      what ``sample_and_log_prob`` gives with it, if the model has this method.
    - ``save``: through a ``.keras`` file it stays the same map in every bit.

    Calls :func:`keras.utils.set_random_seed`.

    Args:
        flow_class: The class of the layer or model.
        init_kwargs: Dictionary of arguments of the class, or a function that
            returns one.
        x: NumPy array of shape ``(batch, ...)``, float32, at least 2 examples. The
            Jacobian has a row for each entry of an example: keep them few.
        context: NumPy array of shape ``(batch, context_size)``, or ``None`` for a flow
            that takes none.
        one_way: ``True`` for a flow without an inverse, whose ``call`` needs no
            argument ``inverse`` and which needs no ``to_data``.
        scale: Positive number, the standard deviation of the normal noise that is
            added to each trainable weight.
        atol: Positive number, the largest error of ``inverse`` and ``opposite``. It is
            10 times as large where there are derivatives or densities.
        skip: Names of checks that do not apply.

    Raises:
        ConformanceError: At the first promise that is broken.
        ValueError: If an argument of the check itself is wrong.

    Example:
        >>> from dlcompanion.generative import AffineCoupling, RealNVP
        >>> x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
        >>> check_flow(
        ...     AffineCoupling, lambda: {"conditioner": keras.layers.Dense(4)}, x
        ... )
        >>> check_flow(RealNVP, {"event_size": 3, "hidden_units": (8,)}, x)
    """
    subject = _Flow(flow_class, init_kwargs, x, context)
    subject.one_way = bool(one_way)
    subject.scale = check_number("scale", scale, open_ends=True)
    subject.atol = check_number("atol", atol, open_ends=True)
    keras.utils.set_random_seed(0)
    run_checks(subject, CHECKS, skip)


class _Flow(Subject):
    """A flow with its inputs; one component far from the identity serves all checks."""

    def __init__(self, flow_class, init_kwargs, x, context):
        self.is_model = hasattr(flow_class, "to_noise")
        super().__init__("model" if self.is_model else "layer", flow_class, init_kwargs)
        arrays = [np.asarray(a) for a in (x, context) if a is not None]
        for array in arrays:
            if array.dtype != np.float32 or array.ndim < 2 or array.shape[0] < 2:
                raise ValueError(
                    "x and context must be float32 of shape (batch, ...) with at least "
                    f"2 examples. Received: dtype={array.dtype}, shape={array.shape}"
                )
        if len({len(array) for array in arrays}) > 1:
            raise ValueError(
                "x and context need a row for each example. Received: shapes="
                f"{[array.shape for array in arrays]}"
            )
        self.arrays = arrays
        self.programs = {}

    def flow(self):
        """The shared component: built, started from a batch, and moved."""
        if not hasattr(self, "_flow"):
            flow = self._flow = self.make()
            inputs = [keras.Input(a.shape[1:]) for a in self.arrays]
            starts = {"training": True}
            if self.is_model:
                flow(_pair(inputs))
                if "training" not in inspect.signature(flow.to_noise).parameters:
                    starts = {}
                self.saved = flow
            else:  # Keras leaves out the argument training where call has none
                self.saved = keras.Model(inputs, self.forward(flow, *inputs))
            compiled(lambda *a: self.forward(flow, *a, **starts))(*self.arrays)
            rng = np.random.default_rng(0)
            for weight in flow.trainable_variables:
                noise = rng.normal(size=tuple(weight.shape))
                weight.assign(to_numpy(weight) + self.scale * noise)
        return self._flow

    def forward(self, flow, x, context=None, **kwargs):
        """``y`` and the log-determinant."""
        kwargs |= {} if context is None else {"context": context}
        return flow.to_noise(x, **kwargs) if self.is_model else flow(x, **kwargs)

    def backward(self, flow, y, context=None):
        """``x`` and the log-determinant of the inverse."""
        kwargs = {} if context is None else {"context": context}
        if self.is_model:
            return flow.to_data(y, **kwargs)
        return flow(y, inverse=True, **kwargs)

    def there_and_back(self, flow, *arrays):
        """Outputs of both directions, or of the only one."""
        if flow not in self.programs:

            def both(x, *context):
                y, log_det = self.forward(flow, x, *context)
                if self.one_way:
                    return y, log_det
                return y, log_det, *self.backward(flow, y, *context)

            self.programs[flow] = compiled(both)
        return leaves(self.programs[flow](*arrays))

    def outputs(self):
        """Those of the shared component for the arrays that were given."""
        if not hasattr(self, "_outputs"):
            self._outputs = self.there_and_back(self.flow(), *self.arrays)
        return self._outputs


def _pair(arrays):
    """What a model is called with."""
    return arrays[0] if len(arrays) == 1 else tuple(arrays)
