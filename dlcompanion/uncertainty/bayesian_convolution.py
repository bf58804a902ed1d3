"""Bayesian convolution in one, two and three dimensions."""

import keras
from keras import ops

from dlcompanion.uncertainty.stochastic_layers.stochastic_weights import (
    Flipout,
    LocallyReparameterized,
    Reparameterized,
    StochasticWeights,
)

_KERAS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}


@keras.saving.register_keras_serializable(package="dlcompanion")
class BayesianConvolution(StochasticWeights):
    r"""Base class of nine Bayesian convolutions: all but how the output is drawn.

    The kernel has a posterior :math:`q` instead of a value, and the layer adds
    :math:`\mathrm{KL}(q \,\|\, p) / N` to the loss, where :math:`N` is
    ``training_examples``, given here or once for the model by
    :func:`set_training_examples`; without it training raises an error.
    :class:`BayesianDense` says what the model's own loss has to be.

    Also in inference each call is a draw, as in ``tfp.layers``; see
    :func:`predictive_samples`.

    Args:
        filters: Positive integer, the number of output channels.
        kernel_size: Integer, or tuple of one integer a dimension.
        strides: Integer or tuple of integers.
        padding: ``"valid"``, ``"same"``, or ``"causal"`` in one dimension.
        data_format: ``"channels_last"`` or ``"channels_first"``, by default
            :func:`keras.config.image_data_format`.
        dilation_rate: Integer or tuple of integers.
        groups: Positive integer, the groups of channels that are convolved apart.
        **kwargs: ``activation``, ``use_bias``, ``kernel_posterior``,
            ``bias_posterior``, ``prior``, ``training_examples`` and ``seed`` as in
            :class:`BayesianDense`; the rest is passed on to
            :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, ..., channels)``, or ``(batch, channels, ...)`` with
        ``"channels_first"``, as :class:`keras.layers.Conv2D`.

    Output shape:
        That of Keras's convolution with the same arguments.

    Raises:
        ValueError: If Keras's convolution refuses the arguments or the input shape, a
            posterior or the prior does not fit, or the layer is trained without
            ``training_examples``.

    Example:
        >>> from dlcompanion.uncertainty import Conv2DFlipout
        >>> issubclass(Conv2DFlipout, BayesianConvolution)
        True
    """

    rank = None

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        groups=1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.settings = {
            "filters": filters,
            "kernel_size": kernel_size,
            "strides": strides,
            "padding": padding,
            "data_format": data_format or keras.config.image_data_format(),
            "dilation_rate": dilation_rate,
            "groups": groups,
        }
        checked = self._convolution()
        self.filters = checked.filters
        self.kernel_size = checked.kernel_size
        self.reach = checked.dilation_rate[0] * (checked.kernel_size[0] - 1)
        self.channel_axis = 1 if checked.data_format == "channels_first" else -1
        self.input_spec = keras.layers.InputSpec(ndim=self.rank + 2)

    def _convolution(self):
        """Keras's layer with the same arguments, for its checks and its shapes."""
        return _KERAS[self.rank](**self.settings)

    def build(self, input_shape):
        channels = input_shape[self.channel_axis]
        groups = self.settings["groups"]
        if channels is None or channels % groups:
            raise ValueError(
                "The number of input channels must be known, and a multiple of groups. "
                f"Received: input_shape={tuple(input_shape)}, groups={groups}"
            )
        self.compute_output_shape(input_shape)  # refuses maps smaller than the kernel
        self.input_spec = keras.layers.InputSpec(
            ndim=self.rank + 2, axes={self.channel_axis: channels}
        )
        self.add_posteriors(
            (*self.kernel_size, channels // groups, self.filters), self.filters
        )

    def linear(self, inputs, kernel):
        padding = self.settings["padding"]
        if padding == "causal":
            pads = [[0, 0]] * 3
            pads[1 if self.channel_axis == -1 else 2] = [self.reach, 0]
            inputs, padding = ops.pad(inputs, pads), "valid"
        return ops.conv(
            inputs,
            kernel,
            strides=self.settings["strides"],
            padding=padding,
            data_format=self.settings["data_format"],
            dilation_rate=self.settings["dilation_rate"],
        )

    def as_bias(self, vector):
        if self.channel_axis == -1:
            return ops.convert_to_tensor(vector)
        return ops.reshape(vector, (1, -1, *[1] * self.rank))

    def compute_output_shape(self, input_shape):
        return self._convolution().compute_output_shape(input_shape)

    def get_config(self):
        return {**super().get_config(), **self.settings}


@keras.saving.register_keras_serializable(package="dlcompanion")
class Conv1DReparameterization(Reparameterized, BayesianConvolution):
    r"""Bayesian convolution of sequences: one kernel for the batch.

    Bayes by backprop: :math:`y_n = x_n * (\mu + \sigma \odot \varepsilon)`, with the
    same :math:`\varepsilon` for all examples. Takes any posterior.

    Arguments, shapes and errors are those of :class:`BayesianConvolution`.

    Example:
        >>> layer = Conv1DReparameterization(4, 3, training_examples=100)
        >>> tuple(layer(keras.ops.ones((2, *(8, 3)))).shape)
        (2, 6, 4)

    References:
        Blundell et al., *Weight Uncertainty in Neural Networks*, 2015.
        https://arxiv.org/abs/1505.05424
    """

    rank = 1


@keras.saving.register_keras_serializable(package="dlcompanion")
class Conv1DLocalReparameterization(LocallyReparameterized, BayesianConvolution):
    r"""Bayesian convolution of sequences: the output is drawn, not the kernel.

    :math:`y_n = x_n * \mu + \sqrt{x_n^2 * \sigma^2} \odot \varepsilon_n`, with noise of
    its own for every example and position. Each output has the distribution that a
    drawn kernel would give it; the correlation of positions that share a kernel is
    left out, as in the papers. Needs a :class:`NormalPosterior`.

    Arguments, shapes and errors are those of :class:`BayesianConvolution`.

    Example:
        >>> layer = Conv1DLocalReparameterization(4, 3, training_examples=100)
        >>> tuple(layer(keras.ops.ones((2, *(8, 3)))).shape)
        (2, 6, 4)

    References:
        Kingma, Salimans and Welling, *Variational Dropout and the Local
        Reparameterization Trick*, 2015. https://arxiv.org/abs/1506.02557
    """

    rank = 1


@keras.saving.register_keras_serializable(package="dlcompanion")
class Conv1DFlipout(Flipout, BayesianConvolution):
    r"""Bayesian convolution of sequences: signs flipped for every example.

    :math:`y_n = x_n * \mu + ((x_n \odot s_n) * (\sigma \odot \varepsilon)) \odot r_n`
    with random signs for every example and channel. Needs a
    :class:`NormalPosterior`.

    Arguments, shapes and errors are those of :class:`BayesianConvolution`.

    Example:
        >>> layer = Conv1DFlipout(4, 3, training_examples=100)
        >>> tuple(layer(keras.ops.ones((2, *(8, 3)))).shape)
        (2, 6, 4)

    References:
        Wen et al., *Flipout: Efficient Pseudo-Independent Weight Perturbations on
        Mini-Batches*, 2018. https://arxiv.org/abs/1803.04386
    """

    rank = 1


@keras.saving.register_keras_serializable(package="dlcompanion")
class Conv2DReparameterization(Reparameterized, BayesianConvolution):
    r"""Bayesian convolution of images: one kernel for the batch.

    Bayes by backprop: :math:`y_n = x_n * (\mu + \sigma \odot \varepsilon)`, with the
    same :math:`\varepsilon` for all examples. Takes any posterior.

    Arguments, shapes and errors are those of :class:`BayesianConvolution`.

    Example:
        >>> layer = Conv2DReparameterization(4, 3, training_examples=100)
        >>> tuple(layer(keras.ops.ones((2, *(8, 8, 3)))).shape)
        (2, 6, 6, 4)

    References:
        Blundell et al., *Weight Uncertainty in Neural Networks*, 2015.
        https://arxiv.org/abs/1505.05424
    """

    rank = 2


@keras.saving.register_keras_serializable(package="dlcompanion")
class Conv2DLocalReparameterization(LocallyReparameterized, BayesianConvolution):
    r"""Bayesian convolution of images: the output is drawn, not the kernel.

    :math:`y_n = x_n * \mu + \sqrt{x_n^2 * \sigma^2} \odot \varepsilon_n`, with noise of
    its own for every example and position. Each output has the distribution that a
    drawn kernel would give it; the correlation of positions that share a kernel is
    left out, as in the papers. Needs a :class:`NormalPosterior`.

    Arguments, shapes and errors are those of :class:`BayesianConvolution`.

    Example:
        >>> layer = Conv2DLocalReparameterization(4, 3, training_examples=100)
        >>> tuple(layer(keras.ops.ones((2, *(8, 8, 3)))).shape)
        (2, 6, 6, 4)

    References:
        Kingma, Salimans and Welling, *Variational Dropout and the Local
        Reparameterization Trick*, 2015. https://arxiv.org/abs/1506.02557
    """

    rank = 2


@keras.saving.register_keras_serializable(package="dlcompanion")
class Conv2DFlipout(Flipout, BayesianConvolution):
    r"""Bayesian convolution of images: signs flipped for every example.

    :math:`y_n = x_n * \mu + ((x_n \odot s_n) * (\sigma \odot \varepsilon)) \odot r_n`
    with random signs for every example and channel. Needs a
    :class:`NormalPosterior`.

    Arguments, shapes and errors are those of :class:`BayesianConvolution`.

    Example:
        >>> layer = Conv2DFlipout(4, 3, training_examples=100)
        >>> tuple(layer(keras.ops.ones((2, *(8, 8, 3)))).shape)
        (2, 6, 6, 4)

    References:
        Wen et al., *Flipout: Efficient Pseudo-Independent Weight Perturbations on
        Mini-Batches*, 2018. https://arxiv.org/abs/1803.04386
    """

    rank = 2


@keras.saving.register_keras_serializable(package="dlcompanion")
class Conv3DReparameterization(Reparameterized, BayesianConvolution):
    r"""Bayesian convolution of volumes: one kernel for the batch.

    Bayes by backprop: :math:`y_n = x_n * (\mu + \sigma \odot \varepsilon)`, with the
    same :math:`\varepsilon` for all examples. Takes any posterior.

    Arguments, shapes and errors are those of :class:`BayesianConvolution`.

    Example:
        >>> layer = Conv3DReparameterization(4, 3, training_examples=100)
        >>> tuple(layer(keras.ops.ones((2, *(5, 5, 5, 3)))).shape)
        (2, 3, 3, 3, 4)

    References:
        Blundell et al., *Weight Uncertainty in Neural Networks*, 2015.
        https://arxiv.org/abs/1505.05424
    """

    rank = 3


@keras.saving.register_keras_serializable(package="dlcompanion")
class Conv3DLocalReparameterization(LocallyReparameterized, BayesianConvolution):
    r"""Bayesian convolution of volumes: the output is drawn, not the kernel.

    :math:`y_n = x_n * \mu + \sqrt{x_n^2 * \sigma^2} \odot \varepsilon_n`, with noise of
    its own for every example and position. Each output has the distribution that a
    drawn kernel would give it; the correlation of positions that share a kernel is
    left out, as in the papers. Needs a :class:`NormalPosterior`.

    Arguments, shapes and errors are those of :class:`BayesianConvolution`.

    Example:
        >>> layer = Conv3DLocalReparameterization(4, 3, training_examples=100)
        >>> tuple(layer(keras.ops.ones((2, *(5, 5, 5, 3)))).shape)
        (2, 3, 3, 3, 4)

    References:
        Kingma, Salimans and Welling, *Variational Dropout and the Local
        Reparameterization Trick*, 2015. https://arxiv.org/abs/1506.02557
    """

    rank = 3


@keras.saving.register_keras_serializable(package="dlcompanion")
class Conv3DFlipout(Flipout, BayesianConvolution):
    r"""Bayesian convolution of volumes: signs flipped for every example.

    :math:`y_n = x_n * \mu + ((x_n \odot s_n) * (\sigma \odot \varepsilon)) \odot r_n`
    with random signs for every example and channel. Needs a
    :class:`NormalPosterior`.

    Arguments, shapes and errors are those of :class:`BayesianConvolution`.

    Example:
        >>> layer = Conv3DFlipout(4, 3, training_examples=100)
        >>> tuple(layer(keras.ops.ones((2, *(5, 5, 5, 3)))).shape)
        (2, 3, 3, 3, 4)

    References:
        Wen et al., *Flipout: Efficient Pseudo-Independent Weight Perturbations on
        Mini-Batches*, 2018. https://arxiv.org/abs/1803.04386
    """

    rank = 3
