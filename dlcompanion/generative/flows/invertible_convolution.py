"""InvertibleConvolution1x1: mixes the channels by a matrix with a known determinant."""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="dlcompanion")
class InvertibleConvolution1x1(keras.layers.Layer):
    r"""Multiply the channels at every place by one learned, invertible matrix.

    Couplings leave half of the channels alone, so something must mix them between
    couplings. A fixed permutation does; a learned matrix :math:`W` is its
    generalization. Written as

    .. math:: W = P L \, (U + \operatorname{diag}(\sigma \odot e^s))

    with a fixed permutation :math:`P`, a unit lower triangular :math:`L`, a strictly
    upper triangular :math:`U` and fixed signs :math:`\sigma`, it cannot become
    singular, its inverse solves two triangular systems, and on :math:`h \times w`
    places

    .. math:: \log |\det \partial y / \partial x| = h \, w \sum_i s_i .

    It starts as a random rotation. On inputs of rank 2 it is a linear flow layer.

    Args:
        seed: Integer or ``None``, for the rotation.
        **kwargs: Passed on to :class:`keras.layers.Layer`. The dtype is that of
            ``keras.config.floatx()`` unless given, whatever the global policy says.

    Call arguments:
        inputs: Tensor of shape ``(batch, ..., channels)``.
        inverse: Boolean, whether to multiply by the inverse.
        context: Ignored; what conditional flows pass to each of their layers.

    Output shape:
        That of the input, and the log-determinant, ``(batch,)``.

    Raises:
        ValueError: If the input has no axis of channels of known size.

    Example:
        >>> layer = InvertibleConvolution1x1(seed=0)
        >>> y, log_det = layer(keras.ops.ones((5, 4, 4, 3)))
        >>> x, _ = layer(y, inverse=True)
        >>> bool(keras.ops.all(keras.ops.isclose(x, 1.0, atol=1e-5)))
        True

    References:
        Kingma & Dhariwal, *Glow: Generative Flow with Invertible 1x1 Convolutions*,
        2018, section 3.2. https://arxiv.org/abs/1807.03039
    """

    def __init__(self, seed=None, **kwargs):
        kwargs.setdefault("dtype", keras.config.floatx())  # densities need float32
        super().__init__(**kwargs)
        self.seed = seed

    def build(self, inputs_shape, context_shape=None):
        if len(inputs_shape) < 2 or None in tuple(inputs_shape)[1:]:
            raise ValueError(
                "InvertibleConvolution1x1 needs inputs of shape (batch, ..., channels) "
                f"of known size. Received: inputs_shape={tuple(inputs_shape)}"
            )
        channels = inputs_shape[-1]
        # like Keras's own generators without a seed, follow set_random_seed
        seed = np.random.randint(2**31) if self.seed is None else self.seed
        noise = np.random.default_rng(seed).normal(size=(channels, channels))
        permutation, lower, upper = _lu(np.linalg.qr(noise)[0])
        diagonal = np.diag(upper)

        def weight(name, value, trainable=True):
            value = value.astype("float32")
            return self.add_weight(
                name=name,
                shape=value.shape,
                initializer=lambda shape, dtype=None: ops.convert_to_tensor(
                    value, dtype
                ),
                trainable=trainable,
                autocast=False,
            )

        self.lower = weight("lower", np.tril(lower, -1))
        self.upper = weight("upper", np.triu(upper, 1))
        self.log_diagonal = weight("log_diagonal", np.log(np.abs(diagonal)))
        self.sign = weight("sign", np.sign(diagonal), trainable=False)
        self.permutation = weight("permutation", permutation, trainable=False)

    def factors(self):
        """The matrices :math:`P`, :math:`L` and the upper triangular third factor."""
        lower = ops.tril(ops.convert_to_tensor(self.lower), -1)
        upper = ops.triu(ops.convert_to_tensor(self.upper), 1)
        diagonal = ops.diag(self.sign * ops.exp(self.log_diagonal))
        unit = ops.eye(lower.shape[0], dtype=lower.dtype)
        return ops.convert_to_tensor(self.permutation), lower + unit, upper + diagonal

    def matrix(self, inverse=False):
        """The matrix :math:`W`, or its inverse, ``(channels, channels)``."""
        permutation, lower, upper = self.factors()
        if not inverse:
            return ops.matmul(permutation, ops.matmul(lower, upper))
        middle = ops.solve_triangular(lower, ops.transpose(permutation), lower=True)
        return ops.solve_triangular(upper, middle)

    def call(self, inputs, inverse=False, context=None):
        matrix = ops.cast(self.matrix(inverse), inputs.dtype)
        places = float(np.prod(inputs.shape[1:-1]))
        log_det = ops.cast(ops.sum(self.log_diagonal) * places, inputs.dtype)
        log_det = ops.broadcast_to(log_det, ops.shape(inputs)[:1])
        outputs = ops.matmul(inputs, ops.transpose(matrix))
        return outputs, (-log_det if inverse else log_det)

    def compute_output_shape(self, inputs_shape):
        return tuple(inputs_shape), tuple(inputs_shape[:1])

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


def _lu(matrix):
    """Permutation, unit lower and upper triangular factor, with partial pivoting."""
    size = len(matrix)
    order, upper, lower = np.arange(size), matrix.copy(), np.zeros_like(matrix)
    for column in range(size):
        pivot = column + np.argmax(np.abs(upper[column:, column]))
        for rows in (order, upper, lower):
            rows[[column, pivot]] = rows[[pivot, column]]
        lower[column, column] = 1
        lower[column + 1 :, column] = (
            upper[column + 1 :, column] / upper[column, column]
        )
        upper[column + 1 :] -= np.outer(lower[column + 1 :, column], upper[column])
    return np.eye(size)[:, order], lower, upper
