"""Training of the autoencoders goes on from a file, in a process of its own."""

import keras
import numpy as np
import pytest
from helpers.models import scramble, state

from dlcompanion.generative import (
    IWAE,
    VAE,
    VQVAE,
    ConditionalVAE,
    EMAVectorQuantizer,
    HierarchicalVAE,
    VariationalBottleneck,
    VectorQuantizer,
)
from dlcompanion.testing.new_process import call_in_new_process
from dlcompanion.training import ResumableCheckpoint

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(32, 6)).astype("float32")
NORMAL = RNG.normal(size=(32, 6)).astype("float32")
CONTEXT = RNG.normal(size=(32, 3)).astype("float32")
CLASSES = (CONTEXT.sum(axis=1) > 0).astype("int32")


def dense(autoencoder, *args, **kwargs):
    model = autoencoder.dense(6, *args, latent=2, hidden=(8,), seed=0, **kwargs)
    model.build([(None, 6), (None, 3)] if "context" in kwargs else (None, 6))
    return scramble(model, 0.5, seed=5)


def vector_quantized(quantizer):
    encoder = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8), keras.layers.Reshape((4, 2))]
    )
    decoder = keras.Sequential(
        [keras.Input((4, 2)), keras.layers.Flatten(), keras.layers.Dense(6)]
    )
    model = VQVAE(encoder, decoder, quantizer(5))
    model.build((None, 6))
    return model


def bottleneck():
    layer = VariationalBottleneck(2, beta=0.1, seed=3)
    return keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])


#: Name to what makes the model, its data and targets, and the learning rate.
FAMILY = {
    "VAE": (lambda: dense(VAE), (X, None), 0.01),
    "ConditionalVAE": (
        lambda: dense(ConditionalVAE, context=3),
        ([X, CONTEXT], None),
        0.02,
    ),
    "HierarchicalVAE": (
        lambda: dense(HierarchicalVAE, upper=2, upper_hidden=(5,)),
        (X, None),
        0.01,
    ),
    "IWAE": (lambda: dense(IWAE, samples=3), (X, None), 0.01),
    "VQVAE": (lambda: vector_quantized(VectorQuantizer), (NORMAL, None), 0.05),
    "VQVAE with EMA": (
        lambda: vector_quantized(EMAVectorQuantizer),
        (NORMAL, None),
        0.05,
    ),
    "VariationalBottleneck": (bottleneck, (CONTEXT, CLASSES), 0.05),
}


def trained(name, epochs, model=None, callbacks=None):
    """A model after so many epochs in all, in shuffled batches, and its history."""
    make, data, rate = FAMILY[name]
    keras.utils.set_random_seed(1)
    if model is None:
        model = make()
        loss = None if data[1] is None else "mse"
        model.compile(keras.optimizers.Adam(rate), loss)
    history = model.fit(
        *data, batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks
    )
    return model, history.history


def resumed(name, folder):
    """In the other process: the state as loaded, and after the rest of the epochs."""
    model = keras.saving.load_model(folder / "half.keras")
    loaded = state(model)
    trained(name, 4, model, [ResumableCheckpoint(folder / "half.npz")])
    return loaded, state(model)


@pytest.mark.parametrize("name", FAMILY)
def test_fit_goes_on_in_another_process(name, tmp_path):
    whole, history = trained(name, 4)
    half, _ = trained(name, 2, callbacks=[ResumableCheckpoint(tmp_path / "half.npz")])
    half.save(tmp_path / "half.keras")
    loaded, end = call_in_new_process(resumed, name, tmp_path)
    for found, model in ((loaded, half), (end, whole)):
        expected = state(model)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    check_history(name, history)


def check_history(name, history):
    """What the logs of each model have to say."""
    logs = {key: np.array(values) for key, values in history.items()}
    if name == "ConditionalVAE":
        assert logs["loss"][-1] < logs["loss"][0]
    elif name == "HierarchicalVAE":
        kl = logs["kl_1"] + logs["kl_2"]
        np.testing.assert_allclose(kl, logs["kl"], rtol=1e-4)
        loss = logs["kl"] - logs["log_likelihood"]
        np.testing.assert_allclose(loss, logs["loss"], rtol=1e-4)
    elif name == "IWAE":
        assert set(logs) == {"loss", "log_likelihood", "kl"}
    elif name.startswith("VQVAE"):
        assert logs["error"][-1] < logs["error"][0]
        assert np.all((logs["perplexity"] >= 1) & (logs["perplexity"] <= 5))
