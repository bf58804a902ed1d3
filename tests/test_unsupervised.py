"""Tests of dlcompanion.training.unsupervised."""

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from keras import ops

from dlcompanion.generative import (
    IWAE,
    VAE,
    VQVAE,
    ConditionalVAE,
    DonskerVaradhanEstimator,
    FreeEnergy,
    HierarchicalVAE,
    InfoNCEEstimator,
    PlanarFlow,
    RealNVP,
    VectorQuantizer,
)
from dlcompanion.training import UnsupervisedModel, fit_in_memory

RNG = np.random.default_rng(0)
X = RNG.uniform(0.1, 0.9, size=(20, 4)).astype("float32")
CONTEXT = RNG.normal(size=(20, 3)).astype("float32")
WEIGHT = RNG.integers(0, 3, 20).astype("float32")


class Autoencoder(UnsupervisedModel):
    """The smallest: it is a Keras model of x with the targets x."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layer = keras.layers.Dense(
            4,
            kernel_initializer=keras.initializers.GlorotUniform(1),
            activity_regularizer=keras.regularizers.L2(1e-2),
        )
        self.error = keras.metrics.Mean("error")
        self.seen = 0

    def build(self, input_shape):
        self.layer.build(input_shape)

    def call(self, inputs):
        return self.layer(inputs)

    def example_losses(self, x, outputs):
        error = ops.square(x - outputs)
        return {"loss": ops.mean(error, axis=-1), "error": error}

    def check_data(self, x):
        self.seen += 1
        if not np.isfinite(x).all():
            raise ValueError("x must be finite. Received: NaN or infinity")


def ready():
    model = Autoencoder()
    model.compile(keras.optimizers.Adam(0.05))
    return model


def with_targets():
    """What Keras itself makes of the same model, loss and weights."""
    model = keras.Sequential([keras.Input((4,)), Autoencoder().layer])
    model.compile(keras.optimizers.Adam(0.05), "mse", weighted_metrics=["mse"])
    return model


class Batches(keras.utils.PyDataset):
    """Batches of four rows of all arrays."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 5

    def __getitem__(self, n):
        rows = slice(4 * n, 4 * n + 4)
        return tuple(None if a is None else a[rows] for a in self.arrays)


def generated(*arrays):
    batches = Batches(*arrays)
    while True:
        for n in range(len(batches)):
            yield batches[n]


NOTHING = np.zeros((20, 0), "float32")  # targets without entries


def fit(model, *data, **kwargs):
    settings = {"epochs": 3, "verbose": 0, "shuffle": False, **kwargs}
    return model.fit(*data, **settings).history


# -- weights ------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, WEIGHT, WEIGHT[:, None]])
def test_loss_and_steps_are_those_of_keras_with_targets(weight):
    ours, theirs = ready(), with_targets()
    held_out = (X[:8], X[:8]) if weight is None else (X[:8], X[:8], weight[:8])
    wanted = fit(
        theirs, X, X, batch_size=6, sample_weight=weight, validation_data=held_out
    )
    found = fit(
        ours, X, batch_size=6, sample_weight=weight,
        validation_data=(X[:8], None, *held_out[2:]),
    )  # fmt: skip
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5)
        error, mse = found[name.replace("loss", "error")], name.replace("loss", "mse")
        np.testing.assert_allclose(np.divide(error, 4), wanted[mse], rtol=1e-5)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        ours.evaluate(X, sample_weight=weight, verbose=0, return_dict=True)["loss"],
        theirs.evaluate(X, X, sample_weight=weight, verbose=0)[0],
        rtol=1e-5,
    )


def test_fit_in_memory_weighs_as_fit_does():
    settings = {"batch_size": 6, "epochs": 3, "shuffle": False, "verbose": 0}
    settings |= {"sample_weight": WEIGHT, "validation_data": (X, None, WEIGHT)}
    one, other = ready(), ready()
    wanted, found = one.fit(X, **settings), fit_in_memory(other, X, **settings)
    assert sorted(found.history) == ["error", "loss", "val_error", "val_loss"]
    for name, values in wanted.history.items():
        np.testing.assert_allclose(found.history[name], values, rtol=1e-5)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [Batches, generated])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_streams_of_batches_with_and_without_weights(make, weight):
    wanted = fit(ready(), X, batch_size=4, sample_weight=weight)
    arrays = (X,) if weight is None else (X, NOTHING, weight)
    steps = {} if make is Batches else {"steps_per_epoch": 5}
    found = fit(ready(), make(*arrays), **steps)
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)
    np.testing.assert_allclose(found["error"], wanted["error"], rtol=1e-5)


