"""CompositeOptimizer: several optimizers under one, each with its own variables."""

import functools

import keras
from keras import ops

from dlcompanion import backend
from dlcompanion.training.portable import portable


@keras.saving.register_keras_serializable(package="dlcompanion")
class LossScaling(keras.optimizers.LossScaleOptimizer):
    """Keras's :class:`~keras.optimizers.LossScaleOptimizer`, usable in any step.

    It multiplies the loss by a factor, divides the gradients by it, halves the factor
    and skips the step when a gradient overflows, and doubles it after
    ``dynamic_growth_steps`` steps without overflow. Keras's own ``apply`` cannot be
    called inside a compiled step on JAX; this one can. Nothing else differs.

    Args:
        inner_optimizer: Keras optimizer to wrap.
        initial_scale: Float, the first factor.
        dynamic_growth_steps: Integer, steps without overflow before it doubles.
        name: String, or None.

    Example:
        >>> LossScaling(keras.optimizers.SGD(0.1)).initial_scale
        32768.0
    """

    def get_config(self):
        return portable(super().get_config())

    def apply(self, grads, trainable_variables=None):
        if keras.backend.backend() != "jax":
            super().apply(grads, trainable_variables)
            return
        if not self.built:
            self.build(trainable_variables)

        def step():
            scale = self.dynamic_scale.value
            inner = [g if g is None else g / ops.cast(scale, g.dtype) for g in grads]
            self.inner_optimizer.apply(inner, trainable_variables)
            steps = self.step_counter.value + 1
            grow = steps == self.dynamic_growth_steps
            self.step_counter.assign(ops.where(grow, 0, steps))
            self.dynamic_scale.assign(ops.where(grow, scale * 2, scale))

        def skip():
            self.step_counter.assign(0)
            self.dynamic_scale.assign(self.dynamic_scale * 0.5)

        backend.conditionally(self.check_finite(grads), step, skip)


def with_loss_scaling(optimizer):
    """The optimizer, or the optimizers of a composite, under loss scaling."""
    if isinstance(optimizer, CompositeOptimizer):
        optimizer.scale_losses()
        return optimizer
    if isinstance(optimizer, LossScaling):
        return optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        if optimizer.built:
            raise ValueError(
                "A LossScaleOptimizer must be given before it is built, or as a "
                f"dlcompanion.training.LossScaling. Received: {optimizer.name}"
            )
        return LossScaling(
            optimizer.inner_optimizer,
            optimizer.initial_scale,
            optimizer.dynamic_growth_steps,
            name=optimizer.name,
        )
    return LossScaling(optimizer, name="loss_scale_optimizer")


