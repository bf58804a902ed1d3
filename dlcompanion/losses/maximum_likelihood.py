r"""Likelihoods as losses, without TensorFlow Probability, on three backends.

A likelihood takes more than one number for each target, so the network returns all
parameters in its last axis. They stand in the order of :mod:`dlcompanion.probability`:
a network trained with :class:`GaussianNLL` can be read by
:class:`~dlcompanion.probability.NormalSpec`, one trained with :class:`MixtureNLL` by
:class:`~dlcompanion.probability.MixtureNormalSpec`.
"""

import math

import keras
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count, check_number
from dlcompanion.probability.values import positive

_LOG_2PI = math.log(2 * math.pi)


class _NLL(keras.losses.Loss):
    """What the likelihoods share: the check of shapes, and the sum over variables."""

    def __init__(self, reduction="sum_over_batch_size", **kwargs):
        super().__init__(reduction=reduction, **kwargs)

    def outputs(self, variables):
        """How many parameters so many variables need."""
        return 2 * variables

    def call(self, y_true, y_pred):
        y_true, y_pred = backend.widen(y_true), backend.widen(y_pred)
        shapes = tuple(y_true.shape), tuple(y_pred.shape)
        d = shapes[0][-1] if shapes[0] else None
        same = len(shapes[0]) == len(shapes[1]) and all(
            None in pair or pair[0] == pair[1]
            for pair in zip(shapes[0][:-1], shapes[1][:-1], strict=True)
        )
        if d is None or not same or shapes[1][-1] != self.outputs(d):
            raise ValueError(
                f"{type(self).__name__} takes targets (batch, ..., n) and "
                f"{self.outputs(1)} outputs for each of the n variables. "
                f"Received: y_true.shape={shapes[0]}, y_pred.shape={shapes[1]}"
            )
        return self.nll(y_true, y_pred)


@keras.saving.register_keras_serializable(package="dlcompanion")
class GaussianNLL(_NLL):
    r"""Negative log-likelihood of a normal whose spread is predicted, too.

    .. math:: \ell = \sum_j \tfrac12 \log(2\pi) + \log \sigma_j
              + \frac{(y_j - \mu_j)^2}{2 \sigma_j^2}, \qquad
              \sigma_j = \log(1 + e^{\rho_j}) + 10^{-5}

    For a fixed :math:`\sigma` it is the squared error, up to a factor and a constant.
    The weight :math:`1/\sigma^2` is at once its strength and its trap: examples that
    are still badly predicted get a large :math:`\sigma`, and then count little. See
    :class:`BetaNLL`.

    Args:
        reduction: As in every Keras loss.
        **kwargs: Passed on to :class:`keras.losses.Loss`.

    Call arguments:
        y_true: Targets, ``(batch, ..., n)``.
        y_pred: Float tensor ``(batch, ..., 2 n)``: all :math:`\mu`, then all
            :math:`\rho`. Computed in float32.
        sample_weight: Optional, ``(batch, ...)``.

    Raises:
        ValueError: If the shapes do not fit. NaN in, NaN out.

    Example:
        >>> loss = GaussianNLL()
        >>> y_pred = ops.array([[0.0, 0.5413]])  # mean 0, sigma 1
        >>> round(float(loss(ops.array([[1.0]]), y_pred)), 3)  # log(2 pi) / 2 + 1 / 2
        1.419

    References:
        Nix & Weigend, *Estimating the mean and variance of the target probability
        distribution*, 1994. https://doi.org/10.1109/ICNN.1994.374138
    """

    def __call__(self, y_true, y_pred, sample_weight=None):
        loss = super().__call__(y_true, y_pred, sample_weight)
        added = backend.attached(y_pred, "added_losses")
        if sample_weight is None or added is None or self.reduction in (None, "none"):
            return loss
        # the variances of a sparse Gaussian process, whose plain mean the layer added
        weights = ops.reshape(ops.cast(sample_weight, added.dtype), (-1,))
        if self.reduction == "mean_with_sample_weight":
            weights = ops.divide_no_nan(weights, ops.mean(weights))
        return loss + ops.mean((weights - 1) * added) / backend.replicas()

    def nll(self, y, params):
        mean, scale = _location_and_scale(params)
        return ops.sum(_gaussian(y, mean, scale), axis=-1)


