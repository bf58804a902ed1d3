"""Glow: a flow of pictures, with learned matrices between its couplings."""

import keras
from keras import ops

from dlcompanion.checks import check_count, check_number
from dlcompanion.generative.flows.actnorm import ActNorm
from dlcompanion.generative.flows.change_of_variables import NormalizingFlow
from dlcompanion.generative.flows.coupling import AffineCoupling, halves
from dlcompanion.generative.flows.dequantization import LogitTransform
from dlcompanion.generative.flows.invertible_convolution import InvertibleConvolution1x1
from dlcompanion.generative.flows.multiscale import FactorOut, Squeeze


@keras.saving.register_keras_serializable(package="dlcompanion")
class ChannelCoupling(AffineCoupling):
    r"""Affine coupling of pictures: half of the channels moves the other half.

    .. math:: y_1 = x_1, \qquad y_2 = x_2 \odot e^{s(x_1)} + t(x_1),
              \qquad \log |\det \partial y / \partial x| = \sum s(x_1),

    where the halves are of the channels, the network is convolutional, and the sum is
    over places and channels. The log-scale is bounded as in :class:`AffineCoupling`.

    Args:
        conditioner: Keras layer or model from ``(batch, height, width, kept)`` to
            ``(batch, height, width, 2 * moved)``: all shifts first, then all raw
            log-scales.
        swap: Boolean. If true, the second half is kept and the first is moved.
        **kwargs: As :class:`AdditiveCoupling`.

    Call arguments:
        inputs: Tensor of shape ``(batch, height, width, channels)``.
        inverse: Boolean, whether to solve for :math:`x`.
        context: Ignored.

    Output shape:
        That of the input, and the log-determinant, ``(batch,)``.

    Raises:
        ValueError: If the conditioner is no layer or returns another number of
            channels, or if the input is no picture with at least two channels.

    Example:
        >>> coupling = ChannelCoupling(keras.layers.Conv2D(4, 3, padding="same"))
        >>> y, log_det = coupling(keras.ops.ones((5, 6, 6, 4)))
        >>> tuple(y.shape), tuple(log_det.shape)
        ((5, 6, 6, 4), (5,))

    References:
        Kingma & Dhariwal, *Glow: Generative Flow with Invertible 1x1 Convolutions*,
        2018, section 3.3. https://arxiv.org/abs/1807.03039
    """

    def build(self, inputs_shape, context_shape=None):
        if len(inputs_shape) != 4 or inputs_shape[-1] is None or inputs_shape[-1] < 2:
            raise ValueError(
                "ChannelCoupling needs inputs of shape (batch, height, width, "
                "channels) with at least 2 channels. "
                f"Received: inputs_shape={tuple(inputs_shape)}"
            )
        kept, moved = halves(inputs_shape[-1], self.swap)
        seen = (None, *tuple(inputs_shape)[1:-1], kept)
        if not self.conditioner.built:
            self.conditioner.build(seen)
        given = self.conditioner.compute_output_shape(seen)[-1]
        if given != 2 * moved:
            raise ValueError(
                f"ChannelCoupling keeps {kept} channels and moves {moved}: its "
                f"conditioner must return 2 x {moved} channels. Received: {given}"
            )
        self.bound = self.add_weight(
            name="bound", shape=(moved,), initializer="ones", autocast=False
        )

    def call(self, inputs, inverse=False, context=None):
        first = inputs.shape[-1] // 2
        kept, moved = inputs[..., :first], inputs[..., first:]
        if self.swap:
            kept, moved = moved, kept
        params = ops.cast(self.conditioner(kept), inputs.dtype)
        moved, log_det = self.move(moved, params, inverse)
        parts = [moved, kept] if self.swap else [kept, moved]
        return ops.concatenate(parts, axis=-1), ops.sum(log_det, axis=(1, 2))


