"""The checks of check_layer that train, freeze, save and load."""

import numpy as np

from dlcompanion.testing import common
from dlcompanion.testing.common import leaves, quiet, restore, snapshot


def equal(arrays, others):
    """Whether two lists of arrays agree in every bit."""
    return all(np.array_equal(a, b) for a, b in zip(arrays, others, strict=True))


def check_freeze(subject):
    """trainable=False leaves nothing to train, and True brings it back."""
    layer = subject.built()
    weights = list(layer.trainable_variables)
    layer.trainable = False
    frozen = len(layer.trainable_variables)
    state, values = snapshot(layer.variables), snapshot(weights)
    subject.outputs(layer, subject.inputs, training=subject.modes[-1])
    moved = not equal(values, snapshot(weights))
    restore(layer.variables, state)
    layer.trainable = True
    if frozen or len(layer.trainable_variables) != len(weights):
        subject.fail(
            f"0 trainable variables when frozen, {len(weights)} after",
            f"{frozen} and {len(layer.trainable_variables)}",
            "add weights by add_weight and sub-layers as attributes, and leave "
            "`trainable` to Keras.",
        )
    if moved:
        subject.fail(
            "a frozen layer keeps its weights",
            "a call in training changed them",
            "assign to non-trainable weights only, and only if self.trainable.",
        )


def check_jit(subject):
    """One compiled training step, on the layer that the next check saves."""
    if subject.modes != (False,):
        _trained(subject)


def _trained(subject):
    """The model around the layer after one compiled step, made at the first call."""
    if hasattr(subject, "made"):
        return subject.made
    subject.made = subject.model(subject.built())
    if subject.made is None or subject.modes == (False,):
        return subject.made
    model, x, y = subject.made
    with quiet():
        try:
            loss = model.train_on_batch(x, y)
        except Exception as error:
            subject.fail(
                "one compiled training step",
                f"{type(error).__name__}: {str(error)[:600]}",
                "use keras.ops only: no Python branch on values, no NumPy on tensors, "
                "static shapes, SeedGenerator attributes.",
                check="jit",
            )
    if not np.all(np.isfinite(loss)):
        subject.fail(
            "a finite loss", f"{loss}", "look for a division by zero.", check="jit"
        )
    return subject.made


def check_reload(subject):
    """A saved and loaded layer gives the same output and the same next step."""
    made = _trained(subject)
    if made is None:  # no float output: nothing to train, only to give again
        return
    model, x, y = made
    loaded = common.save_and_load(model)
    check_same_model(subject, model, loaded, x, y, train=subject.modes != (False,))


def check_clone(subject):
    """A copy from the config, as clone_model makes it, takes the layer's weights."""
    layer = subject.built()
    copy = type(layer).from_config(layer.get_config())
    mode = subject.modes[-1]
    subject.outputs(copy, subject.inputs, training=mode)
    remedy = "let get_config hold all that the shapes of the weights depend on."
    shapes = [[tuple(v.shape) for v in one.variables] for one in (layer, copy)]
    if shapes[0] != shapes[1]:
        subject.fail(f"a copy with weights {shapes[0]}", f"{shapes[1]}", remedy)
    restore(copy.variables, snapshot(layer.variables))
    subject.close(
        subject.outputs(copy, subject.inputs, training=mode),
        subject.repeatable(layer, subject.inputs, training=mode),
        "the output of a copy with the same weights",
        remedy,
    )


def check_same_model(subject, model, loaded, x, y, train=True):
    """Variables, output and next training step of two models are equal."""
    remedy = (
        "keep all state in weights made by add_weight, or store it in "
        "save_own_variables and load_own_variables."
    )
    with quiet():
        before = leaves(model.predict_on_batch(x))
        after = leaves(loaded.predict_on_batch(x))
    seeds = {id(v) for v in common.seed_states(model)}
    olds, news = list(model.variables), list(loaded.variables)
    if train:
        olds += model.optimizer.variables
        news += loaded.optimizer.variables
    pairs = list(zip(olds, news, strict=True))
    for old, new in [p for p in pairs if id(p[0]) not in seeds]:
        subject.close([new], [old], f"{old.path} after loading", remedy)
    subject.close(after, before, "output after loading", remedy)
    if not train:
        return
    drawn = [(o, common.to_numpy(o), common.to_numpy(n)) for o, n in pairs]
    drawn = [d for d in drawn if id(d[0]) in seeds]
    with quiet():
        model.train_on_batch(x, y)
    for seed, old, new in drawn:
        if not np.array_equal(common.to_numpy(seed), old):  # the step used it
            subject.close(
                [new],
                [old],
                f"seed state {seed.path} after loading",
                "inherit from dlcompanion.training.SavesSeeds before keras's class: "
                "Keras does not save seed generators.",
            )
    with quiet():
        loaded.train_on_batch(x, y)
    for old, new in [p for p in pairs if id(p[0]) not in seeds]:
        subject.close(
            [new],
            [old],
            f"{old.path} one training step after loading",
            remedy,
            rtol=1e-4,
            atol=1e-5,
        )
