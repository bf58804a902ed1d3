r"""The information bottleneck: keep what tells the target, forget the rest.

=====================================  ===============================================
:class:`VariationalBottleneck`          a layer that pays for every bit it passes on
:class:`InformationPlane`               watches a network by binned information
=====================================  ===============================================
"""

import math

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count, check_finite, check_number
from dlcompanion.generative.variational_autoencoder import kl_to_standard_normal
from dlcompanion.training import SavesSeeds, UnsupervisedModel
from dlcompanion.training.masks import masked_mean


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
        return backend.widen(ops.reshape(self.critic(pairs), (n, n)))

    def batch_loss(self, x, outputs, weights):
        information = self.bound(outputs)
        several = ops.cast(ops.shape(outputs)[0] > 1, information.dtype)
        self.tracker.update_state(information, several)  # one pair says nothing
        return -information

    def estimate(self, x, y, batch_size=128):
        """Mean of the bound over whole batches of the pairs, in nats, as a float."""
        x, y = (np.asarray(a, keras.config.floatx()) for a in (x, y))
        if len(x) != len(y) or len(x) < batch_size or batch_size < 2:
            raise ValueError(
                "An estimate needs as many x as y, and at least one whole batch of two "
                f"or more. Received: len(x)={len(x)}, len(y)={len(y)}, "
                f"batch_size={batch_size}"
            )
        check_finite("x", x)
        check_finite("y", y)
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
        """The estimate of a matrix of scores, in nats; 0 of a single pair."""
        n = ops.shape(scores)[0]
        itself = ops.eye(n, dtype=scores.dtype)
        count = ops.cast(n, scores.dtype)
        joint = ops.sum(scores * itself) / count
        pairs = ops.maximum(count * (count - 1), 1)
        others = ops.logsumexp(scores - 1e30 * itself) - ops.log(pairs)
        # of a single pair, a last batch of one, nothing is known
        return ops.where(count > 1, joint - others, ops.zeros_like(joint))


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


@keras.saving.register_keras_serializable(package="dlcompanion")
class VariationalBottleneck(SavesSeeds, keras.layers.Layer):
    r"""A noisy code whose information about the input has a price (deep VIB).

    The bottleneck asks for a code :math:`Z` that maximizes
    :math:`I(Z; Y) - \beta I(Z; X)`. Both have tractable bounds: the log-likelihood of
    the classifier behind the code, and the divergence of the code from a fixed prior.
    Training minimizes

    .. math:: \underbrace{-\log q(y \mid z)}_{\text{the model's loss}} + \beta\,
              \mathrm{KL}\bigl(\mathcal N(\mu(x), \operatorname{diag} \sigma^2(x))
              \,\|\, \mathcal N(0, I)\bigr), \qquad z = \mu + \sigma \varepsilon .

    The layer makes :math:`\mu` and :math:`\sigma` by a dense map of its input, draws
    :math:`z`, and adds :math:`\beta` times the mean divergence of the batch to the
    losses of the model. With logarithms to base e, :math:`\beta = 1` gives a nat of
    input the price of a nat of target. ``rate(inputs)`` is the divergence of each
    example in nats, whose mean is an upper bound of :math:`I(Z; X)`. In inference the
    code is :math:`\mu`.

    Args:
        latent: Positive integer, the dimension of the code.
        beta: Number of at least 0, the price.
        seed: Integer, fixes the draws.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor.
        training: Boolean, whether to draw.
        mask: Boolean tensor ``(batch, time)``: masked steps have no divergence.

    Input shape:
        ``(batch, ..., features)``.

    Output shape:
        ``(batch, ..., latent)``.

    Raises:
        ValueError: If ``latent`` is no count or ``beta`` is negative or not finite.

    Example:
        >>> layer = VariationalBottleneck(2, beta=0.1, seed=0)
        >>> code = layer(np.ones((4, 3), "float32"), training=True)
        >>> tuple(code.shape), len(layer.losses)
        ((4, 2), 1)
        >>> tuple(layer.rate(np.ones((4, 3), "float32")).shape)
        (4,)

    References:
        Tishby, Pereira and Bialek, *The Information Bottleneck Method*, 1999,
        https://arxiv.org/abs/physics/0004057; Alemi, Fischer, Dillon and Murphy, *Deep
        Variational Information Bottleneck*, 2017, eq. 17.
        https://arxiv.org/abs/1612.00410
    """

    def __init__(self, latent, beta=1e-3, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.latent = check_count("latent", latent)
        self.beta = check_number("beta", beta)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.dense = keras.layers.Dense(2 * latent, dtype=self.dtype_policy)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs, training=False, mask=None):
        mean, log_variance = self._mean_and_log_variance(inputs)
        kl = ops.sum(kl_to_standard_normal(mean, log_variance), axis=-1)
        self.add_loss(self.beta * masked_mean(kl, mask))
        if training:
            noise = keras.random.normal(
                ops.shape(mean), dtype=mean.dtype, seed=self.seed_generator
            )
            mean = mean + ops.exp(0.5 * log_variance) * noise
        return ops.cast(mean, self.compute_dtype)

    def rate(self, inputs):
        """Divergence of the code of each example from the prior, in nats."""
        if self.built and inputs.shape[-1] != self.dense.kernel.shape[0]:
            raise ValueError(
                f"The layer was built for {self.dense.kernel.shape[0]} features. "
                f"Received: shape={tuple(inputs.shape)}"
            )
        mean, log_variance = self._mean_and_log_variance(inputs)
        return ops.sum(kl_to_standard_normal(mean, log_variance), axis=-1)

    def _mean_and_log_variance(self, inputs):
        both = backend.widen(self.dense(inputs))  # statistics
        return both[..., : self.latent], both[..., self.latent :]

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.latent)

    def get_config(self):
        config = {"latent": self.latent, "beta": self.beta, "seed": self.seed}
        return {**super().get_config(), **config}


