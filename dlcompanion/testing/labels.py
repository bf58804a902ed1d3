"""The check of losses and metrics on class labels, in every shape that users have."""

import keras
import numpy as np

from dlcompanion.testing.common import leaves


def check_labels(subject):
    """Labels (batch,) and (batch, 1) are one; one-hot ones are too, or are refused."""
    labels, outputs = np.asarray(subject.y_true), np.asarray(subject.y_pred)
    flat = labels.ndim == 1 or labels.shape[1:] == (1,)
    if labels.dtype.kind not in "iu" or not flat or outputs.ndim != 2:
        return
    labels = labels.reshape(-1)
    wanted = _value(subject, labels, outputs)
    for shape in ((-1,), (-1, 1)):
        subject.close(
            _value(subject, labels.reshape(shape), outputs),
            wanted,
            f"labels of shape {labels.reshape(shape).shape} give what those of shape "
            f"{labels.shape} give",
            "reshape labels to (batch,) before they meet the predictions.",
        )
    if subject.component_class.__module__.split(".")[0] == "keras":
        return  # Keras's own sparse ones broadcast them
    one_hot = np.eye(max(outputs.shape[1], labels.max() + 1), dtype=labels.dtype)
    for rows in (slice(None), slice(0, 1)):
        try:
            received = _value(subject, one_hot[labels[rows]], outputs[rows])
        except ValueError as error:
            if "Received" in str(error):
                continue
            raise
        subject.close(
            received,
            _value(subject, labels[rows], outputs[rows]),
            f"one-hot labels of {len(labels[rows])} examples are refused by a "
            "ValueError, or give what class indices give",
            "look at the shape of the labels: (batch,) or (batch, 1).",
        )


def _value(subject, y_true, y_pred):
    component = subject.make()
    if isinstance(component, keras.losses.Loss):
        return leaves(component(y_true, y_pred))
    component.update_state(y_true, y_pred)
    return leaves(component.result())
