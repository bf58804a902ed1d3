"""VQ-VAE: an autoencoder whose code is a few numbers of a list."""

import keras
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count, check_number
from dlcompanion.generative.reparameterization import straight_through
from dlcompanion.training import UnsupervisedModel
from dlcompanion.training.masks import masked_mean, spread_mask


class _Quantizer(keras.layers.Layer):
    """Nearest code, straight-through; subclasses say how the codes are learned."""

    codes_are_trained = None  # by gradients

    def __init__(self, codes, commitment=0.25, initializer="random_normal", **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.codes = check_count("codes", codes, least=2)
        self.commitment = check_number("commitment", commitment)
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape):
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__} needs vectors, (batch, ..., features). "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.codebook = self.add_weight(
            name="codebook",
            shape=(self.codes, input_shape[-1]),
            initializer=self.initializer,
            trainable=self.codes_are_trained,
            dtype=backend.at_least_float32(self.variable_dtype),
            autocast=False,
        )

    def call(self, inputs, training=False, mask=None):
        z = ops.cast(inputs, self.codebook.dtype)
        numbers = self.encode(z)
        codes = self.decode(numbers)
        gap = masked_mean(ops.square(z - ops.stop_gradient(codes)), mask)
        self.add_loss(self.commitment * gap)
        self.learn(z, codes, numbers, training, mask)
        # a NaN has no nearest code: it goes on as NaN
        codes = ops.where(ops.isnan(z), z, codes)
        return ops.cast(straight_through(codes, z), inputs.dtype)

    def learn(self, z, codes, numbers, training, mask):
        raise NotImplementedError("a quantizer says how its codes are learned")

    def encode(self, inputs):
        """Number of the nearest code of each vector, int32, without the last axis."""
        e = ops.convert_to_tensor(self.codebook)
        z = ops.stop_gradient(ops.cast(inputs, e.dtype))
        # around the mean of the codes and in units of their spread: nothing cancels far
        # from the origin, and no square leaves the range of float32
        centre = e[:1] + ops.mean(e - e[:1], axis=0, keepdims=True)
        spread = ops.max(ops.abs(e - centre))
        spread = ops.where(spread > 0, spread, ops.ones_like(spread))
        z, e = (z - centre[0]) / spread, (e - centre) / spread
        # less the square of z itself, which all codes share
        distance = ops.sum(e * e, axis=-1) - 2 * ops.matmul(z, ops.transpose(e))
        return ops.cast(ops.argmin(distance, axis=-1), "int32")

    def decode(self, numbers):
        """Codes of the given numbers, ``(..., features)``, differentiable by them."""
        return ops.take(ops.convert_to_tensor(self.codebook), numbers, axis=0)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "codes": self.codes,
            "commitment": self.commitment,
            "initializer": keras.initializers.serialize(self.initializer),
        }


@keras.saving.register_keras_serializable(package="dlcompanion")
class VectorQuantizer(_Quantizer):
    r"""The nearest of a list of codes, which descend on their distance to the inputs.

    .. math::

        k = \arg\min_j \lVert z - e_j \rVert, \qquad y = e_k, \qquad
        \frac{\partial y}{\partial z} := I,

    and to the losses of the model is added, averaged over all numbers,

    .. math::

        \lVert \mathrm{sg}(z) - e_k \rVert^2 +
        \beta \, \lVert z - \mathrm{sg}(e_k) \rVert^2 ,

    with :math:`\mathrm{sg}` for "no gradient": the first moves the code to the vectors
    that it stands for, the second keeps the encoder committed to its codes. The
    gradient of the decoder goes past the code, straight through to the encoder.

    It can stand in any model; :class:`VQVAE` is the one that is made for it.

    Args:
        codes: Integer of at least 2, the length of the list.
        commitment: Number of at least 0, :math:`\beta`.
        initializer: Initializer of the codes.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor.
        training: Boolean, without effect.
        mask: Boolean tensor ``(batch, time)``: masked steps add nothing to the losses.

    Input shape:
        ``(batch, ..., features)``: every vector of the last axis is quantized.

    Output shape:
        As the input. A NaN stays a NaN.

    Raises:
        ValueError: If ``codes`` or ``commitment`` is out of range, or the input has no
            axis of features.

    Example:
        >>> quantizer = VectorQuantizer(codes=4)
        >>> y = quantizer(ops.ones((2, 3, 8)))
        >>> tuple(y.shape), tuple(quantizer.encode(ops.ones((2, 3, 8))).shape)
        ((2, 3, 8), (2, 3))

    References:
        van den Oord, Vinyals and Kavukcuoglu, *Neural Discrete Representation
        Learning*, 2017, eq. 1 to 3. https://arxiv.org/abs/1711.00937
    """

    codes_are_trained = True

    def learn(self, z, codes, numbers, training, mask):
        self.add_loss(masked_mean(ops.square(ops.stop_gradient(z) - codes), mask))


