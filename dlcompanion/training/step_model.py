"""StepModel: a training step written once, for three backends."""

import keras
import numpy as np
from keras import ops

from dlcompanion import autodiff, backend
from dlcompanion.training.optimizers import CompositeOptimizer, with_loss_scaling
from dlcompanion.training.portable import portable


class StepModel(keras.Model):
    """A model whose training step is one method, written as one would say it.

    Keras leaves ``train_step`` to each backend: a tape on TensorFlow, ``backward()``
    on PyTorch, and on JAX a pure function of four lists of state. Here a subclass
    writes ``update(data)`` once, statefully; ``fit`` compiles it on TensorFlow and
    JAX and runs it eagerly on PyTorch. Everything else is Keras's: ``fit``, callbacks,
    metrics, ``evaluate``, ``predict``, saving.

    .. code-block:: python

        class Regression(StepModel):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.dense = keras.layers.Dense(1)
                self.error = keras.metrics.Mean("error")

            def call(self, inputs):
                return self.dense(inputs)

            def update(self, data):
                x, y, _ = keras.utils.unpack_x_y_sample_weight(data)

                def loss():
                    return ops.mean((self(x, training=True) - y) ** 2)

                variables = self.trainable_variables
                value, gradients = self.value_and_grad(loss, variables)
                self.optimizer.apply(gradients, variables)
                self.error.update_state(value)
                return {"error": self.error.result()}

    Several optimizers go into one
    :class:`~dlcompanion.training.CompositeOptimizer`.

    ``call`` need not take the data of ``fit``: that of a GAN may take codes. Then each
    part must be built before ``fit``, by a ``keras.Input`` in ``__init__`` or by
    ``part.build(shape)``; where one is not, Keras builds all by calling the model on
    the data.

    Three rules keep a step right on all backends: every variable that ``update``
    changes is an attribute of the model (a layer, metric or seed generator is tracked
    by Keras; anything else is refused on JAX, where it would be lost); random numbers
    come from a :class:`keras.random.SeedGenerator`; and decisions on values are
    ``ops.where``, not ``if``.

    Args:
        **kwargs: Passed on to :class:`keras.Model`.

    Raises:
        ValueError: If it is built from inputs and outputs, as a functional model is.

    Example:
        >>> class Constant(StepModel):
        ...     def build(self, input_shape=None):
        ...         self.c = self.add_weight(shape=(), initializer="zeros", name="c")
        ...
        ...     def call(self, inputs):
        ...         return ops.zeros_like(inputs) + self.c
        ...
        ...     def update(self, data):
        ...         x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        ...         value, gradients = self.value_and_grad(
        ...             lambda: ops.mean((x - self.c) ** 2), [self.c]
        ...         )
        ...         self.optimizer.apply(gradients, [self.c])
        ...         return {"loss": value}
        >>> model = Constant()
        >>> model.compile(keras.optimizers.SGD(0.5))
        >>> history = model.fit(np.full((4, 1), 3.0, "float32"), verbose=0)
        >>> model.c.numpy().item()
        3.0
    """

    def __init__(self, *args, **kwargs):
        if args or {"inputs", "outputs"} & set(kwargs):
            raise ValueError(
                f"{type(self).__name__} is not made of inputs and outputs. Keep the "
                "functional model as an attribute, and call it in call(). Received: "
                f"{len(args)} positional arguments, keywords {sorted(kwargs)}"
            )
        super().__init__(**kwargs)

    def update(self, data):
        """One training step on one batch.

        Args:
            data: What ``fit`` was given for one batch: ``x``, ``(x, y)`` or
                ``(x, y, sample_weight)``; take it apart with
                :func:`keras.utils.unpack_x_y_sample_weight`.

        Returns:
            Dict from name to scalar, the logs of this step. ``fit`` reports the last
            value of an epoch, so return the result of a metric to report a mean. The
            value named ``"loss"`` is averaged as Keras does, weighted by batch size.
            What is no scalar (an error of each example, say) only
            :meth:`train_on_batches` returns.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define update(data) -> logs"
        )

    def measure(self, data):
        """One step of ``evaluate`` on one batch; define it if Keras's does not fit.

        Without it ``evaluate`` computes the loss and the metrics given to ``compile``.

        Args:
            data: As for :meth:`update`.

        Returns:
            Dict from name to scalar, as :meth:`update`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define measure")

    def value_and_grad(self, f, variables, *, optimizer=None, has_aux=False):
        """Loss and gradients inside ``update``, ready for the optimizer.

        Adds what layers passed to ``add_loss`` while ``f`` ran (activity
        regularizers, KL terms; of every call, also of a layer called twice) and the
        weight regularizers of ``variables``, and scales the loss as the optimizer
        asks, so that ``mixed_float16`` works: ``optimizer.apply`` takes the gradients
        back to their size.

        Args:
            f: Function without arguments that returns a scalar loss, or
                ``(loss, aux)``.
            variables: List of Keras variables to differentiate by.
            optimizer: The optimizer that will apply the gradients. By default the
                model's, and of a CompositeOptimizer the one that has ``variables``.
            has_aux: Boolean, whether ``f`` returns a pair.

        Returns:
            ``(loss, gradients)`` or ``((loss, aux), gradients)``. The loss is not
            scaled; the gradients are, when the optimizer scales. Under
            ``tf.distribute`` take the loss from Keras's loss objects: they divide by
            the number of replicas, over which the gradients are summed.

        Raises:
            ValueError: As :func:`dlcompanion.autodiff.value_and_grad`.
        """
        variables = list(variables)
        optimizer = self.optimizer if optimizer is None else optimizer
        if isinstance(optimizer, CompositeOptimizer):
            optimizer = optimizer.owner(variables)

        def scaled():
            with backend.collected_losses(self) as added:
                result = f()
            loss, aux = result if has_aux else (result, None)
            added = added + [
                v.regularizer(v.value) for v in variables if v.regularizer is not None
            ]
            loss = ops.convert_to_tensor(loss)
            if keras.backend.standardize_dtype(loss.dtype) in ("float16", "bfloat16"):
                loss = ops.cast(loss, "float32")  # so that scaling cannot overflow it
            for extra in added:
                extra = self._aggregate_additional_loss(extra)
                loss = loss + ops.cast(extra, loss.dtype)
            return optimizer.scale_loss(loss), (loss, aux)

        (_, (loss, aux)), gradients = autodiff.value_and_grad(
            scaled, variables=variables, has_aux=True
        )()
        loss = loss * backend.replicas()
        return ((loss, aux) if has_aux else loss), gradients

    def descend(self, f, variables, *, has_aux=False):
        """One step of the optimizer down the gradient of ``f``, inside ``update``.

        Args:
            f: As of :meth:`value_and_grad`.
            variables: List of Keras variables. If there are none, as those of a frozen
                network, ``f`` is evaluated and nothing learns.
            has_aux: Boolean, whether ``f`` returns a pair.

        Returns:
            The loss before the step, or ``(loss, aux)``.
        """
        variables = list(variables)
        if not variables:
            return f()
        result, gradients = self.value_and_grad(f, variables, has_aux=has_aux)
        self.optimizer.apply(gradients, variables)
        return result

    def optimizer_variables(self):
        """Which variables each optimizer of a CompositeOptimizer trains.

        Returns:
            Dict from the names of the optimizers to lists of variables. By default
            each name is that of an attribute with ``trainable_variables``.
        """
        variables = {}
        for name in self.optimizer.names:
            part = getattr(self, name, None)
            if not hasattr(part, "trainable_variables"):
                raise ValueError(
                    "Name each optimizer after a layer or model that is an attribute "
                    f"of {type(self).__name__}, or define optimizer_variables(). "
                    f"Received: name={name!r}"
                )
            variables[name] = part.trainable_variables
        return variables

    def train_on_batches(self, batches, rows=None):
        """Many steps of training in one call, compiled on TensorFlow and JAX.

        Calling a compiled step costs as much as a small network's step itself. Who
        has a whole phase of updates ready, as an agent after a rollout, makes them in
        one call. The steps are those of ``train_on_batch``, one after the other.

        Args:
            batches: What :meth:`update` takes, with an axis of steps before the batch
                axis: ``x``, ``(x, y)`` or ``(x, y, sample_weight)`` of arrays
                ``(steps, batch, ...)``. Other shapes than before compile anew.
            rows: Integer array ``(steps, batch)``, or None. With it ``batches`` are
                arrays ``(examples, ...)``, and each step learns from these of them: an
                example that is learned from many times is held once.

        Returns:
            Dict from name to NumPy array ``(steps, ...)``: what each update returned.

        Raises:
            ValueError: If the model was not compiled, the arrays do not have one
                length, or a row is not among the examples.
        """
        self._assert_compile_called("train_on_batches")
        lengths = {len(a) if a.ndim else 0 for a in keras.tree.flatten(batches)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                "Every array needs the same length, at least one, on its first axis. "
                f"Received: lengths={sorted(lengths)}"
            )
        if rows is not None:
            rows = np.asarray(rows, "int32")
            known = rows.size and 0 <= rows.min() and rows.max() < max(lengths)
            if rows.ndim != 2 or not known:
                raise ValueError(
                    "rows must be (steps, batch), numbers of examples. Received: "
                    f"rows.shape={rows.shape} of {max(lengths)} examples"
                )
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        self.reset_metrics()
        logs = backend.phase_program(self, batches, rows)(batches, rows)
        return {name: ops.convert_to_numpy(value) for name, value in logs.items()}

    # -- what Keras calls ---------------------------------------------------------

    def phase_step(self, *args):
        """One step of :meth:`train_on_batches`, with all that ``update`` returned."""
        return backend.model_step(
            self, lambda data: self._logs(self.update, data), args
        )

    def train_step(self, *args):
        if not self.optimizer.built:  # TensorFlow comes here before it has built
            self._symbolic_build(data_batch=args[-1])

        def step(data):
            logs = self._logs(self.update, data)
            return {k: v for k, v in logs.items() if len(getattr(v, "shape", ())) == 0}

        return backend.model_step(self, step, args)

    def _symbolic_build(self, iterator=None, data_batch=None):
        if backend.made_of_built_layers(self) and not backend.measures_outputs(self):
            self.built = True  # without a call on data that it may not take
        super()._symbolic_build(iterator=iterator, data_batch=data_batch)

    def test_step(self, *args):
        if type(self).measure is StepModel.measure:
            return super().test_step(*args)
        return backend.model_step(
            self, lambda data: self._logs(self.measure, data), args
        )

    def _logs(self, step, data):
        """The logs of a step; its loss goes through Keras's own mean."""
        data = keras.tree.map_structure(  # train_on_batch hands over NumPy on PyTorch
            lambda a: ops.convert_to_tensor(a) if isinstance(a, np.ndarray) else a, data
        )
        logs = dict(step(data))
        names = [m.name for m in self.metrics if m is not self._loss_tracker]
        if "loss" in logs and "loss" not in names:
            first = keras.tree.flatten(keras.utils.unpack_x_y_sample_weight(data)[0])[0]
            size = ops.shape(first)[0]
            self._loss_tracker.update_state(logs["loss"], sample_weight=size)
            logs["loss"] = self._loss_tracker.result()
        return logs

    def compile(self, optimizer="rmsprop", *args, auto_scale_loss=True, **kwargs):
        optimizer = keras.optimizers.get(optimizer)
        scaling = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if scaling or (auto_scale_loss and self.dtype_policy.name == "mixed_float16"):
            optimizer = with_loss_scaling(optimizer)
        super().compile(optimizer, *args, auto_scale_loss=False, **kwargs)
        if isinstance(optimizer, CompositeOptimizer):
            optimizer.find_variables_with(self.optimizer_variables)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The model of a config in which ``get_config`` has serialized its parts."""

        def made(part):
            if not isinstance(part, dict | list):
                return part
            return keras.saving.deserialize_keras_object(
                part, custom_objects=custom_objects
            )

        return cls(**{name: made(part) for name, part in config.items()})

    def get_compile_config(self):
        return portable(super().get_compile_config())

    def compile_from_config(self, config):
        if type(self).compile is not StepModel.compile:
            super().compile_from_config(config)  # warns that compile is custom
            return
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built or backend.made_of_built_layers(self):
            self.optimizer.build(self.trainable_variables)