class InformationPlane(keras.callbacks.Callback):
    r"""Where each layer stands between :math:`I(X; T)` and :math:`I(T; Y)`.

    At the end of chosen epochs the activations of the layers on ``x`` are binned, see
    ``binned_information``, and both informations are
    stored, in bits. Rows of ``x`` should be distinct and equally probable, and all
    there are: only then is :math:`H(T)` the information about the input.

    What moves in this plane is not what a deterministic network knows but how its
    activations lie relative to the bins. A ``tanh`` layer "compresses" by saturating; a
    layer without a ceiling has none to saturate at. Read it as a picture of the
    activations.

    Attribute ``history``: list of ``(epoch, values)``, epochs counted from 1 and
    ``values`` of shape ``(layers, 2)``. It starts anew with every ``fit``;
    ``ResumableCheckpoint(path, carry=[plane])`` carries it on.

    Args:
        x: Array of inputs.
        y: Array of labels, one for each input.
        layers: List of names of layers, in the order wanted.
        low: Number, the lower end of the bins, or None for the smallest activation of
            the layer at that epoch.
        high: Number, the upper end, or None for the largest.
        bins: Positive integer.
        epochs: Collection of epochs, counted from 1, or None for all.

    Raises:
        ValueError: If ``bins`` is no count, a layer is unknown, or ``x`` and ``y`` have
            different lengths; in ``fit``, if an activation is outside the bins.

    Example:
        >>> x, y = np.array([[-1.0], [-0.5], [0.5], [1.0]]), np.array([0, 0, 1, 1])
        >>> model = keras.Sequential([keras.Input((1,))])
        >>> model.add(keras.layers.Dense(2, "tanh", name="hidden"))
        >>> model.add(keras.layers.Dense(1))
        >>> model.compile("sgd", "mse")
        >>> plane = InformationPlane(x, y, ["hidden"], low=-1, high=1)
        >>> history = model.fit(x, y, epochs=3, verbose=0, callbacks=[plane])
        >>> [epoch for epoch, values in plane.history], plane.history[0][1].shape
        ([1, 2, 3], (1, 2))

    References:
        Shwartz-Ziv and Tishby, *Opening the Black Box of Deep Neural Networks via
        Information*, 2017, https://arxiv.org/abs/1703.00810; Saxe et al., *On the
        Information Bottleneck Theory of Deep Learning*, 2018.
        https://openreview.net/forum?id=ry_WPG-A-
    """

    def __init__(self, x, y, layers, low=None, high=None, bins=30, epochs=None):
        super().__init__()
        self.x, self.y = np.asarray(x), np.asarray(y)
        if len(self.x) != len(self.y):
            raise ValueError(
                "Every input needs a label. "
                f"Received: len(x)={len(self.x)}, len(y)={len(self.y)}"
            )
        self.layers = list(layers)
        self.low, self.high = low, high
        self.bins = check_count("bins", bins)
        self.epochs = None if epochs is None else set(epochs)
        self.history = []

    def on_train_begin(self, logs=None):
        self.history = []
        known = {layer.name: layer for layer in self.model.layers}
        unknown = [name for name in self.layers if name not in known]
        if unknown:
            raise ValueError(
                f"layers must be among {', '.join(known)}. Received: layers={unknown}"
            )
        outputs = [known[name].output for name in self.layers]
        self._inside = keras.Model(self.model.inputs, outputs)

    def on_epoch_end(self, epoch, logs=None):
        if self.epochs is not None and epoch + 1 not in self.epochs:
            return
        values = []
        found = self._inside.predict(self.x, batch_size=len(self.x), verbose=0)
        for t in found if isinstance(found, list) else [found]:
            t = t.reshape(len(self.x), -1)
            low = t.min() if self.low is None else self.low
            high = t.max() if self.high is None else self.high
            high = max(high, low + 1e-6)  # a dead layer has one value only
            values.append(
                binned_information(t, self.y, float(low), float(high), self.bins)
            )
        self.history.append((epoch + 1, np.array(values)))

    def get_state(self):
        return {"history": [(e, v.copy()) for e, v in self.history]}

    def set_state(self, state):
        self.history = [(int(e), np.array(v)) for e, v in state["history"]]