@keras.saving.register_keras_serializable(package="dlcompanion")
class EMAVectorQuantizer(_Quantizer):
    r"""The nearest of a list of codes, which are running means of what they stand for.

    As :class:`VectorQuantizer`, but the codes get no gradient. In training, after each
    batch, with :math:`n_j` vectors nearest to code :math:`j` and :math:`s_j` their sum,

    .. math::

        N_j \leftarrow \gamma N_j + (1 - \gamma) n_j, \qquad
        m_j \leftarrow \gamma m_j + (1 - \gamma) s_j, \qquad
        e_j \leftarrow m_j / N_j ,

    which is k-means on vectors that move. Only the commitment loss is added to those of
    the model. A layer with ``trainable = False`` learns nothing.

    Differences from the paper: :math:`N` and :math:`m` start from zero, so that a code
    is the mean of its vectors from the first batch on, and a code that no vector chose
    in a batch stays where it is. No smoothing constant is needed then.

    Args:
        codes: Integer of at least 2, the length of the list.
        commitment: Number of at least 0, the weight :math:`\beta` of
            :math:`\lVert z - \mathrm{sg}(e_k)\rVert^2`.
        decay: Number in [0, 1), :math:`\gamma`.
        initializer: Initializer of the codes.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor.
        training: Boolean, whether the codes learn.
        mask: Boolean tensor ``(batch, time)``: from masked steps nothing is learned.

    Input shape:
        ``(batch, ..., features)``: every vector of the last axis is quantized.

    Output shape:
        As the input. A NaN stays a NaN, and a batch with one spoils the codes.

    Raises:
        ValueError: If an argument is out of range, or the input has no axis of
            features.

    Example:
        Two codes and two heaps: each code goes to the mean of a heap.

        >>> layer = EMAVectorQuantizer(2, initializer=keras.initializers.Identity())
        >>> import numpy as np
        >>> heaps = np.array([[0, 3], [0, 5], [7, 0], [9, 0]], "float32")
        >>> y = layer(heaps, training=True)
        >>> ops.convert_to_numpy(layer.codebook).tolist()
        [[8.0, 0.0], [0.0, 4.0]]

    References:
        van den Oord, Vinyals and Kavukcuoglu, *Neural Discrete Representation
        Learning*, 2017, appendix A.1. https://arxiv.org/abs/1711.00937
    """

    codes_are_trained = False

    def __init__(
        self,
        codes,
        commitment=0.25,
        decay=0.99,
        initializer="random_normal",
        **kwargs,
    ):
        super().__init__(codes, commitment, initializer, **kwargs)
        self.decay = check_number("decay", decay, 0, 1)
        if decay == 1:
            raise ValueError(f"decay must be below 1. Received: decay={decay}")

    def build(self, input_shape):
        super().build(input_shape)
        settings = {"initializer": "zeros", "trainable": False}
        settings["dtype"] = self.codebook.dtype
        self.counts = self.add_weight(
            name="counts", shape=(self.codes,), autocast=False, **settings
        )
        self.sums = self.add_weight(
            name="sums", shape=self.codebook.shape, autocast=False, **settings
        )

    def learn(self, z, codes, numbers, training, mask):
        if not (training and self.trainable):
            return
        z = ops.reshape(ops.stop_gradient(z), (-1, z.shape[-1]))
        chosen = ops.one_hot(ops.reshape(numbers, (-1,)), self.codes, dtype=z.dtype)
        if mask is not None:
            kept = ops.reshape(spread_mask(mask, numbers), (-1, 1))
            chosen, z = ops.where(kept, chosen, 0), ops.where(kept, z, 0)
        found = ops.sum(chosen, axis=0)
        counts = self.decay * self.counts + (1 - self.decay) * found
        sums = self.decay * self.sums + (1 - self.decay) * ops.matmul(
            ops.transpose(chosen), z
        )
        used = (found > 0)[:, None]
        means = sums / ops.where(used, counts[:, None], 1.0)
        self.counts.assign(counts)
        self.sums.assign(sums)
        codebook = ops.convert_to_tensor(self.codebook)
        self.codebook.assign(ops.where(used, means, codebook))

    def get_config(self):
        return {**super().get_config(), "decay": self.decay}


