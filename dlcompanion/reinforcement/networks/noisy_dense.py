"""NoisyDense: a layer that explores by itself, for as long as it pays."""

import keras
from keras import ops

from dlcompanion.checks import check_count, check_number
from dlcompanion.training import SavesSeeds


@keras.saving.register_keras_serializable(package="dlcompanion")
class NoisyDense(SavesSeeds, keras.layers.Layer):
    r"""Dense layer whose weights carry noise of a learned size.

    .. math:: y = \phi\bigl((W + \Sigma \odot \varepsilon^{in}
        \varepsilon^{out\top})^\top x + b + \sigma \odot \varepsilon^{out}\bigr), \qquad
        \varepsilon = \operatorname{sign}(z) \sqrt{|z|}, \quad z \sim N(0, 1)

    With ``training=True`` each call draws one noise for the whole batch; else there is
    none. :math:`\Sigma` and :math:`\sigma` are learned with the rest: where being sure
    pays, they shrink.

    Args:
        units: Positive integer, the number of outputs.
        activation: As in :class:`keras.layers.Dense`.
        noise: Number of at least 0, the initial size of the noise: every element of
            :math:`\Sigma` and :math:`\sigma` begins at ``noise / sqrt(inputs)``.
        seed: Integer, or None for one that is drawn. Decides weights and noise.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, ..., inputs)``.

    Output shape:
        ``(batch, ..., units)``.

    Raises:
        ValueError: If ``units`` is not a positive integer or ``noise`` negative.

    Example:
        >>> layer = NoisyDense(units=2, seed=0)
        >>> x = ops.ones((1, 3))
        >>> tuple(layer(x).shape)
        (1, 2)
        >>> a, b = layer(x, training=True), layer(x, training=True)
        >>> bool(ops.any(a != b)), bool(ops.any(layer(x) != layer(x)))
        (True, False)

    References:
        Fortunato et al., *Noisy Networks for Exploration*, 2018, eqs. 9 to 11.
        https://arxiv.org/abs/1706.10295
    """

    def __init__(self, units, activation=None, noise=0.5, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.units = check_count("units", units)
        self.noise = check_number("noise", noise)
        self.activation = keras.activations.get(activation)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        inputs = input_shape[-1]
        bound = inputs**-0.5

        def uniform(n):
            seed = None if self.seed is None else self.seed + n
            return keras.initializers.RandomUniform(-bound, bound, seed=seed)

        small = keras.initializers.Constant(self.noise * bound)
        kernel, bias = (inputs, self.units), (self.units,)
        self.kernel = self.add_weight(
            name="kernel", shape=kernel, initializer=uniform(0)
        )
        self.bias = self.add_weight(name="bias", shape=bias, initializer=uniform(1))
        self.kernel_noise = self.add_weight(
            name="kernel_noise", shape=kernel, initializer=small
        )
        self.bias_noise = self.add_weight(
            name="bias_noise", shape=bias, initializer=small
        )

    def call(self, inputs, training=False):
        outputs = ops.matmul(inputs, self.kernel) + self.bias
        if training:  # noise of rank one: two vectors, and no noisy kernel is formed
            into, out = (self._draw(n) for n in self.kernel.shape)
            noisy = ops.matmul(inputs * into, self.kernel_noise) + self.bias_noise
            outputs = outputs + noisy * out
        return self.activation(outputs)

    def _draw(self, n):
        z = keras.random.normal(
            (n,), dtype=self.compute_dtype, seed=self.seed_generator
        )
        return ops.sign(z) * ops.sqrt(ops.abs(z))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "noise": self.noise,
            "seed": self.seed,
        }
