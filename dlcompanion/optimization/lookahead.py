"""Lookahead: k steps forward, one step back."""

import keras
from keras import ops

from dlcompanion.checks import check_count, check_share
from dlcompanion.training import WrappedOptimizer


@keras.saving.register_keras_serializable(package="dlcompanion")
class Lookahead(WrappedOptimizer):
    r"""Wrapper of an optimizer whose weights are followed by slow ones.

    The inner optimizer moves the *fast* weights :math:`\theta`, which are the
    weights of the model. Every ``k`` steps a second copy, the *slow* weights
    :math:`\phi`, goes a part of the way towards them, and the fast weights start
    again from there:

    .. math::

       \phi \leftarrow \phi + \alpha\,(\theta - \phi), \qquad
       \theta \leftarrow \phi .

    Learning rate, schedule, weight decay, clipping, averaging and gradient
    accumulation belong to the inner optimizer; set them there. With accumulation
    ``k`` counts updates, not micro-batches. The slow weights begin as the model's
    weights at the first step, so weights loaded before it are respected. Between
    two synchronizations the model holds the fast weights; :attr:`slow_weights`
    are the ones of the paper, equal to the model's after every ``k``-th step.

    Args:
        inner_optimizer: A :class:`keras.optimizers.Optimizer` or its name, the
            one that moves the fast weights.
        k: Positive integer, the fast steps between two synchronizations.
        alpha: Float in (0, 1], how far the slow weights follow. 1 is the inner
            optimizer alone.
        name: String, the name of the optimizer.

    Raises:
        ValueError: If ``k < 1``, if ``alpha`` lies outside (0, 1], or if the inner
            optimizer is a ``LossScaleOptimizer``, which belongs outside.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(Lookahead(keras.optimizers.Adam(1e-2)), loss="mse")
        >>> history = model.fit(keras.ops.ones((8, 3)), keras.ops.ones((8, 1)),
        ...                     epochs=2, verbose=0)
        >>> int(model.optimizer.iterations)
        2

    References:
        Zhang, Lucas, Hinton and Ba, *Lookahead Optimizer: k steps forward, 1 step
        back*, 2019, algorithm 1. https://arxiv.org/abs/1907.08610
    """

    slot_names = ("slow",)

    def __init__(self, inner_optimizer, k=5, alpha=0.5, name="lookahead"):
        super().__init__(inner_optimizer, name=name)
        self.k = check_count("k", k)
        self.alpha = check_share("alpha", alpha, zero=False)

    def step(self, gradients, variables):
        fast, slow = variables, self.slots("slow", variables)
        start = ops.equal(self.iterations, 0)
        phi = [_choose(start, v, s) for v, s in zip(fast, slow, strict=True)]
        self.inner_optimizer.apply(gradients, fast)
        # A second look at the same count, after a micro-batch that was only
        # accumulated or a step skipped for its overflow, changes nothing: there
        # the fast weights are the slow ones already.
        synchronize = ops.equal(ops.mod(self.iterations, self.k), 0)
        for theta, old, variable in zip(fast, phi, slow, strict=True):
            distance = ops.convert_to_tensor(theta) - old
            new = old + ops.cast(self.alpha, old.dtype) * distance
            if theta.constraint is not None:
                new = theta.constraint(new)
            variable.assign(_choose(synchronize, new, old))
            theta.assign(_choose(synchronize, new, theta))

    @property
    def slow_weights(self):
        """List of the slow weights, in the order of the model's variables."""
        return list(self._slots["slow"])

    def get_config(self):
        return {**super().get_config(), "k": self.k, "alpha": self.alpha}


def _choose(condition, yes, no):
    # JAX does not take variables for tensors here
    return ops.where(condition, ops.convert_to_tensor(yes), ops.convert_to_tensor(no))
