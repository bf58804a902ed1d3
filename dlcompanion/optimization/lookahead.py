"""Lookahead: k steps forward, one step back."""

import keras
from keras import ops

from dlcompanion.checks import check_count


@keras.saving.register_keras_serializable(package="dlcompanion")
class Lookahead(keras.optimizers.Optimizer):
    r"""Let any optimizer explore, and follow it slowly.

    The inner optimizer moves the *fast* weights :math:`\theta`, which are the
    weights of the model. Every ``k`` steps a second copy, the *slow* weights
    :math:`\phi`, goes a part of the way towards them, and the fast weights start
    again from there:

    .. math::

       \phi \leftarrow \phi + \alpha\,(\theta - \phi), \qquad
       \theta \leftarrow \phi .

    Learning rate, schedule, weight decay, clipping, averaging and gradient
    accumulation belong to the inner optimizer; set them there. With accumulation
    ``k`` counts updates, not micro-batches. The slow weights begin where the model
    stands at the first step, so weights loaded before it are respected. Between
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

    def __init__(self, inner_optimizer, k=5, alpha=0.5, name="lookahead"):
        super().__init__(learning_rate=0.0, name=name)
        check_count("k", k)
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must lie in (0, 1]. Received: alpha={alpha!r}")
        inner_optimizer = keras.optimizers.get(inner_optimizer)
        if isinstance(inner_optimizer, keras.optimizers.LossScaleOptimizer):
            # its branches cannot run inside another optimizer's step on JAX
            raise ValueError(
                "Loss scaling goes outside: LossScaleOptimizer(Lookahead(...)), which "
                "compile() does by itself under mixed_float16. "
                f"Received: inner_optimizer={inner_optimizer!r}"
            )
        self.inner_optimizer = inner_optimizer
        self.k = k
        self.alpha = alpha

    def build(self, variables):
        if self.built:
            return
        variables = list(variables)
        self.inner_optimizer.build(variables)
        self._slow = self.add_optimizer_variables(variables, "slow")
        super().build(variables)

    def apply(self, grads, trainable_variables=None):
        if trainable_variables is None:
            fast = self._trainable_variables
        else:
            fast = list(trainable_variables)
            if not self.built:
                self.build(fast)
            self._check_variables_are_known(fast)
        slow = [self._slow[self._get_variable_index(v)] for v in fast]

        start = ops.equal(self.iterations, 0)
        phi = [_choose(start, v, s) for v, s in zip(fast, slow, strict=True)]
        self.inner_optimizer.apply(grads, fast)
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
        return list(self._slow)

    # The rest of what Keras asks of an optimizer is answered by the inner one.

    @property
    def variables(self):
        return self._variables + self.inner_optimizer.variables

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self):
        return {
            "name": self.name,
            "inner_optimizer": keras.saving.serialize_keras_object(
                self.inner_optimizer
            ),
            "k": self.k,
            "alpha": self.alpha,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        inner = keras.saving.deserialize_keras_object(
            config["inner_optimizer"], custom_objects=custom_objects
        )
        return cls(**{**config, "inner_optimizer": inner})


def _choose(condition, yes, no):
    # JAX does not take variables for tensors here
    return ops.where(condition, ops.convert_to_tensor(yes), ops.convert_to_tensor(no))