@keras.saving.register_keras_serializable(package="dlcompanion")
class CompositeOptimizer(keras.optimizers.Optimizer):
    """Several optimizers under one, each for its own variables.

    A GAN has two optimizers, actor-critic methods two or three; ``compile`` takes
    one. On JAX the state of a second one would be lost, and nowhere would it be
    saved. This optimizer holds them by name: its state is the union of theirs, so
    that ``fit`` sees it and ``.keras`` files keep it. Each keeps its own learning
    rate or schedule, its own ``iterations`` and its own loss scale.

    In a :class:`~dlcompanion.training.StepModel` the names are those of the model's
    attributes whose variables each one trains; its method ``optimizer_variables()``
    can say otherwise. Then

    .. code-block:: python

        model.compile(
            optimizer=CompositeOptimizer(
                {"discriminator": keras.optimizers.Adam(4e-4),
                 "generator": keras.optimizers.Adam(1e-4)}
            )
        )

    and inside ``update`` the call ``self.optimizer.apply(gradients, variables)`` goes
    to the optimizer whose variables these are. Outside a StepModel, call
    ``build({"name": variables, ...})`` first.

    A variable may belong to two optimizers (an encoder that two losses train); then
    say which: ``self.optimizer["generator"].apply(gradients, variables)``.

    Args:
        optimizers: Dict from name to Keras optimizer (or what
            :func:`keras.optimizers.get` takes).
        name: String, or None.

    Raises:
        ValueError: If there is no optimizer, an optimizer is given twice, or a name
            is not a string; when building, if the names are not the same, or a
            trainable variable has no optimizer; when applying, if the variables do
            not belong to exactly one optimizer.

    Example:
        >>> a, b = keras.Variable(1.0), keras.Variable(1.0)
        >>> optimizer = CompositeOptimizer(
        ...     {"slow": keras.optimizers.SGD(0.1), "fast": keras.optimizers.SGD(0.5)}
        ... )
        >>> optimizer.build({"slow": [a], "fast": [b]})
        >>> optimizer.apply([keras.ops.ones(())], [b])
        >>> a.numpy().item(), b.numpy().item(), int(optimizer["fast"].iterations)
        (1.0, 0.5, 1)
    """

    def __init__(self, optimizers, name=None):
        super().__init__(learning_rate=0.0, name=name)
        if not isinstance(optimizers, dict) or not optimizers:
            raise ValueError(
                "optimizers must be a dict from name to optimizer, with at least one. "
                f"Received: optimizers={optimizers!r}"
            )
        if not all(isinstance(name, str) for name in optimizers):
            raise ValueError(
                f"Optimizers are named by strings. Received: names={list(optimizers)}"
            )
        inner = {name: keras.optimizers.get(o) for name, o in optimizers.items()}
        if len({id(o) for o in inner.values()}) < len(inner):
            raise ValueError(
                "Each name needs an optimizer of its own, for each has its own state. "
                f"Received: optimizers={optimizers!r}"
            )
        for key, optimizer in inner.items():
            if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                inner[key] = with_loss_scaling(optimizer)
        self._inner = _Hidden(inner)
        self._owned = _Hidden({})  # name -> variables
        self._find_variables = None

    # -- the optimizers ---------------------------------------------------------

    @property
    def names(self):
        """Names of the optimizers, in the order given."""
        return list(self._inner.value)

    def __getitem__(self, name):
        try:
            return self._inner.value[name]
        except KeyError:
            raise KeyError(
                f"No optimizer {name!r} here; there are {self.names}"
            ) from None

    @property
    def owned(self):
        """Dict from name to the variables for which each optimizer was built."""
        return {name: list(owned) for name, owned in self._owned.value.items()}

    def scale_losses(self):
        """Put each optimizer under loss scaling, for ``mixed_float16``."""
        for name, optimizer in self._inner.value.items():
            self._inner.value[name] = with_loss_scaling(optimizer)

    def owner(self, variables):
        """The one optimizer that has all of ``variables``."""
        wanted = {id(v) for v in variables}
        owners = [
            name
            for name, owned in self._owned.value.items()
            if wanted <= {id(v) for v in owned}
        ]
        if len(owners) != 1:
            raise ValueError(
                "The variables must belong to exactly one of the optimizers "
                f"{self.names}; otherwise say which one, as in "
                f"optimizer[{self.names[0]!r}].apply(...). Received: "
                f"{len(wanted)} variables that {owners or 'none of them'} has: "
                f"{[v.path for v in variables][:5]}"
            )
        return self[owners[0]]

    # -- what Keras calls -------------------------------------------------------

    def find_variables_with(self, function):
        """Use ``function() -> {name: variables}`` when Keras builds the optimizer."""
        self._find_variables = _Hidden(function)

    def build(self, variables):
        if self.built:
            return
        if not isinstance(variables, dict):
            if self._find_variables is None:
                raise ValueError(
                    "Which variables belong to which optimizer? Use a "
                    "dlcompanion.training.StepModel, or call "
                    "build({name: variables, ...}). Received: a list of "
                    f"{len(variables)} variables"
                )
            everything, variables = variables, self._find_variables.value()
            self._check_complete(everything, variables)
        if set(variables) != set(self.names):
            raise ValueError(
                "Each optimizer needs its variables, by the same names. Received: "
                f"names={sorted(variables)}, optimizers={sorted(self.names)}"
            )
        for name in self.names:
            owned = list(variables[name])
            self._owned.value[name] = owned
            if not self[name].built:
                self[name].build(owned)
        self.built = True

    def _check_complete(self, everything, variables):
        covered = {id(v) for owned in variables.values() for v in owned}
        left = [v.path for v in everything if id(v) not in covered]
        if left:
            raise ValueError(
                "Each trainable variable needs an optimizer. Name it in "
                "optimizer_variables(), or set trainable=False on its layer. "
                f"Received: variables without one={left}"
            )

    @property
    def variables(self):
        inner = [v for name in self.names for v in self[name].variables]
        return super().variables + inner

    def apply(self, grads, trainable_variables=None):
        if trainable_variables is None:
            raise ValueError(
                "A CompositeOptimizer must be told the variables: "
                "apply(gradients, variables). Received: trainable_variables=None"
            )
        trainable_variables = list(trainable_variables)
        self.owner(trainable_variables).apply(grads, trainable_variables)

    @property
    def iterations(self):
        """The largest number of steps that one of the optimizers has made."""
        return functools.reduce(ops.maximum, [self[n].iterations for n in self.names])

    @property
    def optimizers(self):
        """The optimizers, where callbacks of Keras look for several.

        ``TensorBoard`` then logs each rate, under the optimizer's own name, and
        ``LearningRateScheduler`` and ``ReduceLROnPlateau`` set each.
        """
        return [self[name] for name in self.names]

    @property
    def learning_rate(self):
        raise AttributeError(
            "Each optimizer has its own learning rate: "
            f"optimizer[{self.names[0]!r}].learning_rate"
        )

    @learning_rate.setter
    def learning_rate(self, value):
        raise AttributeError(
            "Each optimizer has its own learning rate: "
            f"optimizer[{self.names[0]!r}].learning_rate = {value!r}"
        )

    def finalize_variable_values(self, var_list):
        wanted = {id(v) for v in var_list}
        for name, owned in self._owned.value.items():
            own = [v for v in owned if id(v) in wanted]
            if own:
                self[name].finalize_variable_values(own)

    def get_config(self):
        return {
            "name": self.name,
            "optimizers": {
                name: portable(keras.saving.serialize_keras_object(self[name]))
                for name in self.names
            },
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        optimizers = {
            name: keras.saving.deserialize_keras_object(
                o, custom_objects=custom_objects
            )
            for name, o in config["optimizers"].items()
        }
        return cls(**{**config, "optimizers": optimizers})


class _Hidden:
    """Holds a value that Keras shall neither track nor save a second time."""

    def __init__(self, value):
        self.value = value
