"""What layers with random weights share, and three ways to draw their output."""

import functools

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count
from dlcompanion.training import SavesSeeds
from dlcompanion.uncertainty.stochastic_layers.weight_posterior import (
    NormalPosterior,
    NormalPrior,
)

_BITS = 30  # signs taken from one random integer

REMEDY = (
    "The divergence from the prior belongs to the whole training set and is divided by "
    "its size: pass training_examples=len(x_train) to the layer, or call "
    "dlcompanion.uncertainty.set_training_examples(model, len(x_train)) before fit"
)


class StochasticWeights(SavesSeeds, keras.layers.Layer):
    """Base of the layers whose kernel has a posterior instead of a value.

    A subclass says what it does with a kernel, ``linear(inputs, kernel)``, and calls
    ``add_posteriors(kernel_shape, units)`` in ``build``; one of the mixins of this
    module says how to draw the output, ``respond(inputs)``.

    The divergence from the prior, divided by the number of training examples, is the
    regularizer of the posterior's first variable. So Keras adds it once a step,
    however often the layer is called, in ``fit`` and in ``evaluate``, and not at all
    where the layer is frozen.

    Args:
        activation: Activation, as :class:`keras.layers.Dense` takes it.
        use_bias: Boolean, whether to add a bias.
        kernel_posterior: Posterior of the kernel, default :class:`NormalPosterior`.
        bias_posterior: Posterior of the bias. By default the bias has none: it is a
            number that is trained, as in ``tfp.layers``.
        prior: Prior of kernel and bias, default :class:`NormalPrior`.
        training_examples: Positive integer, the size of the training set.
        seed: Integer seed of the layer's :class:`keras.random.SeedGenerator`.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor.
        training: Whether the output is trained on; draws are made in either case.

    Returns:
        One draw of the output.

    Example:
        >>> from dlcompanion.uncertainty import DenseFlipout
        >>> issubclass(DenseFlipout, StochasticWeights)
        True
    """

    def __init__(
        self,
        activation=None,
        use_bias=True,
        kernel_posterior=None,
        bias_posterior=None,
        prior=None,
        training_examples=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if bias_posterior is not None and not use_bias:
            raise ValueError(
                "bias_posterior needs a bias. Received: use_bias=False, "
                f"bias_posterior={bias_posterior}"
            )
        if training_examples is not None:
            training_examples = check_count("training_examples", training_examples)
        self.activation = keras.activations.get(activation)
        self.use_bias = bool(use_bias)
        if kernel_posterior is None:
            kernel_posterior = NormalPosterior(name="kernel")
        self.kernel_posterior = self._posterior("kernel_posterior", kernel_posterior)
        self.bias_posterior = self._posterior("bias_posterior", bias_posterior)
        prior = NormalPrior() if prior is None else _deserialized(prior)
        if not hasattr(prior, "distribution"):
            raise ValueError(
                f"prior must be a NormalPrior or a SpecPrior. Received: prior={prior!r}"
            )
        self.prior = prior
        self.training_examples = training_examples
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def _posterior(self, name, posterior):
        posterior = _deserialized(posterior)
        if posterior is None:
            return None
        if not hasattr(posterior, "divergence"):
            raise ValueError(
                f"{name} must be a posterior such as NormalPosterior(). "
                f"Received: {name}={posterior!r}"
            )
        return posterior

    def add_posteriors(self, kernel_shape, units):
        """Build the posteriors of kernel and bias; called by ``build``."""
        self._add_posterior(self.kernel_posterior, kernel_shape)
        self.bias = None
        if self.bias_posterior is not None:
            self._add_posterior(self.bias_posterior, (units,))
        elif self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(units,), initializer="zeros", autocast=False
            )

    def _add_posterior(self, posterior, shape):
        if posterior.built:
            raise ValueError(
                "Each kernel and each bias needs a posterior of its own. "
                f"Received: {posterior}, which another one has built"
            )
        posterior.build(shape)
        posterior.weights[0].regularizer = functools.partial(self._penalty, posterior)

    def _penalty(self, posterior, _):
        self._require_training_examples()
        divergence = posterior.divergence(self.prior, self.seed_generator)
        # of the dtype of Keras's own losses, to which it is added
        divergence = ops.cast(
            divergence, backend.at_least_float32(keras.config.floatx())
        )
        divergence = divergence / float(self.training_examples)  # int32 on JAX
        backend.attach(divergence, "is_divergence", True)  # for VariationalModel
        return divergence

    def _require_training_examples(self):
        if self.training_examples is None:
            raise ValueError(f"{REMEDY}. Received: training_examples=None")

    def call(self, inputs, training=None):
        if training:
            self._require_training_examples()
        return self.activation(self.respond(inputs))

    def bias_mean(self):
        """The bias or its mean as float32, 0 where there is none."""
        if self.bias_posterior is not None:
            return self.as_bias(self.bias_posterior.mean())
        return 0.0 if self.bias is None else self.as_bias(self.bias)

    def as_bias(self, vector):
        """A vector of one entry a unit, ready to be added to the output."""
        return ops.convert_to_tensor(vector)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_posterior": serialize(self.kernel_posterior),
            "bias_posterior": serialize(self.bias_posterior),
            "prior": serialize(self.prior),
            "training_examples": self.training_examples,
            "seed": self.seed,
        }


