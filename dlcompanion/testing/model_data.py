"""The checks of check_model on its data: weights, kinds of data, refusals, copies."""

import keras
import numpy as np

from dlcompanion import backend
from dlcompanion.testing import common
from dlcompanion.testing.common import leaves, quiet, restore, snapshot
from dlcompanion.training import StepModel, fit_in_memory


def _plain(subject):
    """A model whose steps TensorFlow does not compile, and its state at the start."""
    if not hasattr(subject, "plain"):
        eager = {"run_eagerly": True, "jit_compile": False}
        model = subject.compiled(
            **(eager if keras.backend.backend() == "tensorflow" else {})
        )
        with quiet():
            model.predict_on_batch(subject.x)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        subject.plain = model, snapshot(_variables(model))
    return subject.plain


def _measures(subject):
    """Whether evaluate has anything to measure; learners of agents have not."""
    model = _plain(subject)[0]
    own = type(model).compute_loss is not keras.Model.compute_loss
    if isinstance(model, StepModel):
        own |= type(model).measure is not StepModel.measure
    return own or backend.measures_outputs(model)


def _variables(model):
    return [*model.variables, *model.optimizer.variables]


def _begin_again(subject):
    model, state = _plain(subject)
    restore(_variables(model), state)
    return model


def _evaluated(subject, x, y=None, **kwargs):
    """The logs of evaluate, from the state at the start."""
    model = _begin_again(subject)
    with quiet():
        logs = model.evaluate(x, y, verbose=0, return_dict=True, **kwargs)
    return {name: float(value) for name, value in logs.items()}


def _stepped(subject, fit, x, y=None, **kwargs):
    """The trainable weights after one epoch from the state at the start."""
    model = _begin_again(subject)
    with quiet():
        fit(model, x, y, verbose=0, **kwargs)
    return snapshot(model.trainable_variables)


def _fit(model, x, y, **kwargs):
    return model.fit(x, y, **kwargs)


def _rows(structure, rows):
    return keras.tree.map_structure(lambda a: a[rows], structure)


def check_sample_weight(subject):
    """A weight of 0 leaves an example out of the loss, one of 2 counts it twice."""
    if not (subject.batch_independent and _measures(subject)):
        return
    x, y = subject.x, subject.y
    n = subject.examples
    ones = np.ones(n, "float32")
    try:
        once = _evaluated(subject, x, y, batch_size=n, sample_weight=ones)
    except ValueError as error:
        if "weight" in str(error):  # refused by name
            return
        raise
    remedy = (
        "multiply the loss of each example by sample_weight, and divide by the size of "
        "the batch; Keras drops weights without targets: see "
        "dlcompanion.training.UnsupervisedModel."
    )

    def logs(weight, x=x, y=y):
        return _evaluated(subject, x, y, batch_size=n, sample_weight=weight)

    def equal(received, wanted, what):
        subject.close(
            [received], [wanted], what, remedy, subject.rtol, atol=1e-5 * scale
        )

    plain = _evaluated(subject, x, y, batch_size=n)
    never, twice, thrice = (logs(w * ones) for w in (0, 2, 3))
    without = np.where(np.arange(n) == 0, 0, ones).astype("float32")
    other = [_rows(part, [1, *range(1, n)]) for part in (x, y) if part is not None]
    for name, value in once.items():
        scale = 1 + abs(value)
        equal(value, plain[name], f"{name}: weights of 1 change nothing")
        if not name.endswith("loss"):
            equal(twice[name], value, f"{name}, a mean: weights of 2 change nothing")
            continue
        # less what a floor or an added loss gives without any weight
        change = twice[name] - value
        if abs(change) < 1e-5 * scale < abs(value - never[name]):
            subject.fail(
                f"{name} divided by the size of the batch: twice as much for weights 2",
                f"{twice[name]:.6g} for weights 2, {value:.6g} for weights 1",
                remedy,
            )
        equal(thrice[name] - twice[name], change, f"{name} is linear in the weights")
        received, wanted = logs(without, *other)[name], logs(without)[name]
        equal(received, wanted, f"{name}: a weight of 0 leaves the example out")
    settings = {"batch_size": n, "sample_weight": without, "shuffle": False}
    wanted = _stepped(subject, _fit, x, y, **settings)
    steps = {"fit_in_memory": _stepped(subject, fit_in_memory, x, y, **settings)}
    if not _mixes_in_training(subject, other[0]):
        steps["fit of other data there"] = _stepped(subject, _fit, *other, **settings)
    for what, received in steps.items():
        subject.close(
            received,
            wanted,
            f"a step of fit with a weight of 0, by {what}",
            remedy,
            rtol=10 * subject.rtol,
            atol=1e-5,
        )


def _mixes_in_training(subject, other):
    """Whether in training an output depends on the other examples of a batch."""
    outputs = []
    for x in (subject.x, other):
        outputs.append(leaves(_begin_again(subject)(x, training=True)))
    same = [np.allclose(a[1:], b[1:], atol=1e-5) for a, b in zip(*outputs, strict=True)]
    return not all(same)


