"""Tests of dlcompanion.generative.vector_quantized_autoencoder."""

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from keras import ops

from dlcompanion import autodiff
from dlcompanion.generative import (
    VQVAE,
    CodePerplexity,
    EMAVectorQuantizer,
    VectorQuantizer,
)
from dlcompanion.testing import check_layer, check_model

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(32, 6)).astype("float32")


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
    # what the quantizer adds to the loss is that of the layer, which sees no weights
    skip = ("sample_weight",)
    check_model(VQVAE, lambda: parts(layer_class), DATA, export=export, skip=skip)


def test_loss_of_the_model_is_the_equation():
    model = VQVAE(**parts())
    out = model(DATA)
    decoded = numpy(out["decoded"])
    np.testing.assert_allclose(numpy(model.reconstruct(DATA)), decoded, rtol=1e-4)
    z = numpy(model.encoder(DATA))
    chosen, codes = nearest(z, numpy(model.quantizer.codebook))
    np.testing.assert_array_equal(numpy(out["numbers"]), chosen)
    weight = RNG.uniform(size=32).astype("float32")
    loss = model.compute_loss(x=DATA, y_pred=out, sample_weight=weight)
    expected = np.mean(weight * ((DATA - decoded) ** 2).mean(axis=1))
    expected += 1.25 * np.mean((z - codes) ** 2)
    np.testing.assert_allclose(float(numpy(loss)), expected, rtol=1e-4)
    p = np.bincount(chosen.ravel(), minlength=5) / chosen.size
    expected = np.exp(-sum(q * np.log(q) for q in p if q > 0))
    np.testing.assert_allclose(
        float(numpy(model.perplexity.result())), expected, rtol=1e-4
    )


def test_the_model_refuses():
    with pytest.raises(ValueError, match="quantizer must be.*Received"):
        VQVAE(**{**parts(), "quantizer": keras.layers.Dense(2)})
    model = VQVAE(**parts())
    model.compile("sgd")
    with pytest.raises(ValueError, match="no targets.*Received"):
        model.fit(DATA, DATA, verbose=0)


X = RNG.normal(size=(6, 4, 3)).astype("float32")
BOOK = RNG.normal(size=(5, 3)).astype("float32")


def with_book(layer, book=BOOK):
    layer.build((None, book.shape[1]))
    layer.codebook.assign(book)
    return layer


@pytest.mark.parametrize("layer_class", [VectorQuantizer, EMAVectorQuantizer])
def test_contract(layer_class):
    arguments = {
        "codes": 5,
        "commitment": 0.5,
        "initializer": keras.initializers.RandomNormal(stddev=1.0, seed=1),
    }
    check_layer(
        layer_class,
        arguments,
        X,
        output_shape=X.shape,
        large=5.0,
        skip=("gradient",),  # the identity, not that of a step: see below
    )


@pytest.mark.parametrize("layer_class", [VectorQuantizer, EMAVectorQuantizer])
def test_nearest_code_by_brute_force_and_back(layer_class):
    layer = with_book(layer_class(5))
    chosen, codes = nearest(X, BOOK)
    assert len(np.unique(chosen)) > 2
    np.testing.assert_array_equal(numpy(layer.encode(X)), chosen)
    np.testing.assert_array_equal(numpy(layer.decode(chosen)), codes)
    np.testing.assert_array_equal(numpy(layer(X)), codes)


def test_losses_and_gradients_are_the_equation():
    """sg(z) - e moves the code, beta (z - sg(e)) the encoder, the identity the rest."""
    layer = with_book(VectorQuantizer(5, commitment=0.3))
    slope = ops.convert_to_tensor(RNG.normal(size=X.shape).astype("float32"))
    x = keras.Variable(X)

    def loss():
        y = layer(x.value)
        return ops.sum(slope * y) + sum(layer.losses)

    value, (by_x, by_code) = autodiff.value_and_grad(
        loss, variables=[x, layer.codebook]
    )()
    chosen, codes = nearest(X, BOOK)
    gap = X - codes
    expected = (numpy(slope) * codes).sum() + 1.3 * (gap**2).mean()
    np.testing.assert_allclose(float(numpy(value)), expected, rtol=1e-4)
    np.testing.assert_allclose(
        numpy(by_x), numpy(slope) + 0.3 * 2 * gap / gap.size, rtol=1e-4, atol=1e-6
    )
    expected = np.zeros_like(BOOK)
    np.add.at(expected, chosen, -2 * gap / gap.size)
    np.testing.assert_allclose(numpy(by_code), expected, rtol=1e-4, atol=1e-6)


