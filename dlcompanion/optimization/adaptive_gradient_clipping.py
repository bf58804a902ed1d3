"""Adaptive gradient clipping: no gradient longer than a share of its weights."""

import keras
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_number
from dlcompanion.training import WrappedOptimizer
from dlcompanion.training.parameters import check_patterns, norm, selected, unit_axes


@keras.saving.register_keras_serializable(package="dlcompanion")
class AdaptiveGradientClipping(WrappedOptimizer):
    r"""Shorten the gradient of each unit to a share of the length of its weights.

    Clipping at a fixed norm needs a threshold for every model and learning rate. Here
    the gradient :math:`G_i` of the weights :math:`W_i` that lead into output unit
    :math:`i` is compared with these weights,

    .. math::

       G_i \leftarrow \lambda\,
       \frac{\max(\lVert W_i \rVert, \epsilon)}{\lVert G_i \rVert}\, G_i
       \quad \text{if} \quad
       \lVert G_i \rVert > \lambda \max(\lVert W_i \rVert, \epsilon) .

    Biases and normalization parameters are one unit each. Which axes belong to a unit
    of a kernel is told by ``dlcompanion.training.parameters.unit_axes``. The
    authors leave the last layer out: give its name to ``exclude``.

    What is clipped is the gradient of an update: with gradient accumulation the mean of
    the micro-batches, not each of them. The inner optimizer clips and decays after
    that. The gradient of a unit in which an entry is infinite or NaN stays as it is.

    Equal to ``optax.adaptive_grad_clip`` for Dense and two- and three-dimensional
    convolutions; equation (3) of the paper. optax takes every kernel of rank 3 as one
    of attention, here a one-dimensional convolution is told from it by its name.

    Args:
        inner_optimizer: A :class:`keras.optimizers.Optimizer` or its name.
        clipping: Positive float, :math:`\lambda`.
        epsilon: Positive float, by which units that start at zero can move.
        exclude: List of regular expressions. A variable in whose path one of them
            occurs is not clipped.
        name: String, the name of the optimizer.

    Raises:
        ValueError: If ``clipping`` or ``epsilon`` is not positive, if ``exclude`` is no
            list of regular expressions, or, when the optimizer is built, if one of them
            selects no variable.

    Example:
        >>> weight = keras.Variable([[3.0], [4.0]], name="kernel")
        >>> optimizer = AdaptiveGradientClipping(keras.optimizers.SGD(1.0), 0.1)
        >>> optimizer.apply([ops.array([[0.0], [100.0]])], [weight])
        >>> [round(float(w), 4) for w in weight.numpy()[:, 0]]  # a step of 0.1 * 5
        [3.0, 3.5]

    References:
        Brock, De, Smith and Simonyan, *High-Performance Large-Scale Image Recognition
        Without Normalization*, 2021, equation (3). https://arxiv.org/abs/2102.06171
    """

    def __init__(
        self,
        inner_optimizer,
        clipping=0.01,
        epsilon=1e-3,
        exclude=(),
        name="adaptive_gradient_clipping",
    ):
        super().__init__(inner_optimizer, name=name)
        self.clipping = check_number("clipping", clipping, open_ends=True)
        self.epsilon = check_number("epsilon", epsilon, open_ends=True)
        self.exclude = check_patterns("exclude", exclude)

    def build(self, variables):
        if self.built:
            return
        excluded = selected("exclude", self.exclude, variables)
        self._axes = [
            None if out else unit_axes(variable)
            for variable, out in zip(variables, excluded, strict=True)
        ]
        if self.gradient_accumulation_steps:
            self.slot_names = ("sum",)
        super().build(variables)

    def step(self, gradients, variables):
        count = self.gradient_accumulation_steps
        if not count:
            super().step(gradients, variables)
            return
        # Nothing is passed on until the last micro-batch, and then what is clipped of
        # the mean, times the count by which the inner optimizer divides.
        last = backend.completes_update(self)
        passed = list(gradients)
        for i, slot in enumerate(self.slots("sum", variables)):
            if slot is not None and gradients[i] is not None:
                total = slot + backend.dense_gradient(gradients[i])
                clipped = count * self.transform(total / count, variables[i])
                passed[i] = ops.where(last, clipped, ops.zeros_like(clipped))
                slot.assign(ops.where(last, ops.zeros_like(total), total))
        self.inner_optimizer.apply(passed, variables)

    def transform(self, gradient, variable):
        axes = self._axes[backend.variable_number(self, variable)]
        if axes is None:
            return gradient
        wide = backend.widen(gradient)
        weight = ops.cast(ops.convert_to_tensor(variable), wide.dtype)
        largest = self.clipping * ops.maximum(norm(weight, axes), self.epsilon)
        length = norm(wide, axes)
        share = largest / ops.where(length > largest, length, largest)
        return gradient * ops.cast(share, gradient.dtype)

    def rules(self):
        """Dict from the path of each variable to the axes of its norms, or None."""
        variables = backend.optimized_variables(self)
        return {v.path: axes for v, axes in zip(variables, self._axes, strict=True)}

    def get_config(self):
        return {
            **super().get_config(),
            "clipping": self.clipping,
            "epsilon": self.epsilon,
            "exclude": self.exclude,
        }
