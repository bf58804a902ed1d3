"""Tests of dlcompanion.generative.vector_quantized_autoencoder."""

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion.generative import VQVAE, EMAVectorQuantizer, VectorQuantizer
from dlcompanion.testing import check_model

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(32, 6)).astype("float32")


def numbers(x):
    return ops.convert_to_numpy(x)


def nearest(x, book):
    """Brute force: number of the nearest row, and the row."""
    distance = ((x[..., None, :].astype("float64") - book) ** 2).sum(axis=-1)
    chosen = distance.argmin(axis=-1)
    return chosen, book[chosen]


def parts(layer_class=VectorQuantizer):
    encoder = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8), keras.layers.Reshape((4, 2))]
    )
    decoder = keras.Sequential(
        [keras.Input((4, 2)), keras.layers.Flatten(), keras.layers.Dense(6)]
    )
    return {"encoder": encoder, "decoder": decoder, "quantizer": layer_class(5)}


@pytest.mark.parametrize("layer_class", [VectorQuantizer, EMAVectorQuantizer])
def test_contract_of_the_model(layer_class):
    export = layer_class is EMAVectorQuantizer  # the slower check, once
    check_model(VQVAE, lambda: parts(layer_class), DATA, export=export)


def test_loss_of_the_model_is_the_equation():
    model = VQVAE(**parts())
    out = model(DATA)
    decoded = numbers(out["decoded"])
    np.testing.assert_allclose(numbers(model.reconstruct(DATA)), decoded, rtol=1e-4)
    z = numbers(model.encoder(DATA))
    chosen, codes = nearest(z, numbers(model.quantizer.codebook))
    np.testing.assert_array_equal(numbers(out["numbers"]), chosen)
    weight = RNG.uniform(size=32).astype("float32")
    loss = model.compute_loss(x=DATA, y_pred=out, sample_weight=weight)
    expected = np.mean(weight * ((DATA - decoded) ** 2).mean(axis=1))
    expected += 1.25 * np.mean((z - codes) ** 2)
    np.testing.assert_allclose(float(numbers(loss)), expected, rtol=1e-4)
    p = np.bincount(chosen.ravel(), minlength=5) / chosen.size
    expected = np.exp(-sum(q * np.log(q) for q in p if q > 0))
    np.testing.assert_allclose(
        float(numbers(model.perplexity.result())), expected, rtol=1e-4
    )


@pytest.mark.parametrize("layer_class", [VectorQuantizer, EMAVectorQuantizer])
def test_fit_resumes_exactly_and_reports_perplexity(layer_class, tmp_path):
    def ready():
        keras.utils.set_random_seed(1)
        model = VQVAE(**parts(layer_class))
        model.compile(keras.optimizers.Adam(0.05))
        return model

    settings = {"shuffle": False, "verbose": 0, "batch_size": 16}
    whole = ready()
    history = whole.fit(DATA, epochs=4, **settings).history
    assert history["error"][-1] < history["error"][0]
    assert all(1 <= value <= 5 for value in history["perplexity"])
    half = ready()
    half.fit(DATA, epochs=2, **settings)
    half.save(tmp_path / "half.keras")
    rest = keras.saving.load_model(tmp_path / "half.keras")
    rest.fit(DATA, epochs=2, **settings)
    for a, b in zip(whole.get_weights(), rest.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_model_refuses():
    with pytest.raises(ValueError, match="quantizer must be.*Received"):
        VQVAE(**{**parts(), "quantizer": keras.layers.Dense(2)})
    model = VQVAE(**parts())
    model.compile("sgd")
    with pytest.raises(ValueError, match="no targets.*Received"):
        model.fit(DATA, DATA, verbose=0)