@keras.saving.register_keras_serializable(package="dlcompanion")
class BetaNLL(_NLL):
    r"""Gaussian likelihood that keeps the gradient of examples with a large spread.

    .. math:: \ell = \sum_j \lfloor \sigma_j^{2\beta} \rfloor \Bigl(
              \tfrac12 \log(2\pi) + \log\sigma_j
              + \frac{(y_j - \mu_j)^2}{2\sigma_j^2} \Bigr)

    where :math:`\lfloor\cdot\rfloor` lets no gradient through. With :math:`\beta = 0`
    it is :class:`GaussianNLL`; with :math:`\beta = 1` the mean gets the gradient of the
    squared error. In between the spread still settles at the right place.

    Args:
        beta: Number in :math:`[0, 1]`.
        reduction: As in every Keras loss.
        **kwargs: Passed on to :class:`keras.losses.Loss`.

    Call arguments:
        y_true: As :class:`GaussianNLL`.
        y_pred: As :class:`GaussianNLL`.
        sample_weight: As :class:`GaussianNLL`.

    Raises:
        ValueError: If ``beta`` is outside :math:`[0, 1]`, or shapes do not fit.

    Example:
        >>> y, y_pred = ops.array([[1.0]]), ops.array([[0.0, 0.5413]])
        >>> round(float(BetaNLL(0.5)(y, y_pred)), 3)  # at sigma 1 no difference
        1.419

    References:
        Seitzer et al., *On the Pitfalls of Heteroscedastic Uncertainty Estimation with
        Probabilistic Neural Networks*, 2022. https://arxiv.org/abs/2203.09168
    """

    def __init__(self, beta=0.5, reduction="sum_over_batch_size", **kwargs):
        super().__init__(reduction=reduction, **kwargs)
        self.beta = check_number("beta", beta, 0, 1)

    def nll(self, y, params):
        mean, scale = _location_and_scale(params)
        weight = ops.stop_gradient(scale ** (2 * self.beta))
        return ops.sum(weight * _gaussian(y, mean, scale), axis=-1)

    def get_config(self):
        return {**super().get_config(), "beta": self.beta}


@keras.saving.register_keras_serializable(package="dlcompanion")
class StudentTNLL(_NLL):
    r"""Negative log-likelihood of Student's t, for targets with outliers.

    .. math:: \ell = \sum_j \log \sigma_j + \frac{\nu + 1}{2}
              \log\Bigl(1 + \frac{(y_j - \mu_j)^2}{\nu \sigma_j^2}\Bigr) + c(\nu)

    The price of an error grows with its square near zero and with its logarithm far
    out, so the pull of an outlier *falls* with its distance, as
    :math:`(\nu + 1) / (y - \mu)`. With :math:`\nu \to \infty` it is
    :class:`GaussianNLL`. The standard deviation is
    :math:`\sigma \sqrt{\nu / (\nu - 2)}` for :math:`\nu > 2` and infinite else.

    Args:
        df: Positive number, the degrees of freedom :math:`\nu`.
        reduction: As in every Keras loss.
        **kwargs: Passed on to :class:`keras.losses.Loss`.

    Call arguments:
        y_true: As :class:`GaussianNLL`.
        y_pred: As :class:`GaussianNLL`.
        sample_weight: As :class:`GaussianNLL`.

    Raises:
        ValueError: If ``df`` is not positive, or shapes do not fit.

    Example:
        >>> loss = StudentTNLL(df=1.0)  # Cauchy
        >>> y_pred = ops.array([[0.0, 0.5413]])
        >>> round(float(loss(ops.array([[0.0]]), y_pred)), 3)  # log(pi)
        1.145

    References:
        Lange, Little & Taylor, *Robust Statistical Modeling Using the t Distribution*,
        1989. https://doi.org/10.1080/01621459.1989.10478852
    """

    def __init__(self, df=4.0, reduction="sum_over_batch_size", **kwargs):
        super().__init__(reduction=reduction, **kwargs)
        self.df = check_number("df", df, open_ends=True)

    def nll(self, y, params):
        mean, scale = _location_and_scale(params)
        v = min(self.df, 1e30)  # a normal long before, and finite in float32
        z = ops.abs(y - mean) / scale
        root = math.sqrt(v)
        far = z > root  # where the square may leave the range of float32
        near = ops.where(far, 0.0, z) / root
        away = ops.where(far, z, root)
        log = ops.where(
            far,
            ops.softplus(2 * ops.log(away) - math.log(v)),
            ops.log1p(ops.square(near)),
        )
        tail = 0.5 * (v + 1) * log
        return ops.sum(tail + ops.log(scale) + _constant(v), axis=-1)

    def get_config(self):
        return {**super().get_config(), "df": self.df}


