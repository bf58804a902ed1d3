r"""Samples that have a slope: pathwise and measure-valued gradients, and layers.

What the score function finds from values of the cost alone
(:mod:`~dlcompanion.generative.score_function`), these find from its slope, or from
differences of it:

=================================  =================================================
:func:`pathwise_gradient`          :math:`x = g_\theta(\varepsilon)`, any sampler
:func:`measure_valued_gradient`    of a normal, for a cost without slope
:class:`GaussianSampler`           the pathwise sample of a normal, as a layer
:class:`GumbelSoftmax`             almost one-hot samples of a categorical, as a layer
=================================  =================================================
"""

import functools
import math

import keras
import numpy as np
from keras import ops

from dlcompanion import autodiff
from dlcompanion.checks import check_count, check_number
from dlcompanion.training import SavesSeeds


def straight_through(forward, backward):
    r"""The value of one tensor with the gradient of another.

    .. math:: y = \text{forward}, \qquad
              \frac{\partial y}{\partial\,\text{backward}} = I .

    Rounding, thresholding and looking up the nearest code have the gradient zero almost
    everywhere. The straight-through estimator puts the identity in its place. It is
    biased, and nothing bounds by how much; it is used because it often works.

    Args:
        forward: Tensor, what the next layer sees. No gradient goes through it.
        backward: Tensor of the same shape and dtype, where the gradient goes.

    Returns:
        Tensor equal to ``forward``, bit for bit where both are finite.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> from dlcompanion import autodiff
        >>> f = lambda x: 3.0 * straight_through(ops.round(x), x)
        >>> float(f(ops.convert_to_tensor(1.7))), float(autodiff.grad(f)(1.7))
        (6.0, 3.0)

    References:
        Bengio, Leonard and Courville, *Estimating or Propagating Gradients Through
        Stochastic Neurons for Conditional Computation*, 2013.
        https://arxiv.org/abs/1308.3432
    """
    forward, backward = ops.convert_to_tensor(forward), ops.convert_to_tensor(backward)
    if tuple(forward.shape) != tuple(backward.shape):
        raise ValueError(
            "straight_through needs two tensors of one shape. Received: "
            f"forward.shape={tuple(forward.shape)}, "
            f"backward.shape={tuple(backward.shape)}"
        )
    # the bracket is exactly zero: the value is not rounded
    return ops.stop_gradient(forward) + (backward - ops.stop_gradient(backward))


