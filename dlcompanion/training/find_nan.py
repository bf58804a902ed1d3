"""FindNaN: a fit that breaks stops, keeps its batch, and says where it broke."""

import contextlib
import warnings

import keras
import numpy as np
from keras import ops

from dlcompanion import autodiff, backend


class FindNaN(keras.callbacks.Callback):
    """Stop ``fit`` at the first NaN or infinity, and name the layer that made it.

    :class:`keras.callbacks.TerminateOnNaN` stops too, but then the weights are NaN,
    the batch is gone, and nobody knows where it came from. Here the model gets the
    weights and the optimizer back that it had *before* the step that broke; that
    step's batch is kept, and is run once more, eagerly and layer by layer, with the
    same random numbers. A ``RuntimeWarning`` says what was found, the first that
    applies:

    1. The batch itself holds a NaN or an infinity.
    2. A layer whose output is NaN (the innermost one, in the order of the
       computation), and the first infinity before it, from which NaNs are often made.
    3. The loss, from outputs that are finite.
    4. The gradient of some variables, from a loss that is finite. This shows in the
       loss one step later, and the step before is the one that is named.

    It looks at the loss and at the weights: a NaN of the data may become a 0 in a
    layer, and in its gradient a NaN again. Before each step all variables are copied
    and read: some memory and time, so take it for a run that broke, with the same seed.

    Attributes:
        report: String, what was found, or ``None``.
        layer: Name of the layer that was found, or ``None``.
        batch: Structure of NumPy arrays, what the step was given, or ``None``.
        where: Tuple of epoch and step in which it was noticed, or ``None``.

    Raises:
        ValueError: In ``fit``, with several steps in one execution, a model on
            several devices, or one that is not built.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((1,)),
        ...     keras.layers.Activation(ops.log, name="logarithm"),
        ...     keras.layers.Dense(1),
        ... ])
        >>> model.compile("sgd", "mse")
        >>> find = FindNaN()
        >>> x = np.array([[1.0], [-1.0]])
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     history = model.fit(x, x, callbacks=[find], verbose=0)
        >>> find.layer
        'logarithm'
    """

    def on_train_begin(self, logs=None):
        replicas = getattr(self.model, "distribute_strategy", None)
        several = replicas is not None and replicas.num_replicas_in_sync > 1
        several |= keras.distribution.distribution() is not None
        if several or self.model.steps_per_execution > 1:
            raise ValueError(
                "FindNaN needs one device and steps_per_execution=1. Received: "
                f"steps_per_execution={self.model.steps_per_execution}"
                f"{', several devices' if several else ''}"
            )
        if not self.model.built:
            raise ValueError(
                "FindNaN needs a built model: call it once on a batch, or begin it "
                f"with keras.Input. Received: model={self.model.name}"
            )
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self.report = self.layer = self.batch = self.where = None
        self._epoch = 0
        self._recorder = backend.StepRecorder(self.model)
        self._recorder.start()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.report is not None:
            return
        self._step = (self._epoch, batch)
        values = [np.asarray(v, "float64") for v in (logs or {}).values()]
        finite = all(np.isfinite(v).all() for v in values)
        if not finite or not _finite(self._weights_before()):
            self._investigate()

    def on_train_end(self, logs=None):
        if self.report is None and self._recorder.kept:
            backend.sync(self.model)
            if not _finite(self.model.trainable_variables):  # since the last step
                self._investigate()
        self._recorder.stop()

    def _weights_before(self):
        """The trainable weights as they were before the last step."""
        trainable = {id(v) for v in self.model.trainable_variables}
        pairs = zip(self._recorder.variables, self._recorder.kept[-1][1], strict=True)
        return [value for variable, value in pairs if id(variable) in trainable]

    def _investigate(self):
        self.model.stop_training = True
        self.where = self._step
        backend.sync(self.model)
        steps = list(self._recorder.kept)
        weights = len(self.model.variables)
        if len(steps) > 1 and not all(map(_finite, steps[-1][1][:weights])):
            steps.pop()  # these weights were spoilt by the step before
        data, before = steps[-1]
        self._restore(before)
        self.batch = keras.tree.map_structure(ops.convert_to_numpy, data)
        self.report = self._replay(data)
        self._restore(before)  # the replay drew random numbers
        epoch, step = self.where
        warnings.warn(
            f"Loss or weights were not finite in epoch {epoch}, step {step}: "
            f"{self.report}. "
            "Training stopped; the model has the weights from before it broke.",
            RuntimeWarning,
            stacklevel=2,
        )

    def _restore(self, values):
        for variable, value in zip(self._recorder.variables, values, strict=True):
            if value is not None:
                variable.assign(value)

    def _replay(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        for name, part in {"x": x, "y": y, "sample_weight": sample_weight}.items():
            if not _finite(part):
                return f"the batch is not, there is a NaN or an infinity in its {name}"
        found = {}
        with _watched(self.model, found):
            self.model(x, training=True)
        if "nan" in found or "infinity" in found:
            kind = "nan" if "nan" in found else "infinity"
            self.layer = found[kind]
            report = f"the layer {self.layer!r} made the first {kind}"
            earlier = found.get("infinity", self.layer)
            if earlier != self.layer:
                report += f", after the layer {earlier!r} made an infinity"
            return report.replace("first nan", "first NaN")
        if type(self.model).train_step is not keras.Model.train_step:
            return "the layers' outputs are, so look at the train_step of the model"

        def loss():
            return self.model.compute_loss(
                x=x, y=y, y_pred=self.model(x, training=True),
                sample_weight=sample_weight, training=True,
            )  # fmt: skip

        if not _finite(loss()):
            return f"the outputs of {self.model.name!r} are, and the loss is not"
        variables = self.model.trainable_variables
        gradients = autodiff.value_and_grad(loss, variables=variables)()[1]
        broken = [
            v.path for v, g in zip(variables, gradients, strict=True) if not _finite(g)
        ]
        if broken:
            return f"the loss is, and the gradient of {', '.join(broken)} is not"
        return "loss and gradients are, so look at the optimizer"


def _finite(structure):
    """Whether all floating point numbers of a structure are finite."""
    return all(
        bool(ops.convert_to_numpy(ops.all(ops.isfinite(leaf))))
        for leaf in keras.tree.flatten(structure)
        if leaf is not None and _is_float(leaf)
    )


def _is_float(leaf):
    return hasattr(leaf, "dtype") and keras.backend.is_float_dtype(
        keras.backend.standardize_dtype(leaf.dtype)
    )


@contextlib.contextmanager
def _watched(model, found):
    """Note in ``found`` the first layer whose output has a NaN, and an infinity."""
    layers = list(backend.flatten_layers(model)) + [model]

    def watch(layer, call):
        def watched(*args, **kwargs):
            outputs = call(*args, **kwargs)
            for leaf in keras.tree.flatten(outputs):
                if leaf is None or not _is_float(leaf):
                    continue
                if bool(ops.convert_to_numpy(ops.any(ops.isnan(leaf)))):
                    found.setdefault("nan", layer.name)
                elif not _finite(leaf) and "nan" not in found:
                    found.setdefault("infinity", layer.name)
            return outputs

        return watched

    with backend.replaced(layers, "call", watch):
        yield