@keras.saving.register_keras_serializable(package="dlcompanion")
class CodePerplexity(keras.metrics.Metric):
    r"""How many codes are in use: the exponential of the entropy of their frequencies.

    .. math:: \exp\Bigl(-\sum_j \hat p_j \log \hat p_j\Bigr)

    over all numbers seen since the last reset, an epoch in ``fit``: :math:`K` if all
    codes are used alike, 1 if it is always the same one. Codes that are never chosen
    are *dead*; :meth:`dead` counts them.

    Args:
        codes: Integer of at least 2, how many there are.
        name: String.
        **kwargs: Passed on to :class:`keras.metrics.Metric`.

    Raises:
        ValueError: If ``codes`` is not an integer of at least 2.

    Example:
        >>> import numpy as np
        >>> metric = CodePerplexity(4)
        >>> metric.update_state(np.array([0, 2, 2, 0]))
        >>> round(float(metric.result()), 4), int(metric.dead())
        (2.0, 2)
    """

    def __init__(self, codes, name="perplexity", **kwargs):
        super().__init__(name=name, **kwargs)
        self.codes = check_count("codes", codes, least=2)
        self.counts = self.add_variable((self.codes,), "zeros", name="counts")

    def update_state(self, numbers, y_pred=None, sample_weight=None):
        """Count a tensor of numbers of codes, ``(batch, ...)``, weighed by example."""
        chosen = ops.one_hot(numbers, self.codes, dtype=self.dtype)
        chosen = ops.reshape(chosen, (ops.shape(numbers)[0], -1, self.codes))
        if sample_weight is not None:
            weights = ops.cast(sample_weight, self.dtype)
            chosen = ops.reshape(weights, (-1, 1, 1)) * chosen
        self.counts.assign_add(ops.sum(chosen, axis=(0, 1)))

    def result(self):
        counts = ops.convert_to_tensor(self.counts)
        share = counts / ops.maximum(ops.sum(counts), 1.0)
        log = ops.log(ops.where(share > 0, share, 1.0))
        return ops.exp(-ops.sum(share * log))

    def dead(self):
        """How many codes were never chosen."""
        return ops.sum(ops.cast(ops.equal(self.counts, 0), "int32"))

    def get_config(self):
        return {**super().get_config(), "codes": self.codes}


_PARTS = ("encoder", "decoder", "quantizer")


