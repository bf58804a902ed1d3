"""Bayesian dense layers: every weight has a mean and a standard deviation."""

import keras
from keras import ops

from dlcompanion.checks import check_count
from dlcompanion.uncertainty.stochastic_layers.stochastic_weights import (
    Flipout,
    LocallyReparameterized,
    Reparameterized,
    StochasticWeights,
)


@keras.saving.register_keras_serializable(package="dlcompanion")
class BayesianDense(StochasticWeights):
    r"""Base class of three Bayesian dense layers: all but how the output is drawn.

    The weights of a layer have a distribution :math:`q`, the *posterior*, which is
    trained. The bound on the evidence is the likelihood under draws from it less its
    divergence from the prior, here written as the loss of one example out of
    :math:`N`,

    .. math:: -\mathbb E_{w \sim q} \log p(y_n \mid x_n, w)
        + \frac1N \mathrm{KL}\left(q(w) \,\|\, p(w)\right) .

    The first term is the model's loss, which must be a negative log-likelihood, summed
    over the outputs of one example and averaged over examples (cross-entropy is;
    ``mse`` is that of a normal with variance one half, times the number of outputs).
    The layer adds the second. :math:`N` is ``training_examples``, given here or once
    for the model by :func:`set_training_examples`; without it training raises an
    error.

    Also in inference each call is a draw, as in ``tfp.layers``; see
    :func:`predictive_samples`.

    Args:
        units: Positive integer, the number of outputs.
        activation: Activation, as :class:`keras.layers.Dense` takes it.
        use_bias: Boolean, whether to add a bias.
        kernel_posterior: Posterior of the kernel, default :class:`NormalPosterior`.
        bias_posterior: Posterior of the bias. By default the bias has none: it is a
            number that is trained, as in ``tfp.layers``.
        prior: Prior of kernel and bias: :class:`NormalPrior`, by default with scale 1,
            or :class:`SpecPrior`.
        training_examples: Positive integer, the size of the training set.
        seed: Integer seed of the layer's :class:`keras.random.SeedGenerator`, whose
            state is saved with the layer.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, ..., features)``.

    Output shape:
        ``(batch, ..., units)``.

    Raises:
        ValueError: If ``units`` or ``training_examples`` is no positive integer, a
            posterior or the prior does not fit, or the layer is trained without
            ``training_examples``.

    Example:
        >>> from dlcompanion.uncertainty import DenseFlipout
        >>> issubclass(DenseFlipout, BayesianDense)
        True
    """

    channel_axis = -1

    def __init__(self, units, activation=None, use_bias=True, **kwargs):
        super().__init__(activation=activation, use_bias=use_bias, **kwargs)
        self.supports_masking = True
        self.units = check_count("units", units)

    def build(self, input_shape):
        features = input_shape[-1]
        if len(input_shape) < 2 or features is None:
            raise ValueError(
                "A Bayesian dense layer needs inputs (batch, ..., features) of a known "
                f"number of features. Received: input_shape={tuple(input_shape)}"
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: features})
        self.add_posteriors((features, self.units), self.units)

    def linear(self, inputs, kernel):
        return ops.matmul(inputs, kernel)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="dlcompanion")
class DenseReparameterization(Reparameterized, BayesianDense):
    r"""Bayesian dense layer that draws one kernel a batch: Bayes by backprop.

    .. math:: y_n = a\left(x_n (\mu + \sigma \odot \varepsilon) + b\right), \qquad
        \varepsilon \sim \mathcal N(0, I),

    plus the loss :math:`\mathrm{KL}(q \| p) / N` of :class:`BayesianDense`. Takes any
    posterior, also one that correlates weights; its gradient is the noisiest of the
    three, because all examples of a batch share one draw.

    Arguments, shapes and errors are those of :class:`BayesianDense`.

    Example:
        >>> layer = DenseReparameterization(2, training_examples=100, seed=0)
        >>> x = keras.ops.ones((4, 3))
        >>> y = keras.ops.convert_to_numpy(layer(x))
        >>> y.shape, bool((y == y[0]).all())  # one kernel for the whole batch
        ((4, 2), True)

    References:
        Blundell et al., *Weight Uncertainty in Neural Networks*, 2015.
        https://arxiv.org/abs/1505.05424
    """


@keras.saving.register_keras_serializable(package="dlcompanion")
class DenseLocalReparameterization(LocallyReparameterized, BayesianDense):
    r"""Bayesian dense layer that draws its outputs instead of its kernel.

    .. math:: y_n = a\left(x_n \mu + b
        + \sqrt{x_n^2\, \sigma^2} \odot \varepsilon_n\right), \qquad
        \varepsilon_n \sim \mathcal N(0, I),

    plus the loss :math:`\mathrm{KL}(q \| p) / N` of :class:`BayesianDense`. Every
    example has noise of its own, of the right distribution; needs a
    :class:`NormalPosterior`.

    Arguments, shapes and errors are those of :class:`BayesianDense`.

    Example:
        >>> layer = DenseLocalReparameterization(2, training_examples=100, seed=0)
        >>> y = keras.ops.convert_to_numpy(layer(keras.ops.ones((4, 3))))
        >>> bool((y[0] == y[1]).any())  # every example has its own noise
        False

    References:
        Kingma, Salimans and Welling, *Variational Dropout and the Local
        Reparameterization Trick*, 2015. https://arxiv.org/abs/1506.02557
    """


@keras.saving.register_keras_serializable(package="dlcompanion")
class DenseFlipout(Flipout, BayesianDense):
    r"""Bayesian dense layer that flips the signs of one draw for every example.

    .. math:: y_n = a\left(x_n \mu + b + \left((x_n \odot s_n)\,
        (\sigma \odot \varepsilon)\right) \odot r_n\right), \qquad
        s_n, r_n \in \{-1, 1\} \text{ at random},

    plus the loss :math:`\mathrm{KL}(q \| p) / N` of :class:`BayesianDense`. The
    examples of a batch see uncorrelated kernels at the price of a second product;
    needs a :class:`NormalPosterior`.

    Arguments, shapes and errors are those of :class:`BayesianDense`.

    Example:
        >>> layers = [DenseFlipout(8, "relu", seed=1), DenseFlipout(1, seed=2)]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> model.compile("adam", "mse")
        >>> x, y = keras.random.normal((20, 3), seed=0), keras.ops.ones((20, 1))
        >>> model.fit(x, y, verbose=0)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ValueError: The divergence from the prior ... training_examples=None
        >>> from dlcompanion.uncertainty import set_training_examples
        >>> set_training_examples(model, len(x))
        2
        >>> history = model.fit(x, y, verbose=0)

    References:
        Wen et al., *Flipout: Efficient Pseudo-Independent Weight Perturbations on
        Mini-Batches*, 2018. https://arxiv.org/abs/1803.04386
    """