@keras.saving.register_keras_serializable(package="dlcompanion")
class StraightThrough(keras.layers.Layer):
    r"""A quantizer, with the identity for its gradient.

    .. math:: y = q(x), \qquad \frac{\partial y}{\partial x} = I .

    Args:
        quantizer: Keras layer that keeps the shape of its input, or an activation in
            any form that :func:`keras.activations.get` knows, also a registered
            function of one's own. Weights of the layer are not trained through it.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, ...)``.

    Output shape:
        As the input.

    Raises:
        ValueError: If ``quantizer`` is neither a layer nor an activation, or changes
            the shape.

    Example:
        >>> from dlcompanion import autodiff
        >>> layer = StraightThrough("hard_tanh")
        >>> f = lambda x: 3.0 * ops.sum(layer(x))
        >>> x = ops.convert_to_tensor([0.5, 2.0])
        >>> float(f(x)), ops.convert_to_numpy(autodiff.grad(f)(x)).tolist()
        (4.5, [3.0, 3.0])

    References:
        Bengio, Leonard and Courville, *Estimating or Propagating Gradients Through
        Stochastic Neurons for Conditional Computation*, 2013.
        https://arxiv.org/abs/1308.3432
    """

    def __init__(self, quantizer, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        if isinstance(quantizer, dict):
            quantizer = keras.saving.deserialize_keras_object(quantizer)
        if quantizer is None:
            raise ValueError(
                "quantizer must be a layer or an activation. Received: quantizer=None"
            )
        if not isinstance(quantizer, keras.layers.Layer):
            quantizer = keras.activations.get(quantizer)
        self.quantizer = quantizer

    def build(self, input_shape):
        if not isinstance(self.quantizer, keras.layers.Layer):
            return
        if not self.quantizer.built:
            self.quantizer.build(input_shape)
        given = self.quantizer.compute_output_shape(input_shape)
        if tuple(given) != tuple(input_shape):
            raise ValueError(
                "quantizer must keep the shape of its input. Received: "
                f"from {tuple(input_shape)} to {tuple(given)}"
            )

    def call(self, inputs):
        quantized = ops.cast(self.quantizer(inputs), inputs.dtype)
        return straight_through(quantized, inputs)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        quantizer = keras.saving.serialize_keras_object(self.quantizer)
        return {**super().get_config(), "quantizer": quantizer}


@keras.saving.register_keras_serializable(package="dlcompanion")
class StraightThroughBernoulli(SavesSeeds, keras.layers.Layer):
    r"""Random bits, with the gradient of their probabilities.

    .. math:: b \sim \mathrm{Bernoulli}(\sigma(x)), \qquad
              \frac{\partial b}{\partial x} := \sigma'(x) .

    The mean of the gradient is exact where the cost is linear in each bit, and only
    there. The bits are drawn in training and in inference.

    Args:
        seed: Integer seed of the layer's :class:`keras.random.SeedGenerator`, whose
            state is saved with the layer.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, ...)``, the logits :math:`x`.

    Output shape:
        As the input: zeros and ones. A NaN stays a NaN.

    Example:
        >>> bits = StraightThroughBernoulli(seed=0)(ops.zeros((1, 1000)))
        >>> sorted(set(ops.convert_to_numpy(bits)[0].tolist()))
        [0.0, 1.0]

    References:
        Bengio, Leonard and Courville, *Estimating or Propagating Gradients Through
        Stochastic Neurons for Conditional Computation*, 2013.
        https://arxiv.org/abs/1308.3432
    """

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs):
        p = ops.sigmoid(ops.cast(inputs, "float32"))
        u = keras.random.uniform(
            ops.shape(inputs), dtype="float32", seed=self.seed_generator
        )
        bits = ops.where(ops.isnan(p), p, ops.cast(u < p, "float32"))
        return ops.cast(straight_through(bits, p), inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


def in_dtype_of(params, values):
    """Tensors of values, whose floats have the dtype of the parameters.

    NumPy draws in float64, and TensorFlow multiplies no float32 by a float64.

    Args:
        params: Float, array or tensor, or structure of them; the first one tells.
        values: Array or tensor, or structure of them.

    Returns:
        The structure of values.

    Example:
        >>> noise = in_dtype_of(np.ones(2, "float32"), np.zeros(3))
        >>> noise.dtype == ops.ones(2, "float32").dtype
        True
    """
    first = keras.tree.flatten(params)[0]
    dtype = keras.config.floatx()
    if not isinstance(first, float):
        dtype = ops.convert_to_tensor(first).dtype  # float32 on JAX, whatever it was

    def like(value):
        value = ops.convert_to_tensor(value)
        return ops.cast(value, dtype) if _is_float(value) else value

    return keras.tree.map_structure(like, values)


def _is_float(tensor):
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return keras.backend.is_float_dtype(dtype)


_TINY = float(np.finfo("float32").tiny)


def pathwise_gradient(sampler, cost, params, noise):
    r"""Pathwise (reparameterization) estimate of the gradient of a mean.

    If :math:`x = g_\theta(\varepsilon)` with noise that knows no parameters, the
    gradient moves inside the expectation and through the cost,

    .. math:: \nabla_\theta \, \mathbb E[f(x)] \approx \frac1n \sum_{i=1}^n
              \nabla_\theta \, f\bigl(g_\theta(\varepsilon_i)\bigr) .

    It sees the slope of the cost where the score function sees its value, hence the
    smaller variance; but it needs a differentiable cost of continuous samples.

    Args:
        sampler: Differentiable function of ``(params, noise)`` that returns samples.
        cost: Differentiable function of samples that returns ``(samples, ...)``.
        params: Float tensor, or structure of them, :math:`\theta`.
        noise: Tensor, or structure of them, the samples on the first axis. Floats are
            taken in the dtype of the parameters.

    Returns:
        The gradient, of the structure of ``params``. Of a batch, ``(samples, ...)``,
        it is the gradient of the *sum* over the batch.

    Raises:
        ValueError: If the costs have no axis of samples or no floating-point dtype.

    Example:
        The mean of :math:`x^2` of a normal is :math:`\mu^2 + 1`.

        >>> noise = np.array([-1.0, 1.0], "float32")
        >>> float(pathwise_gradient(lambda m, e: m + e, ops.square, 3.0, noise))
        6.0

    References:
        Kingma & Welling, *Auto-Encoding Variational Bayes*, 2014, section 2.4.
        https://arxiv.org/abs/1312.6114
    """
    noise = in_dtype_of(params, noise)

    def loss(params):
        costs = _costs(cost(sampler(params, noise)))
        return ops.sum(ops.mean(costs, axis=0))

    return autodiff.grad(loss)(params)


def measure_valued_gradient(cost, mean, scale, samples, seed):
    r"""Gradient of :math:`\mathbb E[f(x)]` by mean and scale of a normal, from values.

    The derivative of a density integrates to zero: it is a difference of two densities,
    times a constant. For one coordinate of :math:`x \sim \mathcal N(\mu, \sigma^2)`,

    .. math::

        \frac{\partial}{\partial \mu} \mathbb E f &= \frac{1}{\sigma\sqrt{2\pi}}
        \, \mathbb E\bigl[f(\mu + \sigma w) - f(\mu - \sigma w)\bigr],
        \qquad w \sim \mathrm{Rayleigh},

        \frac{\partial}{\partial \sigma} \mathbb E f &= \frac1\sigma
        \, \mathbb E\bigl[f(\mu + \sigma m) - f(\mu + \sigma m u)\bigr],
        \qquad m \sim \text{double-sided Maxwell}, \; u \sim U(0, 1),

    where :math:`m u` is standard normal again. Both terms share their draw, which takes
    most of the variance away. No slope of :math:`f` is needed, and the noise of a
    coordinate does not grow with the number of the others as it does for the score
    function; the price is four costs a sample *and coordinate*.

    Args:
        cost: Function of ``(n, ..., dimensions)`` that returns ``(n, ...)``. It need
            not be differentiable.
        mean: Float tensor ``(..., dimensions)``, :math:`\mu`.
        scale: Tensor of the same shape, :math:`\sigma > 0`. It is not checked: a
            negative one gives a wrong sign, zero gives NaN.
        samples: Positive integer, draws of each coordinate. The cost is called once,
            on ``n = 4 * dimensions * samples`` points.
        seed: Integer or :class:`keras.random.SeedGenerator`.

    Returns:
        Pair of gradients, by mean and by scale, each ``(..., dimensions)``. No gradient
        goes through them.

    Raises:
        ValueError: If the shapes differ, there is no axis of dimensions, ``samples``
            is not a positive integer, or the costs are not ``(n, ...)``.

    Example:
        The mean of :math:`x` has slope 1 by the mean of the normal, and 0 by its scale.

        >>> one = np.ones((1,), "float32")
        >>> by_mean, by_scale = measure_valued_gradient(
        ...     lambda x: x[:, 0], 0 * one, one, samples=20_000, seed=0
        ... )
        >>> abs(float(by_mean[0]) - 1) < 0.02, abs(float(by_scale[0])) < 0.02
        (True, True)

    References:
        Mohamed, Rosca, Figurnov and Mnih, *Monte Carlo Gradient Estimation in Machine
        Learning*, 2020, section 6. https://arxiv.org/abs/1906.10652
    """
    check_count("samples", samples)
    mean = ops.stop_gradient(ops.convert_to_tensor(mean))
    scale = ops.stop_gradient(ops.cast(scale, mean.dtype))
    if tuple(mean.shape) != tuple(scale.shape) or not mean.shape:
        raise ValueError(
            "mean and scale must have one shape, (..., dimensions). Received: "
            f"mean.shape={tuple(mean.shape)}, scale.shape={tuple(scale.shape)}"
        )
    if isinstance(seed, int):
        seed = keras.random.SeedGenerator(seed)
    dimensions, dtype = mean.shape[-1], mean.dtype
    shape = (samples, *mean.shape)
    normals = keras.random.normal((5, *shape), dtype=dtype, seed=seed)
    others, a, b, c, sign = (normals[k] for k in range(5))
    rayleigh = ops.sqrt(a * a + b * b)
    # a double-sided Maxwell is the length of three normals with a random sign
    maxwell = ops.sign(sign) * ops.sqrt(a * a + b * b + c * c)
    u = keras.random.uniform(shape, dtype=dtype, seed=seed)
    moved = ops.stack([rayleigh, -rayleigh, maxwell, maxwell * u])  # (4, samples, ...)
    # coordinate i moves alone, the others stay normal: (dimensions, 4, samples, ...)
    only = ops.reshape(
        ops.eye(dimensions, dtype=dtype),
        (dimensions, 1, 1, *[1] * (len(mean.shape) - 1), dimensions),
    )
    z = only * moved + (1 - only) * others
    points = ops.reshape(mean + scale * z, (-1, *mean.shape))
    costs = _costs(cost(points))
    if tuple(costs.shape) != tuple(points.shape[:-1]):
        raise ValueError(
            "cost must return one number a point, (n, ...). Received: "
            f"{tuple(costs.shape)} for points of shape {tuple(points.shape)}"
        )
    costs = ops.reshape(
        ops.stop_gradient(costs), (dimensions, 4, samples, *mean.shape[:-1])
    )
    costs = ops.moveaxis(ops.mean(costs, axis=2), 0, -1)  # (4, ..., dimensions)
    by_mean = (costs[0] - costs[1]) / (scale * math.sqrt(2 * math.pi))
    return by_mean, (costs[2] - costs[3]) / scale


def _costs(costs):
    costs = ops.convert_to_tensor(costs)
    shape, dtype = tuple(costs.shape), keras.backend.standardize_dtype(costs.dtype)
    if not shape or shape[0] == 0 or not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            "cost must return floating-point numbers of shape (samples, ...), one "
            f"sample at least. Received: shape={shape}, dtype={dtype}"
        )
    return costs