def test_one_batch():
    model = ready()
    plain = model.test_on_batch(X, return_dict=True)["loss"]
    zeros, twos = (
        model.test_on_batch(X, sample_weight=n * np.ones(20), return_dict=True)["loss"]
        for n in (0.0, 2.0)
    )
    np.testing.assert_allclose(twos - zeros, 2 * (plain - zeros), rtol=1e-5)
    assert 0 < zeros < 0.1 * plain  # the regularizer


def vector_quantized():
    encoder = keras.Sequential([keras.layers.Dense(4), keras.layers.Reshape((2, 2))])
    decoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)])
    model = VQVAE(encoder, decoder, VectorQuantizer(3))
    model.build((None, 4))
    return model


SMALL = {"latent": 2, "hidden": (5,), "seed": 0}
MODELS = {
    "VAE": (lambda: VAE.dense(4, beta=0.7, **SMALL), X),
    "IWAE": (lambda: IWAE.dense(4, samples=3, **SMALL), X),
    "HierarchicalVAE": (lambda: HierarchicalVAE.dense(4, upper=1, **SMALL), X),
    "ConditionalVAE": (
        lambda: ConditionalVAE.dense(4, context=3, **SMALL),
        [X, CONTEXT],
    ),
    "VQVAE": (vector_quantized, X),
    "flow": (lambda: RealNVP(4, 2, (5,), seed=0), X),
    "conditional flow": (lambda: RealNVP(4, 2, (5,), context_size=3), (X, CONTEXT)),
}


def rows(structure, chosen):
    return keras.tree.map_structure(lambda a: a[chosen], structure)


@pytest.mark.parametrize("name", MODELS)
def test_a_weight_of_zero_leaves_an_example_out_and_one_of_two_counts_it_twice(name):
    make, data = MODELS[name]
    model = make()
    outputs = keras.tree.map_structure(numpy, model(data))

    def loss(chosen, weight=None):
        value = model.compute_loss(
            x=keras.tree.map_structure(ops.convert_to_tensor, rows(data, chosen)),
            y_pred=keras.tree.map_structure(
                ops.convert_to_tensor, rows(outputs, chosen)
            ),
            sample_weight=weight,
        )
        return float(numpy(value - sum(model.losses)))

    repeated = np.repeat(np.arange(20), WEIGHT.astype(int))
    wanted = loss(repeated) * len(repeated) / 20
    np.testing.assert_allclose(loss(np.arange(20), WEIGHT), wanted, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_fit_and_evaluate_of_every_model_see_the_weights(name):
    make, data = MODELS[name]
    model = make()
    model.compile(keras.optimizers.SGD(0.0))
    weight = np.zeros(20, "float32")
    history = model.fit(data, sample_weight=weight, verbose=0).history
    found = model.evaluate(data, sample_weight=weight, verbose=0, return_dict=True)
    model(data)
    added = sum(float(numpy(one)) for one in model.losses)  # of the codebook
    assert abs(history["loss"][0] - added) < 1e-6 > abs(found["loss"] - added)
    assert model.evaluate(data, verbose=0, return_dict=True)["loss"] != found["loss"]


# -- refusals -----------------------------------------------------------------


def bowl(x):
    return ops.sum(x**2, axis=-1)


def critic():
    return keras.Sequential([keras.Input((7,)), keras.layers.Dense(1)])


UNWEIGHED = {
    "FreeEnergy": (lambda: FreeEnergy(PlanarFlow(4, length=1, seed=0), bowl), X),
    "DonskerVaradhan": (lambda: DonskerVaradhanEstimator(critic()), [X, CONTEXT]),
    "InfoNCE": (lambda: InfoNCEEstimator(critic()), [X, CONTEXT]),
}


def assert_usable(model, data):
    """On JAX a refusal inside the step would have cost the model its variables."""
    assert np.isfinite(model.fit(data, verbose=0).history["loss"]).all()
    model.predict(data, verbose=0)


@pytest.mark.parametrize("name", [*MODELS, *UNWEIGHED])
def test_every_model_refuses_targets_and_goes_on(name):
    make, data = {**MODELS, **UNWEIGHED}[name]
    model = make()
    model.compile("sgd")
    model.fit(data, verbose=0)
    for run in (
        lambda: model.fit(data, X, verbose=0),
        lambda: model.evaluate(data, X, verbose=0),
        lambda: model.fit(data, validation_data=(data, X), verbose=0),
        lambda: fit_in_memory(model, data, X, verbose=0),
        lambda: fit_in_memory(model, data, validation_data=(data, X), verbose=0),
    ):
        with pytest.raises(ValueError, match="Received: targets"):
            run()
    assert_usable(model, data)


@pytest.mark.parametrize("name", UNWEIGHED)
def test_a_loss_that_is_of_no_single_example_refuses_weights(name):
    make, data = UNWEIGHED[name]
    model = make()
    model.compile("sgd")
    for run in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="Received: targets or weights"):
            run(data, sample_weight=WEIGHT, verbose=0)
    assert_usable(model, data)