def test_running_means_by_hand():
    layer = with_book(EMAVectorQuantizer(5, decay=0.9))
    book, counts, sums = BOOK.astype("float64"), np.zeros(5), np.zeros((5, 3))
    for step in range(3):
        x = RNG.normal(size=(7, 3)).astype("float32") + 0.3 * step
        chosen, _ = nearest(x, book)
        layer(x, training=True)
        layer(x, training=False)  # learns nothing
        for j in range(5):
            mine = x[chosen == j]
            counts[j] = 0.9 * counts[j] + 0.1 * len(mine)
            sums[j] = 0.9 * sums[j] + 0.1 * mine.sum(axis=0)
            if len(mine):
                book[j] = sums[j] / counts[j]
        np.testing.assert_allclose(numpy(layer.codebook), book, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(numpy(layer.counts), counts, rtol=1e-5)


def test_without_memory_it_is_lloyds_algorithm():
    """No decay and the whole data: k-means, whose error never rises."""
    x = RNG.normal(size=(60, 3)).astype("float32")
    layer = with_book(EMAVectorQuantizer(5, decay=0.0))
    book, errors = BOOK.copy(), []
    for _ in range(6):
        chosen, codes = nearest(x, book)
        errors.append(((x - codes) ** 2).mean())
        means = [x[chosen == j].mean(0) for j in range(5) if (chosen == j).any()]
        book[np.unique(chosen)] = means
        layer(x, training=True)
        np.testing.assert_allclose(numpy(layer.codebook), book, rtol=1e-4, atol=1e-5)
    assert np.all(np.diff(errors) <= 1e-9) and errors[-1] < 0.8 * errors[0]


def test_a_code_that_nobody_chose_stays_and_returns_when_chosen():
    book = np.array([[0.0, 0.0], [100.0, 0.0]], "float32")
    layer = with_book(EMAVectorQuantizer(2, decay=0.5), book)
    near = RNG.normal(size=(4, 2)).astype("float32")
    layer(near, training=True)
    np.testing.assert_array_equal(numpy(layer.codebook)[1], book[1])
    layer.counts.assign(np.zeros(2))  # as after thousands of steps: all is forgotten
    layer.sums.assign(np.zeros((2, 2)))
    layer(near, training=True)
    assert np.isfinite(numpy(layer.codebook)).all()
    layer(near + [90.0, 0.0], training=True)
    np.testing.assert_allclose(
        numpy(layer.codebook)[1], (near + [90.0, 0.0]).mean(0), rtol=1e-5
    )


def test_frozen_codes_stay():
    layer = with_book(EMAVectorQuantizer(5))
    layer.trainable = False
    layer(X, training=True)
    np.testing.assert_array_equal(numpy(layer.codebook), BOOK)


def test_perplexity_of_frequencies():
    metric = CodePerplexity(8)
    assert float(metric.result()) == 1.0  # nothing seen yet: of no code
    for part in ([0, 1, 1], [[3], [3], [3]]):
        metric.update_state(np.array(part))
    p = np.array([1, 2, 3]) / 6
    expected = np.exp(-(p * np.log(p)).sum())
    np.testing.assert_allclose(float(metric.result()), expected, rtol=1e-5)
    assert int(metric.dead()) == 5
    again = CodePerplexity.from_config(metric.get_config())
    again.update_state(np.arange(8))
    np.testing.assert_allclose(float(again.result()), 8.0, rtol=1e-5)
    again.reset_state()
    assert int(again.dead()) == 8


@pytest.mark.parametrize("layer_class", [VectorQuantizer, EMAVectorQuantizer])
def test_weights_of_examples_weigh_the_error_alone(layer_class):
    """What the quantizer adds is that of the layer, which sees no weights."""
    model = VQVAE(**parts(layer_class))
    model.compile("sgd")

    def logs(weight):
        weight = np.full(32, weight, "float32")
        kwargs = {"batch_size": 16, "verbose": 0, "return_dict": True}
        return model.evaluate(DATA, sample_weight=weight, **kwargs)

    never, once, twice = (logs(w) for w in (0, 1, 2))
    added = never["loss"]
    assert added > 0 and never["error"] == 0
    np.testing.assert_allclose(once["loss"] - added, once["error"], rtol=1e-4)
    np.testing.assert_allclose(twice["loss"] - added, 2 * once["error"], rtol=1e-4)
    np.testing.assert_allclose(twice["error"], once["error"], rtol=1e-5)
    assert never["perplexity"] == once["perplexity"]


# Keras's Sequential hands the mask on to its layers, and warns that it does not
@pytest.mark.filterwarnings("ignore:.*does not support masking")
def test_masked_steps_count_nowhere():
    """Padding with anything gives the logs of the steps that are kept."""
    L = keras.layers
    encoder = keras.Sequential([keras.Input((4, 3)), L.Masking(), L.Dense(2)])
    decoder = keras.Sequential([keras.Input((4, 2)), L.Dense(3)])
    model = VQVAE(encoder, decoder, VectorQuantizer(5))
    short = keras.Sequential([keras.Input((2, 3)), L.Dense(2)])
    tail = keras.Sequential([keras.Input((2, 2)), L.Dense(3)])
    kept = VQVAE(short, tail, VectorQuantizer(5))
    x = RNG.normal(size=(8, 4, 3)).astype("float32")
    x[:, 2:] = 0
    for one, data in ((model, x), (kept, x[:, :2])):
        one.compile("sgd")
        one.build((None, *data.shape[1:]))
    decoder.layers[-1].bias.assign([5.0, 5.0, 5.0])  # far from the padding
    kept.set_weights(model.get_weights())
    found, wanted = (
        one.evaluate(data, verbose=0, return_dict=True)
        for one, data in ((model, x), (kept, x[:, :2]))
    )
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4)