class _Batches(keras.utils.PyDataset):
    """Batches of arrays, the last one short."""

    def __init__(self, arrays, size):
        super().__init__()
        self.arrays, self.size = arrays, size

    def __len__(self):
        return -(-len(keras.tree.flatten(self.arrays)[0]) // self.size)

    def __getitem__(self, n):
        return _rows(self.arrays, slice(n * self.size, (n + 1) * self.size))


def check_data(subject):
    """A PyDataset, generator or tf.data.Dataset gives what its arrays give."""
    if not _measures(subject):
        return
    x, y = subject.x, subject.y
    n, remedy = subject.examples, "take the data of Keras's fit, or refuse it by name."
    # the last batch is short: one example
    size = n - 1 if subject.batch_independent else n // 2
    inputs = tuple(x) if isinstance(x, list) else x  # TensorFlow takes no lists
    arrays = (inputs,) if y is None else (inputs, y)
    batches = _Batches(arrays, size)
    kinds = {
        "a PyDataset": lambda: batches,
        "a generator": lambda: (batches[k] for k in range(len(batches))),
    }
    if keras.backend.backend() == "tensorflow":
        kinds["a tf.data.Dataset"] = lambda: backend.dataset(arrays, size)
    if isinstance(x, list):
        kinds["a tuple of inputs"] = None
    wanted = _evaluated(subject, x, y, batch_size=size)
    for kind, make in kinds.items():
        if make is None:
            logs = _evaluated(subject, inputs, y, batch_size=size)
        else:
            logs = _evaluated(subject, make())
        _same_logs(subject, logs, wanted, f"evaluate of {kind}", remedy)
    settings = {"batch_size": size, "shuffle": False}
    subject.close(
        _stepped(subject, _fit, kinds["a generator"]()),
        _stepped(subject, _fit, x, y, **settings),
        "an epoch of fit on a generator",
        remedy,
        rtol=10 * subject.rtol,
        atol=1e-5,
    )
    noisy = common.seed_states(_plain(subject)[0])
    if noisy or not subject.batch_independent:
        return
    logs = _evaluated(subject, x, y, batch_size=n)
    remedy = "give each example its own loss, and take sizes from ops.shape(x)."
    _same_logs(subject, wanted, logs, "a last batch of one, in evaluate", remedy)
    model = _begin_again(subject)
    with quiet():
        parts, whole = (model.predict(x, batch_size=k, verbose=0) for k in (size, n))
    subject.close(
        leaves(parts), leaves(whole), "a last batch of one, in predict", remedy,
        rtol=10 * subject.rtol, atol=1e-5,
    )  # fmt: skip


def _same_logs(subject, received, wanted, what, remedy):
    for name, value in wanted.items():
        subject.close(
            [received.get(name, np.nan)], [value], f"{what}, {name}", remedy,
            rtol=10 * subject.rtol, atol=1e-5,
        )  # fmt: skip


def check_refusal(subject):
    """What fit refuses, it refuses before a step; the model can be used afterwards."""
    bad = [dict(one) for one in subject.refuses]
    demanded = len(bad)
    if subject.y is None and _measures(subject):
        targets = np.zeros((subject.examples, 1), "float32")
        bad.append({"x": subject.x, "y": targets})
    for n, arguments in enumerate(bad):
        model, state = _begin_again(subject), _plain(subject)[1]
        try:
            with quiet():
                model.fit(**{"batch_size": subject.examples, "verbose": 0, **arguments})
        except ValueError as error:
            if "Received" not in str(error):
                subject.fail(
                    "a ValueError that says what was received",
                    f"{error}",
                    "check NumPy data where they enter, in fit.",
                )
        else:
            if n < demanded:
                subject.fail(
                    "fit refuses these data by a ValueError",
                    f"it takes {sorted(arguments)}",
                    "check NumPy data where they enter, in fit.",
                )
            continue  # targets without a loss: Keras takes them for nothing
        remedy = (
            "refuse in fit, before super().fit: a step on JAX has taken the weights."
        )
        try:
            after = snapshot(_variables(model))
        except RuntimeError as error:
            subject.fail("weights after data were refused", f"{error}", remedy)
        subject.close(after, state, "the weights after data were refused", remedy)
        with quiet():
            model.evaluate(subject.x, subject.y, batch_size=subject.examples, verbose=0)


def check_clone(subject):
    """keras.models.clone_model gives a model that takes the weights, or refuses."""
    model = _begin_again(subject)
    try:
        with quiet():
            copy = keras.models.clone_model(model)
    except ValueError as error:
        if "Received" in str(error):
            return
        raise
    with quiet():
        copy(subject.x, training=False)
    remedy = "let get_config hold all that the shapes of the weights depend on."
    shapes = [[tuple(v.shape) for v in m.variables] for m in (model, copy)]
    if shapes[0] != shapes[1]:
        subject.fail(f"a copy with weights {shapes[0]}", f"{shapes[1]}", remedy)
    restore(copy.variables, snapshot(model.variables))
    received = leaves(copy(subject.x, training=False))
    wanted = leaves(model(subject.x, training=False))
    subject.close(
        received, wanted, "the output of the copy with the same weights", remedy,
        rtol=subject.rtol, atol=1e-5,
    )  # fmt: skip
