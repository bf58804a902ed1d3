"""The checks that pad: what is masked counts nowhere."""

import keras
import numpy as np
from keras import ops

from dlcompanion.testing import common
from dlcompanion.testing.common import leaves, quiet, restore, snapshot


def check_mask(subject):
    """What is masked has no influence on what is not, and the mask is handed on."""
    if subject.mask is False:
        return
    _by_argument(subject)
    _by_keras(subject)


def _by_argument(subject):
    """Outputs of a layer with a mask argument do not depend on masked inputs."""
    data = subject.inputs
    one = isinstance(data, np.ndarray) and data.ndim >= 3 and data.dtype.kind == "f"
    if subject.mask == "auto" and not (subject.has_mask and one):
        return
    layer, time = subject.built(), data.shape[1]
    if not layer.supports_masking:
        subject.fail(
            "a layer with a mask argument has supports_masking = True",
            "False",
            "set self.supports_masking = True in __init__.",
        )
    mask = np.arange(time)[None, :] < np.full((len(data), 1), max(1, time // 2))
    changed = np.where(mask.reshape(*mask.shape, *[1] * (data.ndim - 2)), data, 7.0)
    kwargs = {"mask": mask} if subject.has_mask else {}
    for mode in subject.modes:
        before = subject.repeatable(layer, data, training=mode, **kwargs)
        after = subject.repeatable(
            layer, changed.astype(data.dtype), training=mode, **kwargs
        )
        for b, a in zip(before, after, strict=True):
            if b.ndim >= 2 and b.shape[:2] == mask.shape:
                b, a = b[mask], a[mask]  # only what is not masked
            subject.close(
                a,
                b,
                "outputs do not depend on masked inputs",
                "use the mask: weigh or skip masked steps.",
            )


class _Padded(keras.layers.Layer):
    """Its input, with a mask that Keras keeps."""

    def __init__(self, mask):
        super().__init__()
        self.steps = mask

    def call(self, inputs):
        return inputs

    def compute_mask(self, inputs, previous_mask):
        return ops.convert_to_tensor(self.steps)


class _Seen(keras.layers.Layer):
    """Remembers the mask of its input."""

    def call(self, inputs, mask=None):
        self.steps = mask
        return inputs


def _by_keras(subject):
    """A layer that treats each step by itself hands the mask on, as Dense does."""
    found = _step_by_step(subject)
    if found is None:
        return
    layer, data, changed, mask = found
    if not layer.supports_masking:
        subject.fail(
            "a layer that treats each step of (batch, time, features) by itself hands "
            "the mask on, as keras.layers.Dense does",
            "supports_masking = False",
            "set self.supports_masking = True in __init__; or say mask=False.",
        )
    for mode in subject.modes:
        before = _run(subject, layer, data, mask, mode)
        after = _run(subject, layer, changed, mask, mode)
        if before["mask"] is None or not np.array_equal(before["mask"], mask):
            subject.fail(
                "the mask of the input is the mask of the output",
                f"{before['mask']}",
                "leave compute_mask to Keras, or return the mask from it.",
            )
        for what, remedy in (
            ("output at the steps that are not masked", "weigh or skip masked steps."),
            ("losses", "take the mean in add_loss over the steps of the mask."),
            ("state", "let what is learned in call be learned from the mask's steps."),
        ):
            subject.close(
                after[what],
                before[what],
                f"{what}, whatever the masked steps hold (training={mode})",
                f"give call an argument mask: {remedy}",
            )


def _step_by_step(subject):
    """A layer on sequences, two of them that differ in late steps, and their mask.

    None for a layer that takes no sequence, has no time axis afterwards, or whose early
    steps depend on the late ones.
    """
    data = subject.inputs
    if not isinstance(data, np.ndarray) or data.ndim not in (2, 3):
        return None
    if data.dtype.kind != "f" or subject.by_keyword:
        return None
    late = data.ndim == 2
    if late:  # rows of data as steps
        data = np.stack([np.roll(data, k, axis=0) for k in range(3)], axis=1)
    layer = subject.make() if late else subject.built()
    mask = _late_steps(data.shape[:2])
    changed = np.where(mask[..., None], data, np.zeros_like(data))
    outputs = []
    for x in (data, changed):
        try:
            outputs.append(subject.repeatable(layer, x, training=subject.modes[0]))
        except Exception:  # of rank 2 by its own rule
            if late:
                return None
            raise
    (before, *more), (after, *_) = outputs
    if more or before.shape[:2] != mask.shape or not common.is_float(before):
        return None
    alone = np.allclose(before[mask], after[mask], rtol=1e-5, atol=1e-6, equal_nan=True)
    return (layer, data, changed, mask) if alone and not mask.all() else None


def _run(subject, layer, data, mask, mode):
    """What a call on padded data gives; the layer's state is put back."""
    state, seen = snapshot(layer.variables), _Seen()
    with quiet():
        padded = _Padded(mask)(ops.convert_to_tensor(data))
        outputs = subject.call(layer, padded, training=mode)
        losses = leaves(layer.losses)
        seen(outputs)
    after = snapshot(layer.variables)
    restore(layer.variables, state)
    return {
        "mask": None if seen.steps is None else common.to_numpy(seen.steps),
        "output at the steps that are not masked": [leaves(outputs)[0][mask]],
        "losses": losses,
        "state": after,
    }


def check_loss_mask(subject):
    """Steps that Keras's mask of the predictions leaves out add nothing to the loss."""
    y_true, y_pred = subject.y_true, subject.y_pred
    if not subject.per_sample:
        return
    if y_pred.ndim == 2:  # rows as steps
        y_true, y_pred = (
            np.stack([np.roll(a, k, axis=0) for k in range(3)], axis=1)
            for a in (y_true, y_pred)
        )
    try:
        each = common.to_numpy(
            subject.make().call(*map(ops.convert_to_tensor, (y_true, y_pred)))
        )
    except Exception:  # takes no sequences
        return
    if y_pred.ndim < 3 or each.shape != y_pred.shape[:2]:
        return
    mask = _late_steps(each.shape)
    loss = subject.make()
    wanted = {
        "sum_over_batch_size": each[mask].mean(),
        "mean": each[mask].mean(),
        "mean_with_sample_weight": each[mask].mean(),
        "sum": each[mask].sum(),
    }.get(loss.reduction, each * mask)
    subject.close(
        [common.to_numpy(loss(y_true, _Padded(mask)(ops.convert_to_tensor(y_pred))))],
        [wanted],
        "the loss of the steps that are not masked",
        "override call, not __call__, and return one value a step: keras.losses.Loss "
        "applies the mask.",
    )


def check_metric_mask(subject):
    """Steps that Keras's mask of (batch, time, ...) leaves out do not count."""
    y_true, y_pred = subject.y_true, subject.y_pred
    if y_pred.ndim < 3 or y_true.shape[:2] != y_pred.shape[:2]:
        return
    mask = _late_steps(y_pred.shape[:2])
    padded, kept = subject.make(), subject.make()
    padded.update_state(y_true, _Padded(mask)(ops.convert_to_tensor(y_pred)))
    kept.update_state(y_true[mask][:, None], y_pred[mask][:, None])
    subject.close(
        leaves(padded.result()),
        leaves(kept.result()),
        "the result of the steps that are not masked",
        "inherit from keras.metrics.MeanMetricWrapper, which applies the mask.",
        rtol=1e-4,
        atol=1e-5,
    )


def _late_steps(shape):
    """A mask that leaves out late steps, more of them in later rows."""
    lengths = np.arange(shape[0]) % shape[1] + 1
    return np.arange(shape[1])[None, :] < lengths[:, None]
