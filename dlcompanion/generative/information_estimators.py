r"""How much one variable says about another: counted, and bounded by a network.

================================  ====================================================
:func:`discrete_information`        of symbols, from counts, in bits
:func:`binned_information`          of activations, after binning them, in bits
:class:`DonskerVaradhanEstimator`   a lower bound that a network makes tight (MINE)
:class:`InfoNCEEstimator`           the same with less variance, and a ceiling
================================  ====================================================
"""

import math

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count, check_number
from dlcompanion.training import UnsupervisedModel


def discrete_information(x, y):
    r"""Mutual information of two columns of symbols, in bits.

    .. math:: I(X; Y) = \sum_{x, y} \hat p(x, y)
              \log_2 \frac{\hat p(x, y)}{\hat p(x)\, \hat p(y)}

    of the frequencies :math:`\hat p`. Frequencies of independent symbols are not quite
    independent: the estimate is too large by about :math:`(|X| - 1)(|Y| - 1) /
    (2 n \ln 2)` bits of :math:`n` examples. Far more examples than pairs are needed.

    Args:
        x: Array ``(n,)`` or ``(n, d)`` of symbols of any kind; a row of several is one
            symbol.
        y: The same, with as many rows.

    Returns:
        The information, as a float.

    Raises:
        ValueError: If the rows are none or not equally many, or hold a NaN.

    Example:
        >>> discrete_information([0, 0, 1, 1], [5, 5, 7, 7])
        1.0
        >>> discrete_information([0, 0, 1, 1], [5, 7, 5, 7])
        0.0

    References:
        Shannon, *A Mathematical Theory of Communication*, 1948.
    """
    x, y = _symbols("x", x), _symbols("y", y)
    if len(x) != len(y):
        raise ValueError(
            "x and y must have equally many rows. "
            f"Received: len(x)={len(x)}, len(y)={len(y)}"
        )
    pairs = _symbols("pairs", np.stack([x, y], axis=1))
    return max(0.0, _entropy(x) + _entropy(y) - _entropy(pairs))


def binned_information(activations, y, low, high, bins=30):
    r"""Information of a layer about its input and about the target, after binning.

    Every activation is replaced by its bin, one of ``bins`` of equal width between
    ``low`` and ``high``, and a row of bins is one symbol :math:`T`. If every row comes
    from another input :math:`x`, and the layer is deterministic,

    .. math:: I(X; T) = H(T), \qquad I(T; Y) = H(T) - H(T \mid Y) .

    *Without* binning :math:`H(T)` is the entropy of the inputs, or infinite: a
    deterministic layer that maps no two inputs to one point loses nothing. So what
    changes during training is how many inputs share a bin. A ``tanh`` that saturates
    puts many into the outermost bins, whatever it has learned.

    Args:
        activations: Array ``(n, units)``, one row for each input.
        y: Array ``(n,)`` of labels.
        low: Number, the lower end of the bins.
        high: Number, the upper end. Activations outside are refused.
        bins: Positive integer.

    Returns:
        Pair of floats, :math:`I(X; T)` and :math:`I(T; Y)`, in bits.

    Raises:
        ValueError: If an activation is NaN or outside the bins, the rows are not
            equally many, or an argument is out of range.

    Example:
        >>> t = np.array([[-0.9], [-0.8], [0.8], [0.9]])
        >>> binned_information(t, [0, 0, 1, 1], -1, 1, bins=2)
        (1.0, 1.0)
        >>> binned_information(t, [0, 0, 1, 1], -1, 1, bins=40)
        (2.0, 1.0)

    References:
        Shwartz-Ziv and Tishby, *Opening the Black Box of Deep Neural Networks via
        Information*, 2017, https://arxiv.org/abs/1703.00810; Saxe et al., *On the
        Information Bottleneck Theory of Deep Learning*, 2018, for what binning does.
        https://openreview.net/forum?id=ry_WPG-A-
    """
    t = np.asarray(activations, "float64")
    low, high = (
        check_number(n, v, -math.inf) for n, v in (("low", low), ("high", high))
    )
    bins = check_count("bins", bins)
    if high <= low:
        raise ValueError(f"low must be below high. Received: low={low}, high={high}")
    if t.ndim != 2 or not t.size or not (t.min() >= low and t.max() <= high):
        raise ValueError(
            "activations must be (n, units), between low and high and without NaN. "
            f"Received: shape={t.shape}, low={low}, high={high}"
            + (f", range={t.min()} to {t.max()}" if t.size else "")
        )
    cells = np.minimum(((t - low) / (high - low) * bins).astype("int64"), bins - 1)
    symbols = _symbols("activations", cells)
    return _entropy(symbols), discrete_information(symbols, y)


