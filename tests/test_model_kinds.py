"""What a model of every kind must do: be exported, and train on two devices."""

import keras
import model_kinds
import numpy as np
import pytest
from helpers.two_devices import on_two_devices
from keras import ops

from dlcompanion.testing import common

NAMES = list(model_kinds.KINDS)
#: All but the ensemble: its members have no place for a second device, and it says so.
DISTRIBUTED = [name for name in NAMES if name != "ensemble"]


def fitted(name):
    """Losses and weights of a model after two epochs, in order."""
    make, (x, y), _ = model_kinds.KINDS[name]
    keras.utils.set_random_seed(0)
    model = make()
    history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    weights = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    return history.history["loss"], np.concatenate([w.ravel() for w in weights])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModel is TensorFlow's"
)
@pytest.mark.parametrize("name", NAMES)
def test_exports_what_it_computes(name, tmp_path):
    make, (x, _), _ = model_kinds.KINDS[name]
    model = make()
    model(x, training=False)  # it is built
    state = common.snapshot(model.variables)
    wanted = keras.tree.flatten(model(x, training=False))
    common.restore(model.variables, state)  # the same random numbers once more
    model.export(tmp_path / "exported", verbose=False)
    served = keras.layers.TFSMLayer(tmp_path / "exported", call_endpoint="serve")
    for a, b in zip(keras.tree.flatten(served(x)), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="on PyTorch a process has one device"
)
@pytest.mark.parametrize("name", DISTRIBUTED)
def test_trains_on_two_devices_as_on_one(name):
    losses, weights = on_two_devices(fitted, name)
    one_losses, one_weights = fitted(name)
    assert np.isfinite(losses).all() and np.isfinite(weights).all()
    if model_kinds.KINDS[name][2]:  # other random numbers, and it trains all the same
        np.testing.assert_allclose(losses, one_losses, rtol=0.4)
        keras.utils.set_random_seed(0)
        start = model_kinds.KINDS[name][0]().trainable_variables[0]
        start = ops.convert_to_numpy(start).ravel()
        assert np.abs(weights[: len(start)] - start).max() > 1e-6
    else:
        np.testing.assert_allclose(losses, one_losses, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(weights, one_weights, rtol=1e-5, atol=1e-6)