@pytest.mark.parametrize("make", [Batches, generated])
def test_streams_of_targets_are_refused_before_a_step(make):
    model = ready()
    model.fit(X, verbose=0)
    before = [np.array(w) for w in model.get_weights()]
    with pytest.raises(ValueError, match="no targets: fit\\(x\\). Received: targets"):
        model.fit(make(X, X), steps_per_epoch=5, verbose=0)
    with pytest.raises(ValueError, match="no targets: fit\\(x\\). Received: targets"):
        model.evaluate(make(X, X), steps=5, verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert_usable(model, X)


def test_datasets_of_tensorflow():
    if keras.backend.backend() != "tensorflow":
        return  # where TensorFlow may not be installed
    import tensorflow as tf

    def batches(*arrays):
        return tf.data.Dataset.from_tensor_slices(arrays).batch(4)

    wanted = fit(ready(), X, batch_size=4, sample_weight=WEIGHT)
    found = fit(ready(), batches(X, NOTHING, WEIGHT))
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)
    model = ready()
    with pytest.raises(ValueError, match="no targets"):
        model.fit(batches(X, X), verbose=0)
    assert_usable(model, X)


def test_data_are_checked_at_every_door_once():
    model = ready()
    bad = np.where(X > 0.8, np.nan, X)
    for run in (
        lambda: model.fit(bad, verbose=0),
        lambda: model.fit(X, validation_data=bad, verbose=0),
        lambda: model.fit(X, validation_data=(bad, None), verbose=0),
        lambda: model.evaluate(bad, verbose=0),
        lambda: model.predict(bad, verbose=0),
        lambda: fit_in_memory(model, bad, verbose=0),
        lambda: fit_in_memory(model, X, validation_data=bad, verbose=0),
    ):
        with pytest.raises(ValueError, match="x must be finite"):
            run()
    assert not model.built
    model.seen = 0
    model.fit(X, epochs=3, verbose=0)
    assert model.seen == 1


@pytest.mark.parametrize(
    ("weight", "rule"),
    [
        (WEIGHT[:5], "one number for each of 20 examples. Received.*\\(5,\\)"),
        (np.ones((20, 2)), "one number for each of 20 examples. Received.*\\(20, 2\\)"),
        (np.where(WEIGHT > 1, np.inf, WEIGHT), "must be finite"),
    ],
)
def test_weights_are_checked(weight, rule):
    model = ready()
    for run in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=rule):
            run(X, sample_weight=weight, verbose=0)
    assert not model.built


def test_what_a_subclass_forgets_is_said():
    model = UnsupervisedModel()
    with pytest.raises(NotImplementedError, match="must define example_losses"):
        model.compute_loss(x=X, y_pred=ops.convert_to_tensor(X))

    class Unlogged(Autoencoder):
        def example_losses(self, x, outputs):
            return {**super().example_losses(x, outputs), "size": outputs}

    with pytest.raises(ValueError, match="needs a metric.*Received: 'size'"):
        Unlogged().compute_loss(x=X, y_pred=ops.convert_to_tensor(X))
