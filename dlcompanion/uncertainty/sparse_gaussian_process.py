"""The sparse variational Gaussian process, as a last layer of a network."""

import math

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count, check_number, generator
from dlcompanion.probability.values import SCALE_FLOOR, unconstrained


@keras.saving.register_keras_serializable(package="dlcompanion")
class SparseGaussianProcess(keras.layers.Layer):
    r"""Gaussian process with a few inducing points in place of all data.

    A function :math:`f \sim \mathcal{GP}(c, k)` and noise of variance
    :math:`\sigma^2` make the targets. The values :math:`u` at :math:`M` inducing points
    :math:`Z` have a normal distribution :math:`q`, which is trained; everything else
    follows the prior. With :math:`K_{ZZ} = L L^\top`, :math:`u = c + L v`,
    :math:`q(v) = \mathcal N(m, S S^\top)` and :math:`a(x) = L^{-1} k(Z, x)`,

    .. math::

        \mu(x) = c + a(x)^\top m, \qquad
        s^2(x) = k(x, x) - \lVert a(x) \rVert^2 + \lVert S^\top a(x) \rVert^2,

    and the bound on the evidence, an example, is

    .. math:: \log \mathcal N(y;\, \mu(x), \sigma^2) - \frac{s^2(x)}{2 \sigma^2}
        - \frac1N \operatorname{KL}\bigl(q(v) \,\Vert\, \mathcal N(0, I)\bigr) .

    The layer returns what :class:`~dlcompanion.losses.GaussianNLL` and
    :class:`~dlcompanion.probability.NormalSpec` read. **In training** that is
    :math:`(\mu, \sigma)`, and the two other terms are added to the loss, so that
    ``fit`` maximizes the bound, on minibatches too; ``sample_weight`` weighs the first
    two terms, if the layer is the last of the model. **In inference** it is the
    prediction of a new target, :math:`(\mu, \sqrt{s^2 + \sigma^2})`, and nothing is
    added: ``evaluate`` is the predictive likelihood.

    The kernel is :math:`k(x, x') = \alpha^2 \exp\bigl(-\tfrac12 \sum_j
    (x_j - x'_j)^2 / \ell_j^2\bigr)` with a length for every feature; kernel, noise and
    inducing points are trained. Put a network before the layer for a deep kernel. All
    is float32, or float64 under that policy. A step costs :math:`M^2` numbers an
    example and :math:`M^3` a batch, where the exact process costs :math:`N^3`.

    Args:
        units: Positive integer, the outputs. They share kernel and inducing points.
        inducing_points: Positive integer :math:`M`.
        training_examples: Positive integer :math:`N`, the size of the training set.
            Without it the layer predicts, and raises an error in training.
        lengthscale: Positive number, where every :math:`\ell_j` starts.
        noise: Positive number, where :math:`\sigma` starts.
        initializer: Initializer of the inducing points. Better:
            :meth:`place_inducing_points` after ``build``.
        jitter: Positive number, added to the diagonal of :math:`K_{ZZ} / \alpha^2`.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, features)``.

    Output shape:
        ``(batch, 2 * units)``: means, then unconstrained scales.

    Raises:
        ValueError: If a number is out of its range, the input has another rank, or the
            layer is trained without ``training_examples``.

    Example:
        >>> from dlcompanion.losses import GaussianNLL
        >>> x = np.linspace(-1, 1, 20)[:, None]
        >>> layer = SparseGaussianProcess(inducing_points=5, training_examples=20)
        >>> model = keras.Sequential([keras.Input((1,)), layer])
        >>> layer.place_inducing_points(x, seed=0)
        >>> model.compile("adam", GaussianNLL())
        >>> losses = model.fit(x, np.sin(3 * x), verbose=0).history["loss"]

    References:
        Titsias, *Variational Learning of Inducing Variables in Sparse Gaussian
        Processes*, 2009. https://proceedings.mlr.press/v5/titsias09a.html

        Hensman, Fusi & Lawrence, *Gaussian Processes for Big Data*, 2013.
        https://arxiv.org/abs/1309.6835
    """

    def __init__(
        self,
        units=1,
        inducing_points=32,
        training_examples=None,
        lengthscale=1.0,
        noise=0.1,
        initializer="random_normal",
        jitter=1e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.autocast = False
        self.units = check_count("units", units)
        self.inducing_points = check_count("inducing_points", inducing_points)
        if training_examples is not None:
            training_examples = check_count("training_examples", training_examples)
        self.training_examples = training_examples
        self.lengthscale = check_number("lengthscale", lengthscale, open_ends=True)
        self.noise = check_number("noise", noise, SCALE_FLOOR, open_ends=True)
        self.initializer = keras.initializers.get(initializer)
        self.jitter = check_number("jitter", jitter, open_ends=True)

    def build(self, input_shape):
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                "A Gaussian process needs inputs (batch, features). "
                f"Received: input_shape={tuple(input_shape)}"
            )
        m, features = self.inducing_points, input_shape[-1]

        def weight(name, shape, start):
            return self.add_weight(
                name=name, shape=shape, initializer=start, autocast=False,
                dtype=backend.at_least_float32(self.variable_dtype),
            )  # fmt: skip

        constant = keras.initializers.Constant
        self.inducing = weight("inducing", (m, features), self.initializer)
        self.log_lengthscale = weight(
            "log_lengthscale", (features,), constant(math.log(self.lengthscale))
        )
        self.log_amplitude = weight("log_amplitude", (), "zeros")
        self.log_noise = weight("log_noise", (), constant(math.log(self.noise)))
        self.constant = weight("constant", (self.units,), "zeros")
        self.mean = weight("mean", (m, self.units), "zeros")
        # S: below the diagonal as it is, on it the logarithm, so that zeros are I
        self.factor = weight("factor", (self.units, m, m), "zeros")

    def place_inducing_points(self, x, seed=0):
        """Put the inducing points on rows of the data, chosen at random.

        Args:
            x: Array of shape ``(examples, features)``, inputs of this layer; after
                other layers, their output.
            seed: Integer of at least 0.
        """
        x = np.asarray(x, keras.config.floatx())
        if x.ndim != 2 or len(x) < self.inducing_points or not np.isfinite(x).all():
            raise ValueError(
                f"x must hold at least {self.inducing_points} finite rows. "
                f"Received: x.shape={x.shape}"
            )
        rows = generator(seed).permutation(len(x))[: self.inducing_points]
        if not self.built:
            self.build((None, x.shape[1]))
            self.built = True
        self.inducing.assign(x[rows])

    def call(self, inputs, training=False):
        mean, variance = self.posterior(inputs)
        noise = ops.exp(ops.convert_to_tensor(self.log_noise))
        if not training:
            return _packed(mean, ops.sqrt(variance + noise**2))
        if self.training_examples is None:
            raise ValueError(
                "The bound needs the size of the training set. "
                "Received: training_examples=None"
            )
        outputs = _packed(mean, noise * ops.ones_like(mean))
        blur = ops.sum(variance, axis=-1) / (2 * noise**2)  # (batch,)
        divergence = self.divergence() / float(self.training_examples)  # int32 on JAX
        self.add_loss(ops.mean(blur) + divergence)
        backend.attach(outputs, "added_losses", blur)  # weighed by GaussianNLL
        return outputs

    def posterior(self, inputs):
        """Mean and variance of the function, without noise, each ``(batch, units)``."""
        z = ops.convert_to_tensor(self.inducing)
        x = ops.cast(inputs, z.dtype)
        eye = ops.eye(self.inducing_points, dtype=z.dtype)
        lower = ops.cholesky(self._correlation(z, z) + self.jitter * eye)
        a = ops.solve_triangular(lower, self._correlation(z, x), lower=True)  # (M, b)
        spread = ops.einsum("umk,mb->ukb", self._factor(), a)  # (units, M, batch)
        # rounding may leave a variance of -1e-7
        left = ops.maximum(1 - ops.sum(a**2, axis=0), 0.0)  # (batch,)
        variance = left + ops.sum(spread**2, axis=1)  # (units, batch)
        amplitude = ops.exp(ops.convert_to_tensor(self.log_amplitude))
        mean = ops.convert_to_tensor(self.constant) + amplitude * ops.matmul(
            ops.transpose(a), ops.convert_to_tensor(self.mean)
        )
        return mean, amplitude**2 * ops.transpose(variance)

    def divergence(self):
        """KL(q, prior) of all units."""
        factor, mean = self._factor(), ops.convert_to_tensor(self.mean)
        log_diagonal = ops.diagonal(
            ops.convert_to_tensor(self.factor), axis1=-2, axis2=-1
        )
        squares = ops.sum(factor**2) + ops.sum(mean**2)
        count = self.units * self.inducing_points
        return 0.5 * (squares - count) - ops.sum(log_diagonal)

    def _factor(self):
        raw = ops.convert_to_tensor(self.factor)
        eye = ops.eye(self.inducing_points, dtype=raw.dtype)
        below = ops.tril(ops.ones_like(eye), -1)
        return raw * below + ops.exp(raw * eye) * eye

    def _correlation(self, x, y):
        scale = ops.exp(ops.convert_to_tensor(self.log_lengthscale))
        gap = (x[:, None] - y[None]) / scale  # (n, m, features)
        return ops.exp(-0.5 * ops.sum(gap**2, axis=-1))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 2 * self.units)

    def compute_output_spec(self, inputs, training=False):
        dtype = backend.at_least_float32(self.variable_dtype)
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "inducing_points": self.inducing_points,
            "training_examples": self.training_examples,
            "lengthscale": self.lengthscale,
            "noise": self.noise,
            "initializer": keras.initializers.serialize(self.initializer),
            "jitter": self.jitter,
        }


def _packed(mean, scale):
    """Means and the numbers whose softplus, and the floor, are the scales."""
    return ops.concatenate([mean, unconstrained(scale)], axis=-1)