@keras.saving.register_keras_serializable(package="dlcompanion")
class MixtureNLL(_NLL):
    r"""Negative log-likelihood of a mixture of normals with diagonal covariance.

    .. math:: \ell = -\log \sum_k \exp\Bigl( \log \pi_k
              + \sum_j \log \mathcal N(y_j; \mu_{kj}, \sigma_{kj}^2) \Bigr)

    Args:
        components: Positive integer :math:`K`.
        reduction: As in every Keras loss.
        **kwargs: Passed on to :class:`keras.losses.Loss`.

    Call arguments:
        y_true: Targets, ``(batch, ..., n)``.
        y_pred: Float tensor ``(batch, ..., K (1 + 2 n))``: the logits of
            :math:`\pi`, then component by component :math:`\mu` and :math:`\rho`.
        sample_weight: As :class:`GaussianNLL`.

    Raises:
        ValueError: If ``components`` is no positive integer, or shapes do not fit.

    Example:
        >>> y_pred = ops.array([[0.0, 0.0, -1.0, 0.5413, 1.0, 0.5413]])
        >>> round(float(MixtureNLL(2)(ops.array([[0.0]]), y_pred)), 3)
        1.419

    References:
        Bishop, *Mixture Density Networks*, 1994.
        https://publications.aston.ac.uk/id/eprint/373/
    """

    def __init__(self, components, reduction="sum_over_batch_size", **kwargs):
        super().__init__(reduction=reduction, **kwargs)
        self.components = check_count("components", components)

    def outputs(self, variables):
        return self.components * (1 + 2 * variables)

    def nll(self, y, params):
        k, d = self.components, y.shape[-1]
        log_weights = ops.log_softmax(params[..., :k], axis=-1)
        rest = ops.reshape(params[..., k:], (*ops.shape(params)[:-1], k, 2 * d))
        mean, scale = _location_and_scale(rest)  # (..., components, n)
        each = ops.sum(_gaussian(y[..., None, :], mean, scale), axis=-1)
        return -ops.logsumexp(log_weights - each, axis=-1)

    def get_config(self):
        return {**super().get_config(), "components": self.components}


@keras.saving.register_keras_serializable(package="dlcompanion")
class QuantileLoss(_NLL):
    r"""Pinball loss, for one or more quantiles of the target.

    .. math:: \ell = \frac1Q \sum_{i=1}^Q \max\bigl( \tau_i e_i,\, (\tau_i - 1) e_i
              \bigr), \qquad e_i = y - \hat y_i

    Its least mean over a sample is at the sample's quantile :math:`\tau_i`; with
    :math:`\tau = \frac12` it is half the absolute error. It is the likelihood of an
    asymmetric Laplace distribution, and assumes nothing about the shape of the noise.
    Nothing keeps the outputs in order: quantiles of few data may cross.

    Args:
        quantiles: Sequence of numbers in :math:`(0, 1)`, rising.
        reduction: As in every Keras loss.
        **kwargs: Passed on to :class:`keras.losses.Loss`.

    Call arguments:
        y_true: Targets, ``(batch, ..., 1)``.
        y_pred: Float tensor ``(batch, ..., Q)``, one output a quantile.
        sample_weight: As :class:`GaussianNLL`.

    Raises:
        ValueError: If there is no quantile, one is outside :math:`(0, 1)`, they do not
            rise, or shapes do not fit.

    Example:
        >>> loss = QuantileLoss([0.9])
        >>> round(float(loss(ops.array([[1.0]]), ops.array([[0.0]]))), 3)  # too low
        0.9
        >>> round(float(loss(ops.array([[0.0]]), ops.array([[1.0]]))), 3)  # too high
        0.1

    References:
        Koenker & Bassett, *Regression Quantiles*, 1978.
        https://doi.org/10.2307/1913643
    """

    def __init__(
        self,
        quantiles=(0.1, 0.5, 0.9),
        reduction="sum_over_batch_size",
        **kwargs,
    ):
        super().__init__(reduction=reduction, **kwargs)
        self.quantiles = tuple(
            check_number("quantiles", q, 0, 1, open_ends=True) for q in quantiles
        )
        rising = all(a < b for a, b in zip(self.quantiles, self.quantiles[1:]))  # noqa: B905
        if not self.quantiles or not rising:
            raise ValueError(
                "quantiles must be at least one number, and rise. "
                f"Received: quantiles={quantiles!r}"
            )

    def outputs(self, variables):
        return len(self.quantiles) if variables == 1 else None

    def nll(self, y, quantiles):
        levels = ops.convert_to_tensor(self.quantiles, quantiles.dtype)
        error = y - quantiles
        return ops.mean(ops.maximum(levels * error, (levels - 1) * error), axis=-1)

    def get_config(self):
        return {**super().get_config(), "quantiles": list(self.quantiles)}


def _constant(v):
    """Minus the log-density of Student's t at its center, for scale 1."""
    if v > 1e5:  # there the difference below cancels
        return 0.5 * _LOG_2PI + 1 / (4 * v)
    difference = math.lgamma(v / 2) - math.lgamma((v + 1) / 2)
    return difference + 0.5 * math.log(v * math.pi)


def _gaussian(y, mean, scale):
    z = (y - mean) / scale
    return 0.5 * (ops.square(z) + _LOG_2PI) + ops.log(scale)


def _location_and_scale(params):
    mean, rho = ops.split(params, 2, axis=-1)
    return mean, positive(rho)