def test_weights_count_a_code_as_often():
    numbers = np.array([[0, 1], [2, 2], [1, 3]])
    weighed, twice = CodePerplexity(5), CodePerplexity(5)
    weighed.update_state(numbers, sample_weight=np.array([2.0, 0.0, 1.0]))
    twice.update_state(numbers[[0, 0, 2]])
    np.testing.assert_array_equal(numpy(weighed.counts), numpy(twice.counts))
    assert int(weighed.dead()) == 2


def test_nan_stays_nan():
    x = np.array([[np.nan, 1.0, 2.0], [0.0, 0.0, 0.0]], "float32")
    y = numpy(with_book(VectorQuantizer(5))(x))
    assert np.isnan(y[0, 0]) and np.isfinite(y[1]).all()


@pytest.mark.parametrize(
    ("rule", "arguments"),
    [
        ("codes must be an integer of at least 2", {"codes": 1}),
        ("commitment must be a finite number", {"codes": 4, "commitment": -1}),
        ("decay must be", {"codes": 4, "decay": 1}),
        ("decay must be", {"codes": 4, "decay": -0.1}),
    ],
)
def test_refuses(rule, arguments):
    with pytest.raises(ValueError, match=f"{rule}.*Received: "):
        EMAVectorQuantizer(**arguments)
    if "decay" not in arguments:
        with pytest.raises(ValueError, match=f"{rule}.*Received: "):
            VectorQuantizer(**arguments)


def test_refuses_numbers_without_an_axis_of_features():
    with pytest.raises(ValueError, match="needs vectors.*Received: input_shape"):
        VectorQuantizer(4).build((None,))
    with pytest.raises(ValueError, match="codes must be.*Received"):
        CodePerplexity(1.5)