@keras.saving.register_keras_serializable(package="dlcompanion")
class GaussianSampler(SavesSeeds, keras.layers.Layer):
    r"""One draw of a diagonal normal, differentiable by its mean and its variance.

    .. math:: z = \mu + e^{\frac12 \log \sigma^2} \odot \varepsilon,
              \qquad \varepsilon \sim \mathcal N(0, I) .

    It draws in training and in inference. A divergence from a prior is left to the
    model: see ``kl_to_standard_normal``.

    Args:
        seed: Integer seed of the layer's :class:`keras.random.SeedGenerator`, whose
            state is saved with the layer.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        A list of two, the mean and the logarithm of the variance, each
        ``(batch, ...)``.

    Output shape:
        As each of the two. NaN in, NaN out.

    Raises:
        ValueError: If the input is not two tensors of one shape.

    Example:
        >>> mean, log_variance = ops.ones((2, 3)), ops.full((2, 3), -40.0)
        >>> z = GaussianSampler(seed=0)([mean, log_variance])
        >>> ops.convert_to_numpy(ops.round(z, 3)).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]

    References:
        Kingma & Welling, *Auto-Encoding Variational Bayes*, 2014, section 2.4.
        https://arxiv.org/abs/1312.6114
    """

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        shapes = [tuple(s) for s in input_shape if isinstance(s, (tuple, list))]
        if len(shapes) != 2 or shapes[0] != shapes[1]:
            raise ValueError(
                "GaussianSampler needs [mean, log_variance] of one shape. "
                f"Received: input_shape={input_shape}"
            )

    def call(self, inputs):
        mean, log_variance = inputs
        noise = keras.random.normal(
            ops.shape(mean), dtype=mean.dtype, seed=self.seed_generator
        )
        return mean + ops.exp(0.5 * log_variance) * noise

    def compute_mask(self, inputs, previous_mask):
        masks = [m for m in keras.tree.flatten(previous_mask) if m is not None]
        return functools.reduce(ops.logical_and, masks) if masks else None

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(package="dlcompanion")
class GumbelSoftmax(SavesSeeds, keras.layers.Layer):
    r"""Almost one-hot draws of a categorical, with a gradient by its logits.

    The largest of :math:`x_k + g_k`, with :math:`g_k` from Gumbel's distribution, is
    class :math:`k` with probability :math:`\mathrm{softmax}(x)_k`. A softmax in place
    of the maximum has a slope,

    .. math:: y = \mathrm{softmax}\Bigl(\frac{x + g}{\tau}\Bigr),
              \qquad g_k = -\log(-\log u_k), \quad u_k \sim U(0, 1) .

    At low temperature :math:`\tau` the draws are nearly one-hot and their gradients
    wild; at high temperature they are smooth, and those of another problem. With
    ``hard=True`` the forward pass gives the one-hot vector itself and the backward pass
    the gradient of :math:`y` (straight-through).

    The temperature is a weight that is not trained, so that it can be lowered during
    training and is saved: ``layer.temperature.assign(0.5)``. The layer draws in
    training and in inference.

    Args:
        temperature: Positive number :math:`\tau`, at the start.
        hard: Boolean, whether to give one-hot vectors.
        seed: Integer seed of the layer's :class:`keras.random.SeedGenerator`, whose
            state is saved with the layer.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, ..., classes)``, the logits.

    Output shape:
        As the input: points of the simplex, or its corners. NaN in, NaN out.

    Raises:
        ValueError: If ``temperature`` is not positive, or there is no axis of classes.

    Example:
        >>> layer = GumbelSoftmax(temperature=0.5, hard=True, seed=0)
        >>> y = ops.convert_to_numpy(layer(ops.zeros((4, 3))))
        >>> sorted(set(y.ravel().tolist())), y.sum(axis=1).tolist()
        ([0.0, 1.0], [1.0, 1.0, 1.0, 1.0])

    References:
        Jang, Gu and Poole, *Categorical Reparameterization with Gumbel-Softmax*, 2017,
        https://arxiv.org/abs/1611.01144; Maddison, Mnih and Teh, *The Concrete
        Distribution*, 2017, https://arxiv.org/abs/1611.00712.
    """

    def __init__(self, temperature=1.0, hard=False, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        check_number("temperature", temperature, low=0.0)
        if temperature == 0:
            raise ValueError(
                f"temperature must be positive. Received: temperature={temperature}"
            )
        self.start_temperature = float(temperature)
        self.hard = bool(hard)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(
                "GumbelSoftmax needs logits of shape (batch, ..., classes). "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.temperature = self.add_weight(
            name="temperature",
            shape=(),
            initializer=keras.initializers.Constant(self.start_temperature),
            trainable=False,
            dtype="float32",
            autocast=False,
        )

    def call(self, inputs):
        logits = ops.cast(inputs, "float32")
        u = keras.random.uniform(
            ops.shape(inputs), _TINY, 1.0, dtype="float32", seed=self.seed_generator
        )
        x = logits - ops.log(-ops.log(u))
        x = x - ops.stop_gradient(ops.max(x, axis=-1, keepdims=True))  # or it overflows
        y = ops.softmax(x / self.temperature, axis=-1)
        if self.hard:
            one_hot = ops.one_hot(ops.argmax(y, axis=-1), y.shape[-1], dtype=y.dtype)
            # 0 * y keeps a NaN
            y = straight_through(one_hot + 0 * y, y)
        return ops.cast(y, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "temperature": self.start_temperature,
            "hard": self.hard,
            "seed": self.seed,
        }