class Reparameterized:
    r"""Mixin: one kernel is drawn for the whole batch.

    .. math:: y_n = x_n \left(\mu + \sigma \odot \varepsilon\right), \qquad
        \varepsilon \sim \mathcal N(0, I) .

    Any posterior will do. All examples share the noise, so the noise of a batch's
    gradient does not average out, however large the batch.

    Example:
        >>> from dlcompanion.uncertainty import DenseReparameterization
        >>> issubclass(DenseReparameterization, Reparameterized)
        True
    """

    def respond(self, inputs):
        kernel = self.kernel_posterior.sample(self.seed_generator)
        outputs = self.linear(inputs, ops.cast(kernel, self.compute_dtype))
        bias = self.bias_mean()
        if self.bias_posterior is not None:
            bias = self.as_bias(self.bias_posterior.sample(self.seed_generator))
        return outputs + ops.cast(bias, outputs.dtype)


class _NeedsNormal:
    """What both estimators below demand of the posteriors."""

    def _posterior(self, name, posterior):
        posterior = super()._posterior(name, posterior)
        if posterior is not None and not isinstance(posterior, NormalPosterior):
            raise ValueError(
                f"{type(self).__name__} needs a NormalPosterior: independent normals. "
                "A layer of the Reparameterization kind takes any posterior. "
                f"Received: {name}={posterior!r}"
            )
        return posterior


class LocallyReparameterized(_NeedsNormal):
    r"""Mixin: the output is drawn instead of the kernel, from its own distribution.

    With independent normal weights the output is normal, and

    .. math:: y_n = x_n \mu + \sqrt{x_n^2\, \sigma^2} \odot \varepsilon_n, \qquad
        \varepsilon_n \sim \mathcal N(0, I),

    (squares entry by entry) has the same distribution as with a kernel drawn for each
    example. Where one example applies the kernel at several positions (a sequence, a
    picture), the noise of the positions is independent, as in the papers: each output
    has the right distribution, their correlation within the example is left out.

    Example:
        >>> from dlcompanion.uncertainty import DenseLocalReparameterization
        >>> issubclass(DenseLocalReparameterization, LocallyReparameterized)
        True
    """

    def respond(self, inputs):
        kernel, bias = self.kernel_posterior, self.bias_posterior
        mean = self.linear(inputs, ops.cast(kernel.mean(), self.compute_dtype))
        # squares leave the range of float16 early
        squares = ops.square(ops.cast(inputs, "float32"))
        variance = self.linear(squares, ops.square(kernel.stddev()))
        if bias is not None:
            variance = variance + self.as_bias(ops.square(bias.stddev()))
        # an input of zeros has no variance, where the root has no gradient
        scale = ops.sqrt(ops.maximum(variance, 1e-20))
        noise = scale * keras.random.normal(
            ops.shape(scale), dtype="float32", seed=self.seed_generator
        )
        noise = noise + ops.cast(self.bias_mean(), noise.dtype)
        return mean + ops.cast(noise, mean.dtype)


