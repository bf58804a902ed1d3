r"""Calibration after training: the logits of a classifier, scaled.

A network may predict with confidence 0.99 and be right nine times in ten. Its ranking
may still be perfect: what is wrong is the scale. The layers here are fitted on held-out
examples, with all weights of the network left as they are, and put behind it.

==========================  ====================  ===================================
:class:`TemperatureScaling`  1 parameter           decisions never change
:class:`VectorScaling`       2 for each class      a factor and an offset
:class:`MatrixScaling`       K (K + 1)             every class may correct every other
==========================  ====================  ===================================

The maps that calibrate one class against the rest (Platt, beta, isotonic) share the
interface :class:`Calibrator` and are in
:mod:`~dlcompanion.uncertainty.calibrators.one_vs_rest_calibration`.
"""

import math

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_number
from dlcompanion.uncertainty.calibrators.calibrator import (
    Calibrator,
    extent,
    newton,
)


@keras.saving.register_keras_serializable(package="dlcompanion")
class TemperatureScaling(Calibrator):
    r"""One temperature for all logits.

    .. math:: \hat p = \operatorname{softmax}(z / T), \qquad
              T = \arg\min_T \, -\frac1n \sum_i \log \hat p_{i, y_i} .

    The negative log-likelihood is convex in :math:`1 / T`, so Newton's method finds its
    one minimum. The order of the classes does not change, and so no decision does.
    Logits of shape ``(batch, 1)`` go through a sigmoid.

    Attribute ``temperature``: the weight :math:`T`; 1 before ``fit``.

    Args:
        from_logits: As :class:`Calibrator`.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, classes)`` or ``(batch, 1)``.

    Output shape:
        The same.

    Raises:
        ValueError: In ``fit``, for bad data (:class:`Calibrator`), if every example is
            decided correctly, so that the likelihood grows with :math:`T \to 0`, or if
            the logits are no better than none, so that it grows with :math:`1/T \le 0`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> logits = rng.normal(size=(20_000, 4))
        >>> labels = (logits / 2.5 + rng.gumbel(size=logits.shape)).argmax(axis=1)
        >>> scaling = TemperatureScaling().fit(logits, labels)
        >>> abs(float(scaling.temperature) / 2.5 - 1) < 0.03
        True

    References:
        Guo, Pleiss, Sun and Weinberger, *On Calibration of Modern Neural Networks*,
        2017, section 4.2. https://arxiv.org/abs/1706.04599
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.temperature = self.add_parameter("temperature", (), "ones")

    def call(self, inputs):
        scaled = self.logits(inputs) / self.temperature
        if inputs.shape[-1] == 1:
            return ops.cast(ops.sigmoid(scaled), self.compute_dtype)
        return ops.cast(ops.softmax(scaled), self.compute_dtype)

    def optimum(self, z, labels):
        if z.shape[-1] == 1:
            z = np.concatenate([np.zeros_like(z), z], axis=1)
        truth = np.eye(z.shape[1])[labels]
        z = z - z.max(axis=1, keepdims=True)
        size, start = extent(z)
        z = z / size

        def derivatives(inverse):
            loss, p = cross_entropy(inverse[0] * z, truth)
            mean = np.sum(p * z, axis=1)
            slope = np.mean(mean - np.sum(truth * z, axis=1))
            curvature = np.mean(np.sum(p * z**2, axis=1) - mean**2)
            return loss, np.array([slope]), np.array([[curvature]])

        inverse = newton(derivatives, start[None])[0] / size
        if inverse <= 0:
            raise ValueError(
                "The logits say less about the labels than nothing: no positive "
                f"temperature is best. Received: best 1 / T = {inverse:.4g}"
            )
        return {"temperature": 1.0 / inverse}


@keras.saving.register_keras_serializable(package="dlcompanion")
class VectorScaling(Calibrator):
    r"""A factor and an offset for each logit.

    .. math:: \hat p = \operatorname{softmax}(w \odot z + b)

    maximizes the likelihood of the held-out labels; the problem is convex. Decisions
    may change. Attributes: the weights ``scale``, :math:`w`, and ``offset``, :math:`b`,
    whose sum is 0.

    Args:
        from_logits: As :class:`Calibrator`.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, classes)``, at least two classes.

    Output shape:
        The same.

    Raises:
        ValueError: In ``build``, for less than two classes; in ``fit``, for bad data
            (:class:`Calibrator`) or if the likelihood has no maximum.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> logits = rng.normal(size=(20_000, 3))
        >>> mixed = 2.0 * logits + [0.0, 0.0, 1.0] + rng.gumbel(size=logits.shape)
        >>> scaling = VectorScaling().fit(logits, mixed.argmax(axis=1))
        >>> bool(np.abs(ops.convert_to_numpy(scaling.scale) - 2).max() < 0.2)
        True

    References:
        Guo, Pleiss, Sun and Weinberger, *On Calibration of Modern Neural Networks*,
        2017, section 4.2. https://arxiv.org/abs/1706.04599
    """

    def build(self, input_shape):
        super().build(input_shape)
        _check_classes(self, input_shape)
        classes = (input_shape[-1],)
        self.scale = self.add_parameter("scale", classes, "ones")
        self.offset = self.add_parameter("offset", classes, "zeros")

    def call(self, inputs):
        scaled = self.logits(inputs) * self.scale + self.offset
        return ops.cast(ops.softmax(scaled), self.compute_dtype)

    def optimum(self, z, labels):
        _check_classes(self, z.shape)
        n, classes = z.shape
        truth = np.eye(classes)[labels]
        size, start = extent(z, axis=0)
        z = z / size
        features = np.stack([z, np.ones_like(z)])  # (2, n, classes)

        def derivatives(theta):
            w, b = theta.reshape(2, classes)
            loss, p = cross_entropy(w * z + b, truth)
            slope = np.mean(features * (p - truth), axis=1).reshape(-1)
            seen = np.concatenate(features * p, axis=1)  # (n, 2 classes)
            curvature = -seen.T @ seen / n
            own = np.einsum("anc,bnc->abc", features * p, features) / n
            for a in range(2):
                for b in range(2):
                    rows = a * classes + np.arange(classes)
                    curvature[rows, b * classes + np.arange(classes)] += own[a, b]
            return loss, slope, curvature

        start = np.concatenate([start, np.zeros(classes)])
        w, b = newton(derivatives, start).reshape(2, classes)
        return {"scale": w / size, "offset": b - b.mean()}


@keras.saving.register_keras_serializable(package="dlcompanion")
class MatrixScaling(Calibrator):
    r"""An affine map of the logits: logistic regression on the network's logits.

    .. math:: \hat p = \operatorname{softmax}(W z + b)

    is fitted to the held-out labels by its likelihood and, with
    ``penalty`` :math:`= \lambda`, by off-diagonal and intercept regularization,

    .. math:: \frac{\lambda}{K (K - 1)} \sum_{j \ne k} W_{jk}^2
              + \frac{\lambda}{K} \sum_k b_k^2 ,

    added to the mean negative log-likelihood. Without it, :math:`K (K + 1)`
    parameters overfit a few thousand examples easily. Newton's method takes time
    :math:`O(n K^4)`: for some tens of classes. Decisions may change. A probability that
    was rounded to 0 is taken for the smallest normal one of float32.

    Attributes: the weights ``kernel``, :math:`W` of shape ``(classes, classes)``, one
    row for each output, and ``offset``, :math:`b`.

    Args:
        penalty: Number of at least 0, :math:`\lambda`.
        from_logits: As :class:`Calibrator`.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, classes)``, at least two classes.

    Output shape:
        The same.

    Raises:
        ValueError: If ``penalty`` is negative or not finite; in ``build``, for less
            than two classes; in ``fit``, for bad data (:class:`Calibrator`) or if the
            likelihood has no maximum, which a penalty usually mends.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> logits = rng.normal(size=(500, 3))
        >>> swapped = 2.0 * logits[:, [1, 0, 2]] + rng.gumbel(size=logits.shape)
        >>> scaling = MatrixScaling(1e-3).fit(logits, swapped.argmax(axis=1))
        >>> ops.convert_to_numpy(scaling.kernel)[0].argmax()
        np.int64(1)

    References:
        Guo, Pleiss, Sun and Weinberger, *On Calibration of Modern Neural Networks*,
        2017, section 4.2. https://arxiv.org/abs/1706.04599; Kull et al., *Beyond
        temperature scaling: Obtaining well-calibrated multiclass probabilities with
        Dirichlet calibration*, 2019, for the penalty. https://arxiv.org/abs/1910.12656
    """

    def __init__(self, penalty=0.0, from_logits=True, **kwargs):
        super().__init__(from_logits=from_logits, **kwargs)
        self.penalty = check_number("penalty", penalty)

    def build(self, input_shape):
        super().build(input_shape)
        _check_classes(self, input_shape)
        classes = input_shape[-1]
        self.kernel = self.add_parameter("kernel", (classes, classes), "identity")
        self.offset = self.add_parameter("offset", (classes,), "zeros")

    def call(self, inputs):
        logits = self.logits(inputs)
        if (
            not self.from_logits
        ):  # of probability 0: weights of both signs would make NaN
            logits = ops.maximum(logits, math.log(np.finfo("float32").tiny))
        kernel = ops.transpose(self.kernel)
        scaled = ops.matmul(logits, kernel) + self.offset
        return ops.cast(ops.softmax(scaled), self.compute_dtype)

    def optimum(self, z, labels):
        _check_classes(self, z.shape)
        n, classes = z.shape
        truth = np.eye(classes)[labels]
        size, start = extent(z)
        x = np.concatenate([z / size, np.ones((n, 1))], axis=1)  # (n, classes + 1)
        weight = np.full((classes, classes + 1), 2 / (classes * (classes - 1)))
        weight[:, :-1][np.eye(classes, dtype=bool)] = 0.0
        weight[:, :-1] /= size**2
        weight[:, -1] = 2 / classes
        weight = self.penalty * weight.reshape(-1)

        def derivatives(theta):
            loss, p = cross_entropy(x @ theta.reshape(classes, -1).T, truth)
            slope = ((p - truth).T @ x / n).reshape(-1) + weight * theta
            curvature = np.zeros((classes, classes + 1) * 2)
            for a in range(classes):
                for b in range(classes):
                    share = p[:, a] * ((a == b) - p[:, b]) / n
                    curvature[a, :, b] = (x * share[:, None]).T @ x
            curvature = curvature.reshape(len(theta), -1) + np.diag(weight)
            return loss + weight @ theta**2 / 2, slope, curvature

        start = start * np.eye(classes, classes + 1).reshape(-1)
        theta = newton(derivatives, start, separable=not self.penalty)
        theta = theta.reshape(classes, -1)
        return {"kernel": theta[:, :-1] / size, "offset": theta[:, -1]}

    def get_config(self):
        return {**super().get_config(), "penalty": self.penalty}


def cross_entropy(logits, truth):
    """Mean cross-entropy and softmax in float64, for the fits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    return -np.mean(np.sum(truth * log_p, axis=1)), np.exp(log_p)


def _check_classes(layer, input_shape):
    if input_shape[-1] < 2:
        raise ValueError(
            f"{type(layer).__name__} needs at least two classes; for one score take "
            f"PlattScaling. Received: input_shape={tuple(input_shape)}"
        )