class _CriticEstimator(UnsupervisedModel):
    """A critic that scores all pairs of a batch, trained on a lower bound."""

    no_targets = "An estimator of information is fitted to pairs, fit([x, y])."
    weighs_examples = False  # its loss is of all pairs of a batch

    def __init__(self, critic, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(critic, keras.layers.Layer):
            raise ValueError(
                f"critic must be a Keras layer. Received: critic={critic!r}"
            )
        self.critic = critic
        self.tracker = keras.metrics.Mean(name="information")

    def build(self, input_shape):
        x, y = input_shape
        if len(x) != 2 or len(y) != 2:
            raise ValueError(
                "Inputs must be a pair (batch, d) and (batch, e). "
                f"Received: input_shape={input_shape}"
            )
        shape = (None, x[-1] + y[-1])
        if not self.critic.built:
            self.critic.build(shape)
        if tuple(self.critic.compute_output_shape(shape))[1:] != (1,):
            raise ValueError(
                "critic must give one number an example, (batch, 1). Received: output "
                f"of shape {tuple(self.critic.compute_output_shape(shape))}"
            )

    def call(self, inputs):
        x, y = inputs
        n, d, e = ops.shape(x)[0], x.shape[-1], y.shape[-1]
        x = ops.broadcast_to(x[:, None], (n, n, d))
        y = ops.broadcast_to(ops.cast(y, x.dtype)[None], (n, n, e))
        pairs = ops.reshape(ops.concatenate([x, y], axis=-1), (-1, d + e))
        return ops.cast(ops.reshape(self.critic(pairs), (n, n)), "float32")

    def batch_loss(self, x, outputs, weights):
        information = self.bound(outputs)
        self.tracker.update_state(information)
        return -information

    def estimate(self, x, y, batch_size=128):
        """Mean of the bound over whole batches of the pairs, in nats, as a float."""
        x, y = np.asarray(x, "float32"), np.asarray(y, "float32")
        if len(x) != len(y) or len(x) < batch_size or batch_size < 2:
            raise ValueError(
                "An estimate needs as many x as y, and at least one whole batch of two "
                f"or more. Received: len(x)={len(x)}, len(y)={len(y)}, "
                f"batch_size={batch_size}"
            )
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("x and y must be finite. Received: NaN or infinity")
        values = []
        for start in range(0, len(x) - batch_size + 1, batch_size):
            rows = slice(start, start + batch_size)
            scores = self.predict_on_batch([x[rows], y[rows]])
            values.append(
                ops.convert_to_numpy(self.bound(ops.convert_to_tensor(scores)))
            )
        return float(np.mean(values))

    def get_config(self):
        critic = keras.saving.serialize_keras_object(self.critic)
        return {**super().get_config(), "critic": critic}

    @classmethod
    def from_config(cls, config):
        critic = keras.saving.deserialize_keras_object(config["critic"])
        return cls(**{**config, "critic": critic})


@keras.saving.register_keras_serializable(package="dlcompanion")
class DonskerVaradhanEstimator(_CriticEstimator):
    r"""Mutual information as the best value of a game that a network plays (MINE).

    .. math:: I(X; Y) = \sup_T \; \mathbb E_{p(x, y)}[T(x, y)]
              - \log \mathbb E_{p(x) p(y)}\bigl[e^{T(x, y)}\bigr] .

    The first mean is over the pairs of a batch, the second over all others that can be
    made of it, :math:`n(n-1)` of them. Train with ``fit([x, y])``, measure with
    ``estimate(x, y)`` on *other* data: on the data of training the network learns pairs
    by heart. The logarithm of a mean over a finite batch is too small on average, so
    that the value is no strict bound, and where the information is large it scatters:
    the variance of the second mean grows as :math:`e^I`.

    Args:
        critic: Keras model :math:`T` from ``(batch, d + e)``, the concatenated pair, to
            ``(batch, 1)``.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Pair of tensors ``(batch, d)`` and ``(batch, e)``.

    Returns:
        Tensor ``(batch, batch)``: the critic of the i-th x with the j-th y.

    Raises:
        ValueError: If ``critic`` is not a Keras layer or does not give ``(batch, 1)``,
            or an input is not of rank 2; in ``estimate``, if data are not finite or
            fill no batch.

    Example:
        >>> critic = keras.Sequential([keras.layers.Dense(8, "relu")])
        >>> critic.add(keras.layers.Dense(1, kernel_initializer="zeros"))
        >>> mine = DonskerVaradhanEstimator(critic)
        >>> x = np.random.default_rng(0).normal(size=(256, 1))
        >>> mine.estimate(x, x)
        0.0

    References:
        Belghazi et al., *Mutual Information Neural Estimation*, 2018.
        https://arxiv.org/abs/1801.04062; Poole et al., *On Variational Bounds of Mutual
        Information*, 2019. https://arxiv.org/abs/1905.06922
    """

    def bound(self, scores):
        """The estimate of a matrix of scores, in nats."""
        n = ops.shape(scores)[0]
        itself = ops.eye(n, dtype=scores.dtype)
        count = ops.cast(n, scores.dtype)
        joint = ops.sum(scores * itself) / count
        others = ops.logsumexp(scores - 1e30 * itself) - ops.log(count * (count - 1))
        return joint - others


@keras.saving.register_keras_serializable(package="dlcompanion")
class InfoNCEEstimator(_CriticEstimator):
    r"""Mutual information as the skill to find the partner among strangers.

    .. math:: I(X; Y) \ge \mathbb E\left[\frac1n \sum_{i=1}^n \log
              \frac{e^{T(x_i, y_i)}}{\frac1n \sum_{j=1}^n e^{T(x_i, y_j)}} \right]
              \le \log n .

    A cross-entropy of classification, with little variance. Who picks one of :math:`n`
    can show no more than :math:`\log n` nats of skill: of variables that share more,
    the estimate says only that. Train with ``fit([x, y])``, measure with
    ``estimate(x, y)`` on other data.

    Args:
        critic: Keras model :math:`T` from ``(batch, d + e)``, the concatenated pair, to
            ``(batch, 1)``.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Pair of tensors ``(batch, d)`` and ``(batch, e)``.

    Returns:
        Tensor ``(batch, batch)``: the critic of the i-th x with the j-th y.

    Raises:
        ValueError: As :class:`DonskerVaradhanEstimator`.

    Example:
        >>> critic = keras.Sequential([keras.layers.Dense(8, "relu")])
        >>> critic.add(keras.layers.Dense(1, kernel_initializer="zeros"))
        >>> x = np.random.default_rng(0).normal(size=(256, 1))
        >>> InfoNCEEstimator(critic).estimate(x, x)
        0.0

    References:
        van den Oord, Li and Vinyals, *Representation Learning with Contrastive
        Predictive Coding*, 2018, section 2.3. https://arxiv.org/abs/1807.03748; Poole
        et al., *On Variational Bounds of Mutual Information*, 2019.
        https://arxiv.org/abs/1905.06922
    """

    def bound(self, scores):
        """The estimate of a matrix of scores, in nats."""
        n = ops.shape(scores)[0]
        count = ops.cast(n, scores.dtype)
        joint = ops.sum(scores * ops.eye(n, dtype=scores.dtype)) / count
        return joint - ops.mean(ops.logsumexp(scores, axis=-1)) + ops.log(count)


def _symbols(name, values):
    """Rows as integers, equal where the rows are."""
    values = np.asarray(values)
    if values.ndim not in (1, 2) or not values.size:
        raise ValueError(
            f"{name} must be (n,) or (n, d), with at least one row. "
            f"Received: shape={values.shape}"
        )
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError(f"{name} must hold no NaN. Received: {name} with NaN")
    if values.ndim == 2:
        # as one block of bytes a row: far faster than comparing column by column
        values = np.ascontiguousarray(values)
        if values.dtype.kind in "biuf":
            values = values + 0.0 if values.dtype.kind == "f" else values  # -0 is 0
            values = values.view([("", values.dtype)] * values.shape[1])[:, 0]
            return np.unique(values, return_inverse=True)[1].reshape(-1)
    return np.unique(values, axis=0, return_inverse=True)[1].reshape(-1)


def _entropy(symbols):
    """Entropy of the frequencies of integers, in bits."""
    p = np.bincount(symbols) / len(symbols)
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum()) + 0.0