@keras.saving.register_keras_serializable(package="dlcompanion")
class Glow(NormalizingFlow):
    r"""Multi-scale flow of pictures: normalize, mix, couple, and again.

    A level squeezes the picture (``Squeeze``) and makes ``steps`` steps of
    :class:`ActNorm`, :class:`InvertibleConvolution1x1` and ``ChannelCoupling``.
    Then half of the channels is finished (``FactorOut``): a last coupling gives
    it a normal distribution with mean and scale from the other half, which goes on to
    the next level. A :class:`LogitTransform` in front takes pixels between 0 and 1,
    which should be :func:`dequantize`\ d.

    The convolutions make it an exception among the flows: on TensorFlow's CPU leave
    XLA off.

    Args:
        event_shape: Tuple ``(height, width, channels)``; the sides divide by
            ``2 ** levels``.
        levels: Positive integer, the scales.
        steps: Positive integer, the steps of each level.
        filters: Positive integer, the width of the couplings' networks: convolutions
            of 3 x 3, 1 x 1 and 3 x 3, with ReLU between them.
        margin: As :class:`LogitTransform`; ``None`` leaves it out, for data that are
            not pixels.
        seed: Integer or ``None``, for the rotations and for ``sample``.
        **kwargs: As :class:`NormalizingFlow`. The dtype is that of the couplings'
            networks.

    Input shape:
        ``(batch, height, width, channels)``.

    Output shape:
        ``(batch,)``, the log-density in nats.

    Raises:
        ValueError: If a size is too small or a side does not divide, or as
            :class:`NormalizingFlow`.

    Example:
        >>> flow = Glow((4, 4, 1), levels=1, steps=1, filters=4, seed=0)
        >>> tuple(flow.sample(3, temperature=0.7).shape)
        (3, 4, 4, 1)

    References:
        Kingma & Dhariwal, *Glow: Generative Flow with Invertible 1x1 Convolutions*,
        2018. https://arxiv.org/abs/1807.03039
    """

    def __init__(
        self,
        event_shape,
        levels=2,
        steps=4,
        filters=32,
        margin=0.05,
        seed=None,
        **kwargs,
    ):
        levels = check_count("levels", levels)
        steps = check_count("steps", steps)
        filters = check_count("filters", filters)
        event_shape = tuple(event_shape)
        if len(event_shape) != 3 or any(n % 2**levels for n in event_shape[:2]):
            raise ValueError(
                "Glow needs pictures of shape (height, width, channels) whose sides "
                f"divide by 2 ** levels. Received: event_shape={event_shape}, "
                f"levels={levels}"
            )
        policy = kwargs.get("dtype")
        channels = event_shape[2]
        widths = [4 * channels * 2**level for level in range(levels)]
        transforms = []
        for level in reversed(range(levels)):  # the coarsest is inside the others
            seeds = [
                None if seed is None else seed + level * steps + n for n in range(steps)
            ]
            made = [Squeeze()]
            for n in range(steps):
                made += [ActNorm(), self.mixing(seeds[n])]
                made.append(_coupling(widths[level], filters, False, policy))
            if transforms:
                made.append(_coupling(widths[level], filters, True, policy))
                made.append(FactorOut(transforms))
            transforms = made
        if margin is not None:
            transforms = [LogitTransform(margin), *transforms]
        super().__init__(event_shape, transforms, seed=seed, **kwargs)
        self.levels = levels
        self.steps = steps
        self.filters = filters
        self.margin = margin

    def mixing(self, seed):
        """The layer that mixes the channels of one step; a subclass may have another.

        Args:
            seed: Integer or ``None``.

        Returns:
            A Keras layer.
        """
        return InvertibleConvolution1x1(seed)

    def sample(self, n, temperature=1.0, seed=None):
        """Draw pictures; compiled.

        Args:
            n: Positive integer.
            temperature: Positive number, the factor of the noise. Below one the
                pictures are more typical and less diverse than the data.
            seed: Integer, for a draw that leaves the model's own generator alone.

        Returns:
            Tensor of shape ``(n, height, width, channels)``.
        """
        check_number("temperature", temperature, open_ends=True)
        n = check_count("n", n)
        self._ensure_built()
        seed = self.seed_generator if seed is None else seed
        noise = keras.random.normal((n, *self.noise_shape), seed=seed)
        return self._compiled.to_data(temperature * noise)[0]

    def get_config(self):
        config = super().get_config()
        for name in ("transforms", "context_size"):  # made anew by __init__
            del config[name]
        sizes = {"levels": self.levels, "steps": self.steps, "filters": self.filters}
        return {**config, **sizes, "margin": self.margin}


def _coupling(channels, filters, swap, policy):
    _, moved = halves(channels, swap)
    # small: every coupling starts close to the identity
    small = keras.initializers.VarianceScaling(1e-4)
    settings = {"padding": "same", "data_format": "channels_last", "dtype": policy}
    layers = [
        keras.layers.Conv2D(filters, 3, activation="relu", **settings),
        keras.layers.Conv2D(filters, 1, activation="relu", **settings),
        keras.layers.Conv2D(2 * moved, 3, kernel_initializer=small, **settings),
    ]
    return ChannelCoupling(keras.Sequential(layers), swap)
