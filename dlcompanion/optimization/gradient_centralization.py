"""Gradient centralization: the gradient of each unit's weights has mean zero."""

import keras
from keras import ops

from dlcompanion import backend
from dlcompanion.training import WrappedOptimizer
from dlcompanion.training.parameters import (
    check_patterns,
    is_bias_or_normalization,
    is_embedding,
    selected,
    unit_axes,
)


@keras.saving.register_keras_serializable(package="dlcompanion")
class GradientCentralization(WrappedOptimizer):
    r"""Subtract from the gradient of each unit's weights their mean.

    Let :math:`g_i` be the gradient of the :math:`M` weights that lead into output unit
    :math:`i`, the column of a Dense kernel or a filter of a convolution. The inner
    optimizer is given

    .. math:: \Phi(g_i) = g_i - \frac{1}{M} \sum_{j=1}^{M} g_{ij} .

    This projects the gradient onto the weights of constant sum: with SGD, the sum of
    each unit's weights stays what it was at the start. Biases and normalization
    parameters are left alone, also those of attention, whose rank is 2, and so are
    embeddings, where rows of tokens outside the batch would move. Which axes belong to
    a unit is told by ``dlcompanion.training.parameters.unit_axes``.

    Equal to ``optax.centralize``, whose arrays have the outputs first; equation (1) of
    the paper. The authors' code adds weight decay to the gradient before it is
    centralized, here it is decoupled: the inner optimizer's ``weight_decay``
    multiplies the weights by ``1 - learning_rate * weight_decay``.

    Args:
        inner_optimizer: A :class:`keras.optimizers.Optimizer` or its name.
        exclude: List of regular expressions. A variable in whose path one of them
            occurs is left alone.
        name: String, the name of the optimizer.

    Raises:
        ValueError: If ``exclude`` is no list of regular expressions, or, when the
            optimizer is built, if one of them selects no variable.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> optimizer = GradientCentralization(keras.optimizers.SGD(0.1))
        >>> model.compile(optimizer, loss="mse")
        >>> start = float(ops.sum(model.layers[0].kernel))
        >>> x = ops.reshape(ops.arange(12.0), (4, 3))
        >>> history = model.fit(x, x[:, :1], verbose=0)
        >>> abs(float(ops.sum(model.layers[0].kernel)) - start) < 1e-5
        True

    References:
        Yong, Huang, Hua and Zhang, *Gradient Centralization: A New Optimization
        Technique for Deep Neural Networks*, 2020, equation (1).
        https://arxiv.org/abs/2004.01461
    """

    def __init__(self, inner_optimizer, exclude=(), name="gradient_centralization"):
        super().__init__(inner_optimizer, name=name)
        self.exclude = check_patterns("exclude", exclude)

    def build(self, variables):
        if self.built:
            return
        excluded = selected("exclude", self.exclude, variables)
        self._axes = [
            None
            if out or is_bias_or_normalization(variable) or is_embedding(variable)
            else unit_axes(variable)
            for variable, out in zip(variables, excluded, strict=True)
        ]
        super().build(variables)

    def transform(self, gradient, variable):
        axes = self._axes[backend.variable_number(self, variable)]
        if axes is None:
            return gradient
        return gradient - ops.mean(gradient, axis=axes, keepdims=True)

    def rules(self):
        """Dict from the path of each variable to the axes of its mean, or None."""
        variables = backend.optimized_variables(self)
        return {v.path: axes for v, axes in zip(variables, self._axes, strict=True)}

    def get_config(self):
        return {**super().get_config(), "exclude": self.exclude}
