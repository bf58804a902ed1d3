"""DropBlock: dropout that takes whole regions of a feature map."""

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_choice, check_count, check_share
from dlcompanion.training import SavesSeeds


@keras.saving.register_keras_serializable(package="dlcompanion")
class DropBlock2D(SavesSeeds, keras.layers.Layer):
    r"""Dropout of contiguous squares, for feature maps with similar neighboring pixels.

    A pixel dropped alone can be read off its neighbors. DropBlock drops squares of
    side :math:`k` instead. In each channel every position :math:`s` at which a square
    fits into the :math:`h \times w` map starts one with probability :math:`\gamma`,

    .. math::

        m_s \sim \mathrm{Bernoulli}(\gamma), \qquad
        M_{ij} = 1 - \max_{s \,\text{covers}\, ij} m_s, \qquad
        y = x \odot M \cdot \frac{\operatorname{count}(M)}{\operatorname{sum}(M)} .

    The paper takes

    .. math::

        \gamma = \frac{\text{rate}}{k^2} \cdot \frac{h\,w}{(h - k + 1)(w - k + 1)},

    which counts an area twice where squares overlap and so drops less than ``rate``.
    Here :math:`\gamma` solves the exact equation: with :math:`n_{ij}` squares that
    can cover a pixel, :math:`\operatorname{mean}_{ij}\,[1 - (1 - \gamma)^{n_{ij}}]`
    equals ``rate``. Pixels at the border lie in fewer squares and survive more often
    than those in the middle, as in the paper.

    With ``block_size=1`` the mask is that of :class:`keras.layers.Dropout`, and the
    scale is one over the kept share of this draw, not of the mean draw. In inference
    the layer does nothing.

    Args:
        rate: Number in [0, 1), the share of each map to drop.
        block_size: Positive integer :math:`k`, the side of the squares, at most the
            height and the width of the map.
        data_format: ``"channels_last"`` or ``"channels_first"``. Defaults to
            :func:`keras.config.image_data_format`.
        seed: Integer seed of the layer's :class:`keras.random.SeedGenerator`, whose
            state is saved with the layer.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor of rank 4.
        training: Whether to drop.

    Input shape:
        ``(batch, height, width, channels)``, or ``(batch, channels, height, width)``
        with ``"channels_first"``. Height and width must be known.

    Output shape:
        As the input.

    Raises:
        ValueError: If ``rate`` is outside [0, 1), ``block_size`` is no positive
            integer or larger than the map, ``data_format`` is unknown, the rank is
            not 4, or height or width are unknown.

    Differences from the paper: exact :math:`\gamma`; the scale is taken over one
    example, all channels together, not over the batch, so that examples stay
    independent; an example whose maps are dropped whole becomes zero; the schedule
    that raises ``rate`` during training is left to the user.

    Example:
        >>> layer = DropBlock2D(0.3, block_size=3, seed=0)
        >>> y = layer(keras.ops.ones((1, 8, 8, 4)), training=True)
        >>> round(float(keras.ops.mean(y)), 4)
        1.0

    References:
        Ghiasi, Lin and Le, *DropBlock: A regularization method for convolutional
        networks*, 2018, eq. 1 and Algorithm 1. https://arxiv.org/abs/1810.12890
    """

    def __init__(self, rate, block_size=7, data_format=None, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        if data_format is None:
            data_format = keras.config.image_data_format()
        self.rate = check_share("rate", rate, one=False)
        self.block_size = check_count("block_size", block_size)
        self.data_format = check_choice(
            "data_format", data_format, ("channels_last", "channels_first")
        )
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        if len(input_shape) != 4:
            raise ValueError(
                "DropBlock2D needs inputs of rank 4, a batch of feature maps. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        first = 1 if self.data_format == "channels_last" else 2
        height, width = input_shape[first : first + 2]
        if height is None or width is None:
            raise ValueError(
                "DropBlock2D needs the height and width of the map to know how many "
                f"squares fit. Received: input_shape={tuple(input_shape)}"
            )
        if self.block_size > min(height, width):
            raise ValueError(
                "block_size must not exceed the height or width of the map. "
                f"Received: block_size={self.block_size}, "
                f"input_shape={tuple(input_shape)}"
            )
        self.input_spec = keras.layers.InputSpec(
            ndim=4, axes={first: height, first + 1: width}
        )
        self.gamma = exact_gamma(self.rate, self.block_size, height, width)

    def call(self, inputs, training=False):
        if not training or self.rate == 0:
            return inputs
        kept = self._mask(inputs)  # float32 (batch, height, width, channels)
        share = ops.mean(kept, axis=(1, 2, 3), keepdims=True)
        weight = kept / ops.maximum(share, 1e-7)  # all dropped: 0 / 1e-7 = 0
        if self.data_format == "channels_first":
            weight = ops.transpose(weight, (0, 3, 1, 2))
        return inputs * ops.cast(weight, inputs.dtype)

    def _mask(self, inputs):
        batch = ops.shape(inputs)[0]
        if self.data_format == "channels_last":
            height, width, channels = inputs.shape[1:]
        else:
            channels, height, width = inputs.shape[1:]
        k = self.block_size
        noise = keras.random.uniform(
            (batch, height - k + 1, width - k + 1, channels),
            dtype="float32",
            seed=self.seed_generator,
        )
        starts = ops.cast(noise < self.gamma, "float32")
        edge = (k - 1, k - 1)
        starts = ops.pad(starts, ((0, 0), edge, edge, (0, 0)))
        return 1 - _largest_in_window(_largest_in_window(starts, k, 1), k, 2)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "rate": self.rate,
            "block_size": self.block_size,
            "data_format": self.data_format,
            "seed": self.seed,
        }


def exact_gamma(rate, block_size, height, width):
    """Chance of a square at one position, so that ``rate`` of the map is dropped.

    Args:
        rate: Number in [0, 1), the share of the map to drop.
        block_size: Integer, the side of the squares.
        height: Integer, the height of the map.
        width: Integer, its width.

    Returns:
        A float in [0, 1).

    Example:
        >>> round(exact_gamma(0.25, 1, 8, 8), 6)
        0.25
        >>> exact_gamma(0.25, 3, 8, 8) > 0.25 / 9 * 64 / 36  # the paper's eq. 1
        True
    """
    rows, columns = _covers(height, block_size), _covers(width, block_size)
    covers = np.outer(rows, columns)  # squares that can cover a pixel
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if np.mean(1 - (1 - middle) ** covers) < rate:
            low = middle
        else:
            high = middle
    return high


def _largest_in_window(x, size, axis):
    """Running maximum along an axis, by windows that double (max_pool is slower)."""
    width = 1
    while width < size:
        step = min(width, size - width)
        before = (slice(None),) * axis
        x = ops.maximum(x[(*before, slice(-step))], x[(*before, slice(step, None))])
        width += step
    return x


def _covers(size, block_size):
    """How many blocks of a line cover each of its places."""
    return np.convolve(np.ones(size - block_size + 1), np.ones(block_size))
