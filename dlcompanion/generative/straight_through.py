"""Straight-through gradients: forward through a step, backward as if it were not."""

import keras
from keras import ops

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
    r"""A quantiser, with the identity for its gradient.

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