class Flipout(_NeedsNormal):
    r"""Mixin: one draw for the batch, its signs flipped anew for every example.

    .. math:: y_n = x_n \mu + \left((x_n \odot s_n)\,(\sigma \odot \varepsilon)
        \right) \odot r_n, \qquad s_n, r_n \in \{-1, 1\} .

    Each example sees the kernel :math:`\mu + \sigma \odot \varepsilon \odot s_n
    r_n^\top`, a draw from the posterior like :math:`\varepsilon` itself, and two
    examples see uncorrelated ones. All positions of one example share its signs.

    Example:
        >>> from dlcompanion.uncertainty import DenseFlipout
        >>> issubclass(DenseFlipout, Flipout)
        True
    """

    def respond(self, inputs):
        kernel, bias, dtype = (
            self.kernel_posterior, self.bias_posterior, self.compute_dtype,
        )  # fmt: skip
        noise = ops.cast(kernel.noise(self.seed_generator), dtype)
        mean = self.linear(inputs, ops.cast(kernel.mean(), dtype))
        mean = mean + ops.cast(self.bias_mean(), dtype)
        sizes = inputs.shape[self.channel_axis], mean.shape[self.channel_axis]
        signs = random_signs(
            ops.shape(inputs)[0], sum(sizes), self.seed_generator, mean.dtype
        )
        rank = len(inputs.shape)
        before = self._spread(signs[:, : sizes[0]], rank)
        after = self._spread(signs[:, sizes[0] :], rank)
        perturbation = self.linear(inputs * before, noise)
        if bias is not None:  # the weight of an input that is always 1
            extra = self.as_bias(bias.noise(self.seed_generator))
            perturbation = perturbation + ops.cast(extra, dtype)
        return mean + perturbation * after

    def _spread(self, signs, rank):
        """Signs of shape (batch, channels), for inputs of this rank."""
        shape = [-1, *[1] * (rank - 1)]
        shape[self.channel_axis] = signs.shape[-1]
        return ops.reshape(signs, shape)


def random_signs(rows, columns, seed, dtype="float32"):
    """Independent signs, each 1 or -1 with equal chance.

    Random numbers cost more than what is done with them: one integer gives the signs
    of 30 columns.

    Args:
        rows: Integer, or an integer tensor.
        columns: Positive integer.
        seed: A :class:`keras.random.SeedGenerator`.
        dtype: String, the dtype of the result.

    Returns:
        Tensor of shape ``(rows, columns)``.

    Example:
        >>> signs = random_signs(4, 3, keras.random.SeedGenerator(0))
        >>> sorted(set(keras.ops.convert_to_numpy(ops.abs(signs)).ravel().tolist()))
        [1.0]
    """
    words = -(-columns // _BITS)
    drawn = keras.random.randint((rows, words), 0, 2**_BITS, dtype="int32", seed=seed)
    places = np.arange(_BITS, dtype="int32")
    bits = ops.bitwise_and(ops.right_shift(drawn[:, :, None], places), 1)
    bits = ops.reshape(bits, (rows, words * _BITS))[:, :columns]
    return ops.cast(2 * bits - 1, dtype)


def set_training_examples(model, training_examples):
    """Tell every Bayesian layer of a model how many examples it is trained on.

    The loss of ``fit`` is a mean over examples, while the divergence from the prior
    belongs to the whole training set: each step may add only ``1 / training_examples``
    of it. A layer that was not told refuses to train. (On TensorFlow a model without a
    known input shape, which ``fit`` both built and refused, has to be made anew.)

    Args:
        model: A :class:`keras.Model` or layer with Bayesian layers in it, the one
            that is trained. May be compiled, and trained already.
        training_examples: Positive integer, the size of the training set.

    Returns:
        How many layers were told.

    Raises:
        ValueError: If ``training_examples`` is no positive integer, or the model has
            no Bayesian layer.

    Example:
        >>> from dlcompanion.uncertainty import DenseFlipout
        >>> model = keras.Sequential([DenseFlipout(8, "relu"), DenseFlipout(1)])
        >>> set_training_examples(model, 1000)
        2
    """
    training_examples = check_count("training_examples", training_examples)
    layers = [model, *backend.flatten_layers(model)]
    layers = {id(k): k for k in layers if isinstance(k, StochasticWeights)}.values()
    if not layers:
        raise ValueError(
            "The model must have a Bayesian layer, such as DenseFlipout. "
            f"Received: model={model.name}, without one"
        )
    for layer in layers:
        layer.training_examples = training_examples
    for function in ("train_function", "test_function"):
        if hasattr(model, function):
            setattr(model, function, None)  # it was compiled with the old number
    backend.drop_programs(model)  # likewise, by fit_in_memory
    return len(layers)


def _deserialized(value):
    if isinstance(value, dict):
        return keras.saving.deserialize_keras_object(value)
    return value
