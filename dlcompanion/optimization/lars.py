"""LARS: the step of each layer in proportion to its weights."""

import keras
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_number, check_share
from dlcompanion.training.parameters import (
    check_patterns,
    is_bias_or_normalization,
    norm,
    selected,
)


@keras.saving.register_keras_serializable(package="dlcompanion")
class LARS(keras.optimizers.Optimizer):
    r"""SGD with momentum that moves every layer by the same share of its weights.

    With a large batch and a large learning rate, SGD moves some layers by more than
    their own length, and others hardly at all. LARS scales the gradient of each kernel
    by a trust ratio, so that the step is ``trust_coefficient`` times as long as the
    kernel at ``learning_rate=1``:

    .. math::

       \lambda_t = \tau\, \frac{\lVert w_t \rVert}{\lVert g_t + \beta w_t \rVert},
       \qquad
       v_{t+1} = \mu v_t + \eta\, \lambda_t\, (g_t + \beta w_t), \qquad
       w_{t+1} = w_t - v_{t+1} .

    The ratio is 1 if one of the two norms is 0, so that a kernel of zeros moves. Past
    steps stay in :math:`v` as they were made; a new learning rate or ratio does not
    change them.

    Biases and normalization parameters get SGD with momentum, without ratio and
    without decay, also those of attention, whose rank is 2. More variables are
    excluded by patterns, which are saved with the optimizer.

    Equal to ``optax.lars``, with its masks set as the exclusions here. The denominator
    has the norm of the sum, as there; the paper's equation (6) has the sum of the
    norms, :math:`\lVert g \rVert + \beta \lVert w \rVert`, which is never smaller.

    Args:
        learning_rate: Float or a schedule, :math:`\eta`.
        momentum: Float in [0, 1), :math:`\mu`.
        trust_coefficient: Positive float, :math:`\tau`.
        l2: Float of at least 0, :math:`\beta`: the weight decay of the paper, within
            the ratio. The argument ``weight_decay`` is Keras's, outside of it: weights
            are multiplied by ``1 - learning_rate * weight_decay``.
        epsilon: Float of at least 0, added to the norm in the denominator.
        exclude_from_adaptation: List of regular expressions. A variable in whose path
            one of them occurs has the ratio 1.
        exclude_from_decay: List of regular expressions. A variable in whose path one
            of them occurs has neither ``l2`` nor ``weight_decay``.
        name: String, the name of the optimizer.
        **kwargs: Passed on to ``keras.optimizers.Optimizer``.

    Raises:
        ValueError: If a number lies outside its range, if an exclusion is no list of
            regular expressions, or, when the optimizer is built, if one of them selects
            no variable.

    Example:
        >>> weight = keras.Variable([[3.0, 4.0]], name="kernel")
        >>> optimizer = LARS(learning_rate=1.0, trust_coefficient=0.1)
        >>> optimizer.apply([ops.array([[0.0, 100.0]])], [weight])
        >>> [round(float(w), 4) for w in weight.numpy()[0]]  # a step of 0.1 * 5
        [3.0, 3.5]

    References:
        You, Gitman and Ginsburg, *Large Batch Training of Convolutional Networks*,
        2017, algorithm 1. https://arxiv.org/abs/1708.03888
    """

    def __init__(
        self,
        learning_rate=0.1,
        momentum=0.9,
        trust_coefficient=0.001,
        l2=0.0,
        epsilon=0.0,
        exclude_from_adaptation=(),
        exclude_from_decay=(),
        name="lars",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = check_share("momentum", momentum, one=False)
        self.trust_coefficient = check_number(
            "trust_coefficient", trust_coefficient, open_ends=True
        )
        self.l2 = check_number("l2", l2)
        self.epsilon = check_number("epsilon", epsilon)
        self.exclude_from_adaptation = check_patterns(
            "exclude_from_adaptation", exclude_from_adaptation
        )
        self.exclude_from_decay = check_patterns(
            "exclude_from_decay", exclude_from_decay
        )

    def build(self, variables):
        if self.built:
            return
        vectors = [is_bias_or_normalization(variable) for variable in variables]
        self._adapted, self._decayed = (
            [
                not (out or vector)
                for out, vector in zip(
                    selected(name, getattr(self, name), variables), vectors, strict=True
                )
            ]
            for name in ("exclude_from_adaptation", "exclude_from_decay")
        )
        if self.weight_decay is not None:
            super().exclude_from_weight_decay(
                [
                    v
                    for v, kept in zip(variables, self._decayed, strict=True)
                    if not kept
                ]
            )
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient, variable, learning_rate):
        number = backend.variable_number(self, variable)
        velocity = self._velocities[number]
        weight = backend.widen(ops.convert_to_tensor(variable))
        step = ops.cast(backend.dense_gradient(gradient), weight.dtype)
        rate = ops.cast(learning_rate, weight.dtype)
        if self.l2 and self._decayed[number]:
            step = step + self.l2 * weight
        if self._adapted[number]:
            length, size = norm(step), norm(weight)
            defined = ops.logical_and(length > 0, size > 0)
            ratio = size / ops.where(defined, length + self.epsilon, 1.0)
            rate = rate * ops.where(defined, self.trust_coefficient * ratio, 1.0)
        new = self.momentum * ops.cast(velocity, weight.dtype) + rate * step
        self.assign(velocity, ops.cast(new, velocity.dtype))
        self.assign_sub(variable, ops.cast(new, variable.dtype))

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Refused: what is excluded here would not be saved.

        Raises:
            ValueError: Always; patterns in ``exclude_from_decay`` are saved.
        """
        raise ValueError(
            "LARS has its argument exclude_from_decay for that: patterns that are "
            f"saved. Received: var_list={var_list}, var_names={var_names}"
        )

    def rules(self):
        """Dict from the path of each variable to whether it is adapted, and decayed."""
        variables = backend.optimized_variables(self)
        pairs = zip(self._adapted, self._decayed, strict=True)
        return {v.path: pair for v, pair in zip(variables, pairs, strict=True)}

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "trust_coefficient": self.trust_coefficient,
            "l2": self.l2,
            "epsilon": self.epsilon,
            "exclude_from_adaptation": self.exclude_from_adaptation,
            "exclude_from_decay": self.exclude_from_decay,
        }
