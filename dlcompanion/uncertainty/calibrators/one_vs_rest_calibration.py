r"""Calibration of one class against the rest: Platt, beta and isotonic maps.

Each map corrects the probability of *one* class. With two classes that is all there
is to do; with more, every class gets a map of its own, fitted to "this class or
another", and the corrected probabilities are divided by their sum.

===========================  ==========================================================
:class:`PlattScaling`         a sigmoid of the log-odds; two parameters
:class:`BetaCalibration`      also maps that a sigmoid cannot bend; three parameters
:class:`IsotonicCalibration`  any map that never falls; needs the most examples
===========================  ==========================================================
"""

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count
from dlcompanion.uncertainty.calibrators.calibrator import (
    Calibrator,
    extent,
    newton,
)


class _OneVersusRest(Calibrator):
    """One map for each column of the scores, then a division by the sum."""

    def call(self, inputs):
        mapped = self.mapped(log_odds(self.logits(inputs)))  # (batch, classes)
        if inputs.shape[-1] > 1:
            total = ops.sum(mapped, axis=-1, keepdims=True)
            # every map may say 0: then nothing is known, as in scikit-learn
            nothing = ops.cast(total == 0, "float32")
            mapped = (mapped + nothing) / (total + nothing * inputs.shape[-1])
        return ops.cast(mapped, self.compute_dtype)

    def optimum(self, z, labels):
        scores = _numpy_log_odds(z)  # (n, classes)
        if z.shape[-1] == 1:
            truth = labels[:, None] == 1
        else:
            truth = labels[:, None] == np.arange(z.shape[-1])
        if truth.all(axis=0).any() or not truth.any(axis=0).all():
            raise ValueError(
                "Every class needs an example, and one that is of another class. "
                f"Received: examples of each={truth.sum(axis=0).tolist()}, n={len(z)}"
            )
        return self.columns(scores, truth)


