"""Tests of dlcompanion.uncertainty.stochastic_layers.model_wrapper."""

import keras
import numpy as np
import pytest
from helpers.arrays import numpy

from dlcompanion.uncertainty import MonteCarloDropout, PredictiveMean, VariationalModel
from dlcompanion.uncertainty.stochastic_layers.model_wrapper import ModelWrapper

X = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")


def test_calls_the_model_and_shares_its_weights():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    wrapper = ModelWrapper(model)
    assert wrapper.variables[0] is model.variables[0]
    np.testing.assert_array_equal(numpy(wrapper(X)), numpy(model(X)))
    assert wrapper.compute_output_shape((None, 3)) == (None, 2)
    again = ModelWrapper.from_config(wrapper.get_config())
    assert again.model.get_config() == model.get_config()


@pytest.mark.parametrize("kind", [MonteCarloDropout, PredictiveMean, VariationalModel])
def test_refuses_what_is_no_model(kind):
    with pytest.raises(ValueError, match="model must be a Keras model.*Received: "):
        kind(keras.layers.Dense(1))