@keras.saving.register_keras_serializable(package="dlcompanion")
class VQVAE(UnsupervisedModel):
    r"""Autoencoder whose code is a few numbers of a list.

    .. math::

        L = \mathbb E\bigl[(x - \hat x)^2\bigr] + \text{losses of the quantizer}, \qquad
        \hat x = \mathrm{decoder}(\mathrm{quantizer}(\mathrm{encoder}(x))) .

    Of :math:`m` vectors quantized by :math:`K` codes, the code of an example takes
    :math:`m \log_2 K` bits. Train with ``fit(x)``; the logs hold ``loss``, ``error``,
    the mean squared error of a number, and ``perplexity``, of the codes in use.

    ``sample_weight`` weighs the error of each example. The losses of the quantizer and
    the perplexity are those of all examples alike: a layer sees no weights. Steps that
    a mask of the decoder's output ``(batch, time, ...)`` leaves out, as of a Masking
    layer in the encoder, count nowhere.

    Args:
        encoder: Keras model from ``(batch, ...)`` to ``(batch, ..., features)``: the
            last axis is a vector to quantize.
        decoder: Keras model from there to the shape of the data.
        quantizer: :class:`VectorQuantizer` or :class:`EMAVectorQuantizer`.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Float tensor of shape ``(batch, ...)``.
        training: Boolean, whether running means of the codes learn.

    Returns:
        Dict with ``"decoded"``, of the shape of the data, and ``"numbers"``, int32,
        which codes were used.

    Raises:
        ValueError: If ``quantizer`` is no quantizer, or targets are given. A NaN in the
            data makes the loss NaN.

    Example:
        >>> encoder = keras.Sequential(
        ...     [keras.layers.Dense(6), keras.layers.Reshape((3, 2))]
        ... )
        >>> decoder = keras.Sequential(
        ...     [keras.layers.Flatten(), keras.layers.Dense(8)]
        ... )
        >>> model = VQVAE(encoder, decoder, VectorQuantizer(codes=4))
        >>> model.compile("adam")
        >>> history = model.fit(ops.ones((4, 8)), verbose=0)
        >>> sorted(history.history), tuple(model.encode(ops.ones((4, 8))).shape)
        (['error', 'loss', 'perplexity'], (4, 3))

    References:
        van den Oord, Vinyals and Kavukcuoglu, *Neural Discrete Representation
        Learning*, 2017. https://arxiv.org/abs/1711.00937
    """

    no_targets = "A VQVAE has no targets: fit(x)."

    def __init__(self, encoder, decoder, quantizer, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(quantizer, (VectorQuantizer, EMAVectorQuantizer)):
            raise ValueError(
                "quantizer must be a VectorQuantizer or an EMAVectorQuantizer. "
                f"Received: quantizer={quantizer!r}"
            )
        self.encoder = encoder
        self.decoder = decoder
        self.quantizer = quantizer
        self.error = keras.metrics.Mean("error")
        self.perplexity = CodePerplexity(quantizer.codes)

    def build(self, input_shape):
        for layer in (self.encoder, self.quantizer, self.decoder):
            if not layer.built:
                layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.built = True

    def call(self, inputs, training=None):
        z = self.encoder(inputs, training=training)
        numbers = self.quantizer.encode(z)  # before the codes move
        codes = self.quantizer(z, training=training)
        decoded = self.decoder(codes, training=training)
        return {"decoded": decoded, "numbers": numbers}

    def example_losses(self, x, outputs):
        decoded = backend.widen(outputs["decoded"])
        error = ops.square(ops.cast(x, decoded.dtype) - decoded)
        numbers, mask = outputs["numbers"], backend.mask_of(outputs["decoded"])
        if mask is None:
            error = ops.mean(ops.reshape(error, (ops.shape(error)[0], -1)), axis=-1)
            self.perplexity.update_state(numbers)
            return {"loss": error, "error": error}
        kept = ops.cast(spread_mask(mask, error), error.dtype)
        axes = tuple(range(1, len(error.shape)))
        count = ops.maximum(ops.sum(kept, axis=axes), 1)
        error = ops.sum(ops.where(kept > 0, error, 0), axis=axes) / count
        kept = ops.reshape(spread_mask(mask, numbers), (-1,))
        self.perplexity.update_state(ops.reshape(numbers, (-1, 1)), sample_weight=kept)
        return {"loss": error, "error": error}

    def encode(self, x):
        """Numbers of the codes of ``x``, int32."""
        return self.quantizer.encode(self.encoder(x, training=False))

    def decode(self, numbers):
        """Data for numbers of codes."""
        return self.decoder(self.quantizer.decode(numbers), training=False)

    def reconstruct(self, x):
        """Data for the codes of ``x``."""
        return self.decode(self.encode(x))

    def get_config(self):
        parts = {name: getattr(self, name) for name in _PARTS}
        parts = {k: keras.saving.serialize_keras_object(v) for k, v in parts.items()}
        return {**super().get_config(), **parts}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in _PARTS
        }
        return cls(**{**config, **parts})
