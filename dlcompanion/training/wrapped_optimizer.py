"""WrappedOptimizer: what an optimizer around another optimizer needs."""

import keras

from dlcompanion import backend
from dlcompanion.training.optimizers import CompositeOptimizer
from dlcompanion.training.portable import portable


def _delegated(name, alone=None):
    """Property of the inner optimizer; ``alone`` while the outer one is made."""

    def get(self):
        return getattr(self.inner_optimizer, name) if self._delegates else alone

    def set(self, value):
        if self._delegates:
            setattr(self.inner_optimizer, name, value)

    return property(get, set)


@keras.saving.register_keras_serializable(package="dlcompanion")
class WrappedOptimizer(keras.optimizers.Optimizer):
    r"""An optimizer that changes what another one is given, or what it does.

    Keras has no hook between gradients and optimizer. A subclass of this class is one:
    it is used like any optimizer, and in its place an inner optimizer makes the steps.
    One method is defined by it, either

    - :meth:`transform`, for a change of each gradient by itself, or
    - :meth:`step`, which is one whole step and calls the inner optimizer.

    .. code-block:: python

        @keras.saving.register_keras_serializable(package="my_package")
        class GradientCentralization(WrappedOptimizer):
            def transform(self, gradient, variable):
                if len(gradient.shape) < 2:
                    return gradient
                axes = tuple(range(len(gradient.shape) - 1))
                return gradient - ops.mean(gradient, axis=axes, keepdims=True)

    Arguments are added as in any Keras optimizer: stored by ``__init__``, which passes
    the inner optimizer on, and returned by ``get_config``. State of each variable is
    declared by ``slot_names``, and found by :meth:`slots`; it begins as zeros:

    .. code-block:: python

        class Delayed(WrappedOptimizer):
            slot_names = ("last",)

            def step(self, gradients, variables):
                last = self.slots("last", variables)
                before = [ops.copy(ops.convert_to_tensor(slot)) for slot in last]
                for slot, gradient in zip(last, gradients, strict=True):
                    slot.assign(gradient)
                self.inner_optimizer.apply(before, variables)

    Learning rate and schedule, ``iterations``, weight decay and its exclusions,
    clipping, averages of the weights, gradient accumulation and loss scale are those of
    the inner optimizer: set on either, they are set there. An inner optimizer may be
    wrapped itself. With accumulation :meth:`step` is called for each micro-batch, while
    ``iterations`` counts updates.

    A step is compiled, so no Python branch may depend on a value: write
    ``ops.where``. On JAX ``slot.assign(variable)`` would share memory: copy first.

    Args:
        inner_optimizer: A :class:`keras.optimizers.Optimizer` or its name.
        name: String, the name of the optimizer, or None.

    Raises:
        ValueError: If the inner optimizer is a ``LossScaleOptimizer`` or a
            :class:`~dlcompanion.training.CompositeOptimizer`, which belong outside.

    Example:
        >>> from keras import ops
        >>> class Sign(WrappedOptimizer):
        ...     def transform(self, gradient, variable):
        ...         return ops.sign(gradient)
        >>> weight = keras.Variable([1.0, 1.0])
        >>> optimizer = Sign(keras.optimizers.SGD(0.5))
        >>> optimizer.apply([ops.array([0.1, -7.0])], [weight])
        >>> weight.numpy().tolist(), int(optimizer.iterations)
        ([0.5, 1.5], 1)
    """

    #: Names of the slots that each variable has.
    slot_names = ()

    _delegates = False

    def __init__(self, inner_optimizer, name=None):
        super().__init__(learning_rate=0.0, name=name)
        inner_optimizer = keras.optimizers.get(inner_optimizer)
        kind = type(self).__name__
        if isinstance(inner_optimizer, keras.optimizers.LossScaleOptimizer):
            # its branches cannot run inside another optimizer's step on JAX
            raise ValueError(
                f"Loss scaling goes outside: LossScaleOptimizer({kind}(...)), which "
                "compile() does by itself under mixed_float16. "
                f"Received: inner_optimizer={inner_optimizer!r}"
            )
        if isinstance(inner_optimizer, CompositeOptimizer):
            raise ValueError(
                "Several optimizers go outside: CompositeOptimizer({'name': "
                f"{kind}(...), ...}}). Received: inner_optimizer={inner_optimizer!r}"
            )
        self.inner_optimizer = inner_optimizer
        self._delegates = True

    # -- what a subclass defines --------------------------------------------------

    def transform(self, gradient, variable):
        """Another gradient in the place of this one.

        Args:
            gradient: Tensor of the shape of ``variable``.
            variable: Keras variable.

        Returns:
            Tensor of the same shape.
        """
        return gradient

    def step(self, gradients, variables):
        """One step; by default the inner optimizer's, on transformed gradients.

        Args:
            gradients: List of tensors, None for a variable without a gradient.
            variables: List of the Keras variables, those the optimizer was built for
                or some of them.
        """
        changed = [
            gradient
            if gradient is None or getattr(variable, "overwrite_with_gradient", False)
            else self.transform(backend.dense_gradient(gradient), variable)
            for gradient, variable in zip(gradients, variables, strict=True)
        ]
        self.inner_optimizer.apply(changed, variables)

    def slots(self, name, variables):
        """The slots of that name, one for each of ``variables``."""
        slots = self._slots[name]
        return [slots[backend.variable_number(self, v)] for v in variables]

    # -- what Keras calls ---------------------------------------------------------

    def build(self, variables):
        if self.built:
            return
        variables = list(variables)
        self.inner_optimizer.build(variables)
        self._slots = {
            name: self.add_optimizer_variables(variables, name)
            for name in self.slot_names
        }
        self._delegates = False  # averages and accumulators are made once, inside
        super().build(variables)
        self._delegates = True

    def apply(self, grads, trainable_variables=None):
        if len(grads) == 0:
            return
        if trainable_variables is None:
            if not self.built:
                raise ValueError(
                    "Gradients without variables need an optimizer that is built: call "
                    "build(variables) first. Received: trainable_variables=None"
                )
            variables = backend.optimized_variables(self)
        else:
            variables = list(trainable_variables)
            if not self.built:
                self.build(variables)
            backend.check_optimized(self, variables)
        self.step(list(grads), variables)

    def apply_gradients(self, grads_and_vars):
        super().apply_gradients(grads_and_vars)
        return self.iterations

    @property
    def variables(self):
        return super().variables + self.inner_optimizer.variables

    def set_weights(self, weights):
        own = len(super().variables)
        super().set_weights(weights[:own])
        self.inner_optimizer.set_weights(weights[own:])

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    learning_rate = _delegated("learning_rate")
    weight_decay = _delegated("weight_decay")
    clipnorm = _delegated("clipnorm")
    clipvalue = _delegated("clipvalue")
    global_clipnorm = _delegated("global_clipnorm")
    use_ema = _delegated("use_ema", False)
    ema_momentum = _delegated("ema_momentum")
    ema_overwrite_frequency = _delegated("ema_overwrite_frequency")
    gradient_accumulation_steps = _delegated("gradient_accumulation_steps")
    loss_scale_factor = _delegated("loss_scale_factor")

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)

    @property
    def _model_variables_moving_average(self):  # where SwapEMAWeights looks for it
        return self.inner_optimizer._model_variables_moving_average

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner_optimizer)
        return {"name": self.name, "inner_optimizer": portable(inner)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        inner = keras.saving.deserialize_keras_object(
            config["inner_optimizer"], custom_objects=custom_objects
        )
        return cls(**{**config, "inner_optimizer": inner})
