"""UnsupervisedModel: a model that is trained on data without targets."""

import types

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_finite
from dlcompanion.training.portable import portable


class UnsupervisedModel(keras.Model):
    r"""A model that learns from ``x`` alone, by a loss of each example.

    Autoencoders, flows and estimators compare their outputs with their inputs. A
    subclass says how, in one method; the rest is here:

    .. math:: L = \frac1n \sum_{i=1}^n w_i\, \ell_i + \text{added losses},

    of a batch of :math:`n` examples with weights :math:`w_i`, 1 without
    ``sample_weight``. As for Keras's own losses the sum is divided by the number of
    examples: a weight of 0 adds nothing, one of 2 as much as the example twice. Under
    ``tf.distribute`` it is further divided by the number of replicas.

    .. code-block:: python

        class Autoencoder(UnsupervisedModel):
            def __init__(self, encoder, decoder, **kwargs):
                super().__init__(**kwargs)
                self.encoder, self.decoder = encoder, decoder
                self.error = keras.metrics.Mean("error")  # so it is logged

            def call(self, inputs):
                return self.decoder(self.encoder(inputs))

            def example_losses(self, x, outputs):
                error = ops.mean(ops.square(x - outputs), axis=-1)
                return {"loss": error, "error": error}

    ``fit(x)``, ``evaluate(x)``, ``validation_data`` and
    :func:`~dlcompanion.training.fit_in_memory` take arrays with ``sample_weight``
    (which Keras drops where there are no targets). A ``tf.data.Dataset``, ``PyDataset``
    or generator yields ``x`` or ``(x,)``, and with weights ``(x, y, weight)`` where
    ``y`` has no entries, shape ``(batch, 0)``. Several inputs are one structure,
    ``fit([x, context])``; their ``validation_data`` are then ``([x, context],)``.

    Args:
        **kwargs: Passed on to :class:`keras.Model`.

    Raises:
        ValueError: Before anything is compiled, if targets are given, if NumPy data
            are refused by :meth:`check_data`, or if weights are not finite or not one
            for each example.

    Example:
        >>> class Mean(UnsupervisedModel):
        ...     def build(self, input_shape):
        ...         self.mean = self.add_weight((input_shape[-1],), "zeros")
        ...
        ...     def call(self, inputs):
        ...         return inputs - self.mean
        ...
        ...     def example_losses(self, x, outputs):
        ...         return ops.sum(ops.square(outputs), axis=-1)
        >>> model = Mean()
        >>> model.compile(keras.optimizers.SGD(0.5))
        >>> x, weight = np.array([[2.0, 1.0], [9.0, 9.0]]), np.array([2.0, 0.0])
        >>> history = model.fit(x, sample_weight=weight, verbose=0)
        >>> model.mean.numpy().tolist()
        [2.0, 1.0]
    """

    #: What is said when targets are given, as a sentence.
    no_targets = "This model has no targets: fit(x)."
    #: Whether weights of examples mean something; where not, they are refused.
    weighs_examples = True

    def example_losses(self, x, outputs):
        """The loss of each example of a batch.

        Args:
            x: Inputs of the batch, as ``call`` takes them.
            outputs: What ``call`` returned.

        Returns:
            Tensor ``(batch,)``; or dict with that tensor as ``"loss"``, and tensors
            ``(batch, ...)`` that are logged: summed over all axes but the first, and
            averaged over the examples, by the metric of the model
            (``keras.metrics.Mean``) that has the same name.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define example_losses(x, outputs)"
        )

    def batch_loss(self, x, outputs, weights):
        """The loss of a batch; define it where it is no mean over examples.

        Args:
            x: As of :meth:`example_losses`.
            outputs: As of :meth:`example_losses`.
            weights: Tensor ``(batch,)``, the weights of the examples.

        Returns:
            Scalar tensor, without added losses.
        """
        loss = self.logged(x, outputs, weights)["loss"]
        return ops.mean(ops.cast(weights, loss.dtype) * loss)

    def check_data(self, x):
        """Refuse NumPy data by a ValueError; define it where there are rules.

        Called by ``fit``, ``evaluate``, ``predict`` and ``fit_in_memory``, also for
        validation data, before anything is built. What a dataset yields is not seen.

        Args:
            x: Array or structure of arrays.
        """

    def logged(self, x, outputs, weights):
        """What :meth:`example_losses` returned, as a dict, after logging it."""
        losses = self.example_losses(x, outputs)
        if not isinstance(losses, dict):
            losses = {"loss": losses}
        metrics = {metric.name: metric for metric in self.metrics}
        for name, values in losses.items():
            if name == "loss":
                continue
            if name not in metrics:
                raise ValueError(
                    f"{type(self).__name__} needs a metric for each entry that "
                    "example_losses returns beside the loss. "
                    f"Received: {name!r}, and metrics {sorted(metrics)}"
                )
            if len(values.shape) > 1:
                values = ops.sum(values, axis=tuple(range(1, len(values.shape))))
            metrics[name].update_state(values, weights)
        return losses

    # -- what Keras calls ---------------------------------------------------------

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        if _is_target(y):
            self._refuse(y)
        x = keras.tree.map_structure(  # train_on_batch hands over NumPy on PyTorch
            lambda a: ops.convert_to_tensor(a) if isinstance(a, np.ndarray) else a, x
        )
        first = keras.tree.flatten(y_pred)[0]
        dtype = backend.at_least_float32(first.dtype)
        if sample_weight is None:
            weights = ops.ones((ops.shape(first)[0],), dtype)
        else:
            weights = ops.cast(ops.reshape(sample_weight, (-1,)), dtype)
        loss = self.batch_loss(x, y_pred, weights)
        added = sum(self._aggregate_additional_loss(one) for one in self.losses)
        return loss / backend.replicas() + added

    def fit(
        self, x=None, y=None, *args, sample_weight=None, validation_data=None, **kwargs
    ):
        """Train on data without targets; all else is as in Keras."""
        x, y, sample_weight = self.without_targets(x, y, sample_weight)
        if validation_data is not None:
            held_out = keras.utils.unpack_x_y_sample_weight(validation_data)
            held_out = self.without_targets(*held_out)
            validation_data = keras.utils.pack_x_y_sample_weight(*held_out)
        return super().fit(
            x, y, *args, sample_weight=sample_weight, validation_data=validation_data,
            **kwargs,
        )  # fmt: skip

    def evaluate(self, x=None, y=None, *args, sample_weight=None, **kwargs):
        """Losses and metrics on data without targets, as in Keras."""
        x, y, sample_weight = self.without_targets(x, y, sample_weight)
        return super().evaluate(x, y, *args, sample_weight=sample_weight, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Outputs for data that :meth:`check_data` accepts, as in Keras."""
        if not _is_stream(x):
            self.check_data(x)
        return super().predict(x, *args, **kwargs)

    def without_targets(self, x, y=None, sample_weight=None):
        """Check data, and pair weights with targets of no entries.

        Keras drops the weights of data without targets. What is returned it takes.

        Args:
            x: Array, structure of arrays, dataset or generator.
            y: None, or an array ``(examples, 0)``.
            sample_weight: Array of one weight an example, or None.

        Returns:
            Tuple ``(x, y, sample_weight)`` for ``fit`` of :class:`keras.Model`.

        Raises:
            ValueError: As ``fit``.
        """
        if _is_target(y) or not (self.weighs_examples or sample_weight is None):
            self._refuse(y)
        if _is_stream(x):
            first, x = _peek(x)
            _, targets, weights = keras.utils.unpack_x_y_sample_weight(first)
            if _is_target(targets) or not (self.weighs_examples or weights is None):
                self._refuse(targets)
            return x, y, sample_weight
        self.check_data(x)
        if sample_weight is not None:
            _check_weights(sample_weight, keras.tree.flatten(x)[0])
            y = np.zeros((len(sample_weight), 0), "float32")
        return x, y, sample_weight

    def get_compile_config(self):
        return portable(super().get_compile_config())

    def _refuse(self, y):
        received = "targets" if self.weighs_examples else "targets or weights"
        if _is_target(y):
            received += f", y={type(y)}"
        raise ValueError(f"{self.no_targets} Received: {received}")


def _is_target(y):
    """Whether there is a target, and one with entries."""
    return any(
        leaf is not None and 0 not in tuple(getattr(leaf, "shape", (1,)))[1:]
        for leaf in keras.tree.flatten(y)
    )


def _is_stream(x):
    """Whether it is a dataset or generator, which gives batches."""
    return not all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x))


def _peek(data):
    """The first batch of a stream, or what is like it, and the whole stream."""
    if isinstance(data, keras.utils.PyDataset):
        return data[0], data
    if isinstance(data, types.GeneratorType):
        first = next(data, None)
        return first, _again(first, data)
    return getattr(data, "element_spec", None), data


def _again(first, data):
    if first is not None:
        yield first
        yield from data


def _check_weights(weights, x):
    shape = tuple(getattr(weights, "shape", ()))
    if shape not in ((x.shape[0],), (x.shape[0], 1)):
        raise ValueError(
            f"sample_weight needs one number for each of {x.shape[0]} examples. "
            f"Received: sample_weight of shape {shape}"
        )
    check_finite("sample_weight", weights)
