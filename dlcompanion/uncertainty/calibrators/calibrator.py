"""What calibrators share: a layer that is fitted on held-out scores."""

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import (
    check_boolean,
    check_finite,
    check_labels,
    check_probabilities,
)


@keras.saving.register_keras_serializable(package="dlcompanion")
class Calibrator(keras.layers.Layer):
    """What all calibrators share: fit on held-out scores, predict, be a layer.

    A calibrator is a Keras layer from scores to probabilities. Its weights are set by
    :meth:`fit` and are not trainable, so that a later ``fit`` of the model around it
    leaves them alone. Saved in a ``.keras`` file, it comes back fitted.

    ``fit(scores, labels)`` takes NumPy arrays: scores of shape ``(n, classes)`` with
    ``classes >= 2``, or ``(n, 1)`` for the score of class 1 against class 0, and
    integer labels of shape ``(n,)`` or ``(n, 1)``. It returns the calibrator.
    ``predict(scores)`` returns the calibrated probabilities as a NumPy array.

    A calibrator of one's own makes its weights in ``build``, computes in ``call``, and
    finds their values in ``optimum(logits, labels)``, of float64 logits: a dictionary
    from attribute to array.

    Args:
        from_logits: Boolean, whether scores are logits. Otherwise they are
            probabilities, which must sum to one and, in ``fit``, lie strictly between
            0 and 1: their logarithms are taken. A probability that was rounded to 0 or
            1 cannot be calibrated; take the logits, which are not rounded.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, classes)`` or ``(batch, 1)``.

    Output shape:
        The same.

    Raises:
        ValueError: In ``fit`` and ``predict``, if scores hold a NaN, are no
            probabilities where they should be, or do not fit the labels, or if a label
            is not a class.

    Example:
        >>> from dlcompanion.uncertainty import TemperatureScaling
        >>> logits, labels = np.eye(3)[[0, 1, 2, 0]], [0, 1, 2, 2]
        >>> calibrator = TemperatureScaling().fit(logits, labels)
        >>> isinstance(calibrator, Calibrator)
        True
        >>> calibrator.predict(logits).shape
        (4, 3)
    """

    def __init__(self, from_logits=True, **kwargs):
        super().__init__(**kwargs)
        self.from_logits = check_boolean("from_logits", from_logits)

    def fit(self, scores, labels):
        """Fit to held-out examples, and return the calibrator itself."""
        scores = _check_scores(scores, self.from_logits, fitting=True)
        labels = check_labels("labels", labels, max(scores.shape[-1], 2), len(scores))
        if self.built and self.built_for != scores.shape[-1]:
            raise ValueError(
                f"This calibrator was built for {self.built_for} scores an example. "
                f"Received: scores.shape={scores.shape}"
            )
        logits = _logits_of_probabilities(scores, self.from_logits)
        found = self.optimum(logits, labels)
        if not self.built:
            self.build(scores.shape)
        for name, value in found.items():
            getattr(self, name).assign(value)
        return self

    def predict(self, scores):
        """Calibrated probabilities of NumPy scores, as a NumPy array."""
        scores = _check_scores(scores, self.from_logits)
        return ops.convert_to_numpy(self(scores.astype("float32")))

    def build(self, input_shape):
        if len(input_shape) != 2 or not input_shape[-1]:
            raise ValueError(
                "A calibrator takes scores of shape (batch, classes). "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.built_for = int(input_shape[-1])

    def logits(self, inputs):
        """The inputs as float32 logits, whatever the calibrator takes."""
        return _logits_of_probabilities(ops.cast(inputs, "float32"), self.from_logits)

    def add_parameter(self, name, shape, initializer):
        """A float32 weight that ``fit`` sets and training does not."""
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            trainable=False,
            autocast=False,
            dtype="float32",
        )

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "from_logits": self.from_logits}


