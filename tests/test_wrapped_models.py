"""Models of a user with dict inputs and two outputs, inside all that wraps a model."""

import keras
import numpy as np
import pytest
from helpers.arrays import numpy

from dlcompanion.testing import check_model, models
from dlcompanion.uncertainty import (
    SWAG,
    ConformalizedQuantileRegression,
    DeepEnsemble,
    DenseFlipout,
    LastLayerLaplace,
    MonteCarloDropout,
    PredictiveMean,
    SplitConformal,
    SplitConformalRegression,
    TemperatureScaling,
    VariationalModel,
    calibrated_model,
)

L = keras.layers
RNG = np.random.default_rng(0)
X = {
    name: RNG.normal(size=(8, n)).astype("float32") for name, n in (("a", 2), ("b", 3))
}
CLASSES = np.arange(8) % 3
Y = {"class": CLASSES, "sum": X["a"].sum(axis=1, keepdims=True)}
LOSSES = {"class": "sparse_categorical_crossentropy", "sum": "mse"}
ONLY_DATA = tuple(check for check in models.CHECKS if check != "data")


def network(*middle, outputs=("class", "sum")):
    """From {a, b} to one output, or to a dict of several."""
    inputs = {name: keras.Input((a.shape[1],), name=name) for name, a in X.items()}
    h = L.Dense(4, "tanh")(L.Concatenate()([inputs["a"], inputs["b"]]))
    for layer in middle:
        h = layer(h)
    heads = {
        "class": lambda: L.Dense(3, "softmax", name="class")(h),
        "sum": lambda: L.Dense(1, name="sum")(h),
    }
    made = {name: heads[name]() for name in outputs}
    return keras.Model(inputs, made if len(made) > 1 else next(iter(made.values())))


def dropout(**kwargs):
    return MonteCarloDropout(network(L.Dropout(0.5, seed=0), **kwargs))


def bayesian():
    return network(DenseFlipout(4, training_examples=8, seed=0))


@pytest.mark.parametrize(
    ("wrapper", "arguments"),
    [
        (MonteCarloDropout, lambda: {"model": network(L.Dropout(0.5, seed=0))}),
        (PredictiveMean, lambda: {"model": dropout(), "samples": 2}),
        (VariationalModel, lambda: {"model": bayesian()}),
    ],
)
def test_data_of_two_inputs_and_two_outputs(wrapper, arguments):
    check_model(
        wrapper, arguments, X, Y,
        compile_kwargs={"optimizer": "sgd", "loss": LOSSES}, skip=ONLY_DATA,
    )  # fmt: skip


def test_data_of_an_ensemble_with_two_inputs():
    check_model(
        DeepEnsemble,
        {"build_fn": lambda: network(outputs=["class"]), "members": 2},
        X,
        CLASSES,
        compile_kwargs={"optimizer": "sgd", "loss": LOSSES["class"]},
        skip=ONLY_DATA,
    )


def test_draws_of_swag_are_those_of_both_outputs():
    model = network()
    model.compile("sgd", LOSSES)
    swag = SWAG(start=0, rank=3)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[swag])
    draws = swag.predict_samples(X, samples=2, batch_size=3)
    assert {k: v.shape for k, v in draws.items()} == {
        "class": (2, 8, 3),
        "sum": (2, 8, 1),
    }
    rng = np.random.default_rng(0)
    for variable, value in zip(
        model.trainable_variables, swag.sample(rng), strict=True
    ):
        variable.assign(value)
    for name, value in model.predict(X, verbose=0).items():
        np.testing.assert_allclose(draws[name][0], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("predictor", "output", "y"),
    [(SplitConformal, "class", CLASSES), (SplitConformalRegression, "sum", Y["sum"])],
)
def test_conformal_predictors_take_two_inputs(predictor, output, y):
    model = network(outputs=[output])
    made = predictor(model, alpha=0.3).calibrate(X, y, batch_size=3)
    found = made.predict(X, batch_size=3)
    inner = keras.Sequential([keras.Input((model.output.shape[1],)), L.Identity()])
    outputs = model.predict(X, verbose=0)
    wanted = predictor(inner, alpha=0.3).calibrate(outputs, y).predict(outputs)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_calibrator_stands_behind_two_inputs():
    model = network(outputs=["class"])
    p = model.predict(X, verbose=0)
    scaling = TemperatureScaling(from_logits=False)
    scaling.build(p.shape)
    scaling.temperature.assign(2.0)
    found = calibrated_model(model, scaling).predict(X, verbose=0)
    np.testing.assert_allclose(found, numpy(scaling(p)), rtol=1e-5)


@pytest.mark.parametrize(
    ("rule", "use"),
    [
        ("one output", lambda: DeepEnsemble(network, members=2)),
        ("one output", lambda: LastLayerLaplace(network())),
        ("must give", lambda: SplitConformal(network()).calibrate(X, CLASSES)),
        (
            "must give",
            lambda: ConformalizedQuantileRegression(network()).calibrate(X, Y["sum"]),
        ),
        (
            "one output",
            lambda: calibrated_model(
                network(),
                TemperatureScaling().fit(np.eye(3)[[0, 1, 2, 0]], [0, 1, 2, 1]),
            ),
        ),
    ],
)
def test_what_takes_one_output_refuses_two(rule, use):
    with pytest.raises(ValueError, match=f"{rule}.*Received: "):
        use()