@keras.saving.register_keras_serializable(package="dlcompanion")
class PlattScaling(_OneVersusRest):
    r"""A sigmoid of the log-odds of each class.

    .. math:: \hat p = \sigma(a s + b), \qquad s = \log \frac{p}{1 - p},

    fitted by maximum likelihood to Platt's smoothed targets, :math:`(n_+ + 1) /
    (n_+ + 2)` for the :math:`n_+` examples of the class and :math:`1 / (n_- + 2)` for
    the others, which keep :math:`a` finite where the classes are separated. With
    several classes, one sigmoid for each, whose
    probabilities are divided by their sum.

    Attributes: the weights ``slope`` and ``offset``, one for each column.

    Args:
        from_logits: As ``Calibrator``.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, classes)`` or ``(batch, 1)``.

    Output shape:
        The same.

    Raises:
        ValueError: In ``fit``, for bad data, or if a class has no example or no other.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> logits = rng.normal(size=(20_000, 1))
        >>> labels = rng.uniform(size=logits.shape) < 1 / (1 + np.exp(-3 * logits - 1))
        >>> platt = PlattScaling().fit(logits, labels)
        >>> round(float(platt.slope[0])), round(float(platt.offset[0]))
        (3, 1)

    References:
        Platt, *Probabilistic Outputs for Support Vector Machines and Comparisons to
        Regularized Likelihood Methods*, 1999; Zadrozny and Elkan, *Transforming
        Classifier Scores into Accurate Multiclass Probability Estimates*, 2002,
        https://doi.org/10.1145/775047.775151, for several classes.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.slope = self.add_parameter("slope", (self.built_for,), "ones")
        self.offset = self.add_parameter("offset", (self.built_for,), "zeros")

    def mapped(self, s):
        return ops.sigmoid(self.slope * s + self.offset)

    def columns(self, scores, truth):
        found = []
        for s, positive in zip(scores.T, truth.T, strict=True):
            n = positive.sum()
            target = np.where(positive, (n + 1) / (n + 2), 1 / (len(s) - n + 2))
            features = np.stack([s, np.ones_like(s)], axis=1)
            found.append(_logistic(features, target, np.array([1.0, 0.0])))
        slope, offset = np.transpose(found)
        return {"slope": slope, "offset": offset}


@keras.saving.register_keras_serializable(package="dlcompanion")
class BetaCalibration(_OneVersusRest):
    r"""The map that is right where scores are beta distributed in each class.

    .. math:: \hat p = \sigma\bigl(a \ln p - b \ln(1 - p) + c\bigr),
              \qquad a, b \ge 0 .

    With :math:`a = b` it is Platt's; with :math:`a = b = 1` and :math:`c = 0` the
    identity, which a sigmoid of *p* cannot be. A fit that would make :math:`a` or
    :math:`b` negative, and the map fall, is made again with that one at 0.

    Attributes: the weights ``a``, ``b`` and ``c``, one for each column.

    Args:
        from_logits: As ``Calibrator``.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, classes)`` or ``(batch, 1)``.

    Output shape:
        The same.

    Raises:
        ValueError: In ``fit``, for bad data, if a class has no example or no other, or
            if one is separated from the others, so that the likelihood has no maximum.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> p = rng.uniform(0.01, 0.99, size=(20_000, 1))
        >>> labels = rng.uniform(size=p.shape) < p**2 / (p**2 + 1 - p)
        >>> beta = BetaCalibration(from_logits=False).fit(p, labels)
        >>> round(float(beta.a[0])), round(float(beta.b[0]))
        (2, 1)

    References:
        Kull, Silva Filho and Flach, *Beta calibration: a well-founded and easily
        implemented improvement on logistic calibration for binary classifiers*, 2017.
        https://proceedings.mlr.press/v54/kull17a.html
    """

    def build(self, input_shape):
        super().build(input_shape)
        shape = (self.built_for,)
        self.a = self.add_parameter("a", shape, "ones")
        self.b = self.add_parameter("b", shape, "ones")
        self.c = self.add_parameter("c", shape, "zeros")

    def mapped(self, s):
        log_p, log_q = ops.log_sigmoid(s), ops.log_sigmoid(-s)
        return ops.sigmoid(self.a * log_p - self.b * log_q + self.c)

    def columns(self, scores, truth):
        found = []
        for s, positive in zip(scores.T, truth.T, strict=True):
            log_p, log_q = -np.logaddexp(0, -s), -np.logaddexp(0, s)
            features = np.stack([log_p, -log_q, np.ones_like(s)], axis=1)
            target = positive.astype("float64")
            used = [0, 1, 2]
            theta = _logistic(features, target, np.array([1.0, 1.0, 0.0]), True)
            while min(theta[:2]) < 0:  # at most twice
                used.remove(int(np.argmin(theta[:2])))
                theta = np.zeros(3)
                start = np.zeros(len(used))
                theta[used] = _logistic(features[:, used], target, start, True)
            found.append(theta)
        return dict(zip("abc", np.transpose(found), strict=True))


@keras.saving.register_keras_serializable(package="dlcompanion")
class IsotonicCalibration(_OneVersusRest):
    r"""The best map that never falls, with no other assumption.

    .. math:: \hat m = \arg\min_{m \text{ non-decreasing}}
              \sum_i \bigl(y_i - m(s_i)\bigr)^2 ,

    of the log-odds :math:`s`, found by pooling neighbors that are out of order: a
    staircase. Between its knots the map is linear, outside them constant, as in
    scikit-learn, which fits it; before ``fit`` it is a line from (-4, 0) to (4, 1).
    Different probabilities may become equal, so a decision can become a draw, and a
    step at 0 or 1 claims certainty that a few examples cannot give: the likelihood of
    other data may then be 0. If all classes of an example are mapped to 0, they get
    equal probabilities.

    Attribute ``knots``: the weight of shape ``(2, classes, count)``, positions and
    heights.

    Args:
        from_logits: As ``Calibrator``.
        count: Integer of at least 2, how many knots there are; ``fit`` finds it.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, classes)`` or ``(batch, 1)``.

    Output shape:
        The same.

    Raises:
        ValueError: If ``count`` is below 2; in ``fit``, for bad data, if a class has
            no example or no other, or if the layer was built or fitted before.
        ImportError: In ``fit``, if scikit-learn is missing.

    Example:
        >>> p = np.array([[0.1], [0.4], [0.6], [0.9]])
        >>> isotonic = IsotonicCalibration(from_logits=False).fit(p, [0, 1, 0, 1])
        >>> isotonic.predict(p)[:, 0].round(3)
        array([0. , 0.5, 0.5, 1. ], dtype=float32)

    References:
        Zadrozny and Elkan, *Transforming Classifier Scores into Accurate Multiclass
        Probability Estimates*, 2002. https://doi.org/10.1145/775047.775151
    """

    def __init__(self, from_logits=True, count=2, **kwargs):
        super().__init__(from_logits, **kwargs)
        self.count = check_count("count", count, least=2)

    def fit(self, scores, labels):
        """Fit to held-out examples, once, and return the calibrator itself."""
        if self.built:
            raise ValueError(
                "The number of knots is fixed once there are any: make a new "
                f"IsotonicCalibration. Received: knots={tuple(self.knots.shape)}"
            )
        return super().fit(scores, labels)

    def build(self, input_shape):
        super().build(input_shape)
        shape = (2, self.built_for, self.count)
        self.knots = self.add_parameter("knots", shape, "zeros")
        line = np.linspace([-4.0, 0.0], [4.0, 1.0], self.count).T[:, None]
        self.knots.assign(np.broadcast_to(line, shape))

    def get_build_config(self):
        if not self.built:
            return None
        return {"input_shape": (None, self.built_for), "count": self.count}

    def build_from_config(self, config):
        self.count = config["count"]
        self.build(config["input_shape"])

    def mapped(self, s):
        count = self.count
        x, y = ops.unstack(ops.convert_to_tensor(self.knots), axis=0)
        below = ops.cast(s[..., None] >= x, "int32")  # (batch, classes, count)
        left = ops.clip(ops.sum(below, axis=-1) - 1, 0, count - 2)
        left = left + count * ops.arange(self.built_for, dtype="int32")
        x, y = ops.reshape(x, (-1,)), ops.reshape(y, (-1,))
        x0, x1, y0, y1 = (ops.take(a, left + k) for a in (x, y) for k in (0, 1))
        width = ops.where(x1 > x0, x1 - x0, 1.0)
        share = ops.minimum(ops.maximum((s - x0) / width, 0.0), 1.0)
        return y0 + share * (y1 - y0)

    def columns(self, scores, truth):
        isotonic = backend.require("sklearn.isotonic", "datasets")
        knots = []
        for s, positive in zip(scores.T, truth.T, strict=True):
            fitted = isotonic.IsotonicRegression(y_min=0, y_max=1).fit(s, positive)
            knots.append((fitted.X_thresholds_, fitted.y_thresholds_))
        count = self.count = max(2, *(len(x) for x, _ in knots))
        # shorter ones repeat their last knot
        padded = [
            [np.pad(a, (0, count - len(a)), mode="edge") for a in pair]
            for pair in knots
        ]
        return {"knots": np.swapaxes(padded, 0, 1)}

    def get_config(self):
        return {**super().get_config(), "count": self.count}


def log_odds(logits):
    r"""Log-odds of each class against all others, without rounding.

    .. math:: s_k = z_k - \log \sum_{j \ne k} e^{z_j}

    Args:
        logits: Float tensor ``(batch, classes)``; of one column, the log-odds are the
            logits themselves.

    Returns:
        Tensor of the same shape.

    Example:
        >>> s = log_odds(ops.log(ops.convert_to_tensor([[0.2, 0.3, 0.5]])))
        >>> bool(ops.abs(ops.sigmoid(s)[0, 1] - 0.3) < 1e-6)
        True
    """
    classes = logits.shape[-1]
    if classes == 1:
        return logits
    itself = ops.eye(classes, dtype=logits.dtype) * 1e30
    others = ops.logsumexp(logits[:, None, :] - itself, axis=-1)  # (batch, classes)
    return logits - others


def _numpy_log_odds(z):
    """The same in float64, for the fits."""
    if z.shape[1] == 1:
        return z
    others = [np.delete(z, k, axis=1) for k in range(z.shape[1])]
    return z - np.stack([np.logaddexp.reduce(o, axis=1) for o in others], axis=1)


def _logistic(features, target, start, separable=False):
    """Logistic regression on soft targets."""
    size, at_most = extent(features, axis=0)
    features = features / size

    def derivatives(theta):
        s = features @ theta
        p = np.exp(-np.logaddexp(0, -s))
        loss = np.mean(np.logaddexp(0, s) - target * s)
        slope = features.T @ (p - target) / len(target)
        curvature = (features * (p * (1 - p))[:, None]).T @ features / len(target)
        return loss, slope, curvature

    return newton(derivatives, start * at_most, separable=separable) / size
