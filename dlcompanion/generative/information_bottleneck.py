r"""The information bottleneck: keep what tells the target, forget the rest.

=====================================  ===============================================
:class:`VariationalBottleneck`          a layer that pays for every bit it passes on
:class:`InformationPlane`               watches a network by binned information
=====================================  ===============================================
"""

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count, check_number
from dlcompanion.generative.information_estimators import binned_information
from dlcompanion.generative.variational_autoencoder import kl_to_standard_normal
from dlcompanion.training import SavesSeeds


@keras.saving.register_keras_serializable(package="dlcompanion")
class VariationalBottleneck(SavesSeeds, keras.layers.Layer):
    r"""A noisy code whose information about the input has a price (deep VIB).

    The bottleneck asks for a code :math:`Z` that maximises
    :math:`I(Z; Y) - \beta I(Z; X)`. Both have tractable bounds: the log-likelihood of
    the classifier behind the code, and the divergence of the code from a fixed prior.
    Training minimises

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

    Input shape:
        ``(batch, features)``.

    Output shape:
        ``(batch, latent)``.

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
        self.latent = check_count("latent", latent)
        self.beta = check_number("beta", beta)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.dense = keras.layers.Dense(2 * latent, dtype=self.dtype_policy)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs, training=False):
        mean, log_variance = self._mean_and_log_variance(inputs)
        kl = ops.sum(kl_to_standard_normal(mean, log_variance), axis=-1)
        self.add_loss(self.beta * ops.mean(kl))
        if training:
            noise = keras.random.normal(
                ops.shape(mean), dtype="float32", seed=self.seed_generator
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
        both = ops.cast(self.dense(inputs), "float32")  # statistics, so in float32
        return both[..., : self.latent], both[..., self.latent :]

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.latent)

    def get_config(self):
        config = {"latent": self.latent, "beta": self.beta, "seed": self.seed}
        return {**super().get_config(), **config}


class InformationPlane(keras.callbacks.Callback):
    r"""Where each layer stands between :math:`I(X; T)` and :math:`I(T; Y)`.

    At the end of chosen epochs the activations of the layers on ``x`` are binned, see
    :func:`~dlcompanion.generative.binned_information`, and both informations are
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
