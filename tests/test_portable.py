"""Tests of dlcompanion.training.portable: files for every backend."""

import json
import zipfile

import keras
import numpy as np
import pytest
from helpers.models import state

from dlcompanion.generative import VAE
from dlcompanion.optimization import Lookahead
from dlcompanion.training import CompositeOptimizer, LossScaling, StepModel
from dlcompanion.training.portable import portable

TORCH = "keras.src.backend.torch.optimizers.torch_adam"


@keras.saving.register_keras_serializable(package="test_portable")
class Line(StepModel):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(1)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(inputs)

    def update(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        weights = self.dense.trainable_variables
        loss = self.descend(
            lambda: keras.ops.mean(keras.ops.square(self(x) - y)), weights
        )
        return {"loss": loss}


def adam():
    return keras.optimizers.Adam(0.01)


def line(optimizer):
    model = Line()
    model.build((None, 3))
    model.compile(optimizer)
    model.fit(np.ones((4, 3), "float32"), np.ones((4, 1), "float32"), verbose=0)
    return model


def vae():
    model = VAE.dense(3, latent=2, hidden=(4,), seed=0)
    model.compile(adam())
    model.fit(np.full((4, 3), 0.5, "float32"), verbose=0)
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: line(adam()),
        lambda: line(Lookahead(keras.optimizers.AdamW(0.01))),
        lambda: line(CompositeOptimizer({"dense": adam()})),
        lambda: line(LossScaling(adam())),
        vae,
    ],
    ids=["one", "wrapped", "composite", "scaled", "unsupervised"],
)
def test_a_file_names_no_backend(make, tmp_path):
    model, path = make(), tmp_path / "model.keras"
    model.save(path)
    config = zipfile.ZipFile(path).read("config.json").decode()
    assert "keras.src.backend" not in config
    loaded = keras.saving.load_model(path)
    assert type(loaded.optimizer) is type(model.optimizer)
    for new, old in zip(state(loaded), state(model), strict=True):
        np.testing.assert_array_equal(new, old)


def test_what_pytorch_writes_is_read_on_every_backend():
    config = keras.saving.serialize_keras_object(adam())
    written = {**config, "module": TORCH, "registered_name": "Adam"}
    nested = portable(
        {"optimizers": [written, (written,)], "module": None, "rate": 0.1}
    )
    assert TORCH not in json.dumps(nested) and nested["rate"] == 0.1
    loaded = keras.saving.deserialize_keras_object(nested["optimizers"][1][0])
    assert isinstance(loaded, keras.optimizers.Adam)
    assert abs(float(loaded.learning_rate) - 0.01) < 1e-7


def test_what_is_no_optimizer_of_pytorch_stays():
    config = keras.saving.serialize_keras_object(keras.layers.Dense(2))
    assert portable(config) == config
    mine = {"class_name": "Mine", "module": "mine", "registered_name": "pkg>Mine"}
    assert portable(mine) == mine