def calibrated_model(model, calibrator):
    """Put a calibrator behind a model, as one Keras model that can be saved.

    Args:
        model: Keras model whose outputs are the scores that the calibrator takes.
        calibrator: A fitted :class:`Calibrator`.

    Returns:
        A :class:`keras.Model` from the inputs of ``model`` to probabilities. It shares
        the layers of ``model``, which are not copied.

    Raises:
        ValueError: If ``calibrator`` is not a calibrator or was not fitted, or the
            model has several outputs.

    Example:
        >>> from dlcompanion.uncertainty import VectorScaling
        >>> model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
        >>> x, y = np.random.default_rng(0).normal(size=(90, 5)), np.arange(90) % 3
        >>> scaling = VectorScaling().fit(model.predict(x, verbose=0), y)
        >>> calibrated_model(model, scaling).output_shape
        (None, 3)
    """
    if not isinstance(calibrator, Calibrator) or not calibrator.built:
        raise ValueError(
            "calibrator must be a fitted Calibrator. "
            f"Received: calibrator={calibrator!r}"
        )
    if not getattr(model, "inputs", None):  # a subclassed model has no symbolic inputs
        return keras.Sequential([model, calibrator])
    if len(model.outputs) != 1:
        raise ValueError(
            "A calibrator stands behind one output, the one that it was fitted to. "
            f"Received: model={model.name} with {len(model.outputs)} outputs"
        )
    sequential = isinstance(model, keras.Sequential)
    inputs = model.inputs[0] if sequential else model.input
    return keras.Model(inputs, calibrator(model.outputs[0]))


def extent(logits, axis=None):
    """How large numbers are, 1 where all are 0, and a start for their factors.

    Fits divide by the extent. At logits hundreds apart the softmax is certain, its
    curvature rounded to 0, and Newton's method would stay where it begins: so it begins
    at a factor for which none exceeds 10.

    Args:
        logits: NumPy array.
        axis: Axis or axes over which to look, by default all.

    Returns:
        Pair of arrays: the largest absolute value, and a factor of what is divided by
        it, that of the identity where this does not exceed 10.

    Example:
        >>> [float(x) for x in extent(np.array([-300.0, 20.0]))]
        [300.0, 10.0]
    """
    size = np.max(np.abs(logits), axis=axis)
    size = np.where(size > 0, size, 1.0)
    return size, np.minimum(size, 10.0)


def newton(derivatives, theta, separable=True):
    """Minimum of a convex function, by Newton's method with step halving."""
    loss, slope, curvature = derivatives(theta)
    for _ in range(200):
        # of smallest norm: a softmax does not feel a constant added to its logits
        step = np.linalg.lstsq(curvature, -slope, rcond=1e-12)[0]
        decrease = -slope @ step
        if decrease < 1e-13:
            break
        length = 1.0
        while length > 1e-10:
            found = derivatives(theta + length * step)
            if found[0] <= loss - 1e-4 * length * decrease:
                break
            length /= 2
        else:
            break  # as low as float64 can tell
        theta = theta + length * step
        loss, slope, curvature = found
    if separable and loss < 1e-6:
        raise ValueError(
            "Every example is decided correctly, so the likelihood has no maximum: the "
            "larger the scale, the better. Calibrate on more examples, or penalize. "
            f"Received: negative log-likelihood={loss:.3g}"
        )
    return theta


def _check_scores(scores, from_logits, fitting=False):
    scores = np.asarray(scores, "float64")
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(
            "Scores must have shape (n, classes), or (n, 1) for two classes. "
            f"Received: scores.shape={scores.shape}"
        )
    if from_logits:
        check_finite("scores", scores, "Logits must be finite numbers")
    else:
        check_probabilities("scores", scores)
        if fitting and (scores.min() <= 0 or scores.max() >= 1):
            raise ValueError(
                "Probabilities that were rounded to 0 or 1 have lost their scale: fit "
                "on logits. Received: "
                f"range={scores.min()} to {scores.max()}, from_logits=False"
            )
    return scores


def _logits_of_probabilities(scores, from_logits):
    """The logarithms are logits; one probability has its log-odds. NumPy or tensor."""
    if from_logits:
        return scores
    math = np if isinstance(scores, np.ndarray) else ops
    if scores.shape[-1] == 1:
        return math.log(scores) - math.log1p(-scores)
    return math.log(scores)
