"""Tests of dlcompanion.training.parameters."""

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from keras import layers, ops

from dlcompanion.training.parameters import (
    check_patterns,
    is_bias_or_normalization,
    is_embedding,
    norm,
    selected,
    unit_axes,
)


def everything():
    """A model with every kind of kernel, bias and normalization."""
    image = keras.Input((6, 6, 4))
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.DepthwiseConv2D(2)(x)
    x = layers.SeparableConv2D(4, 2, name="separable")(x)
    x = layers.Conv2DTranspose(5, 2)(x)
    x = layers.GroupNormalization(1, name="group")(x)
    x = layers.Reshape((9, 5))(x)
    tokens = keras.Input((9,), dtype="int32")
    x = x + layers.Embedding(7, 5, name="embedding")(tokens)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.LayerNormalization(name="layer")(x)
    x = layers.RMSNormalization(name="rms")(x)
    x = layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de", name="e")(x)
    x = layers.Reshape((9, 8))(x)
    x = layers.Conv1D(3, 2, name="conv1")(x)
    x = layers.LSTM(3, return_sequences=True, name="lstm")(x)
    x = layers.GRU(3, name="gru")(x)
    return keras.Model([image, tokens], layers.Dense(2, name="dense")(x))


#: Path: shape, and the axes of one unit. All that is not here is a bias or
#: normalization.
KERNELS = {
    "conv/kernel": ((3, 3, 4, 4), (0, 1, 2)),
    "depthwise_conv2d/kernel": ((2, 2, 4, 1), (0, 1)),
    "separable/depthwise_kernel": ((2, 2, 4, 1), (0, 1)),
    "separable/pointwise_kernel": ((1, 1, 4, 4), (0, 1, 2)),
    "conv2d_transpose/kernel": ((2, 2, 5, 4), (0, 1, 3)),
    "embedding/embeddings": ((7, 5), (1,)),
    "attention/query/kernel": ((5, 2, 3), (0,)),
    "attention/key/kernel": ((5, 2, 3), (0,)),
    "attention/value/kernel": ((5, 2, 3), (0,)),
    "attention/attention_output/kernel": ((2, 3, 5), (0, 1)),
    "e/kernel": ((5, 2, 4), (0, 1)),
    "conv1/kernel": ((2, 8, 3), (0, 1)),
    "lstm/lstm_cell/kernel": ((3, 12), (0,)),
    "lstm/lstm_cell/recurrent_kernel": ((3, 12), (0,)),
    "gru/gru_cell/kernel": ((3, 9), (0,)),
    "gru/gru_cell/recurrent_kernel": ((3, 9), (0,)),
    "dense/kernel": ((3, 2), (0,)),
}


def test_what_every_variable_of_a_model_is():
    keras.utils.clear_session()  # the names of layers that were given none
    found, others = {}, []
    for v in everything().trainable_variables:
        if is_bias_or_normalization(v):
            others.append(v)
            assert unit_axes(v) == tuple(range(len(v.shape)))
        else:
            found[v.path] = (tuple(v.shape), unit_axes(v))
            assert is_embedding(v) == (v.path == "embedding/embeddings")
    assert found == KERNELS
    deep = {v.path for v in others if len(v.shape) > 1}
    assert deep == {
        *(f"attention/{part}/bias" for part in ("query", "key", "value")),
        "e/bias",
        "gru/gru_cell/bias",
    }
    assert {v.name for v in others} == {"bias", "gamma", "beta", "scale"}


def test_a_normalization_over_two_axes_is_one():
    layer = layers.LayerNormalization(axis=(-2, -1))
    layer.build((None, 3, 4))
    assert [is_bias_or_normalization(v) for v in layer.trainable_variables] == [
        True
    ] * 2


def test_other_names():
    def made(name, shape=(2, 3)):
        return keras.Variable(np.ones(shape), name=name)

    assert is_bias_or_normalization(made("output_bias"))
    assert not is_bias_or_normalization(made("unbiased"))
    assert not is_bias_or_normalization(made("gamma_kernel"))
    assert is_bias_or_normalization(made("anything", (3,)))
    assert is_bias_or_normalization(made("temperature", ()))


def variables(*paths):
    found = []
    for path in paths:
        *scopes, name = path.split("/")
        variable = keras.Variable(np.ones(2), name=name)
        variable._path = path
        found.append(variable)
    return found


def test_patterns_are_searched_in_the_path():
    paths = variables(
        "net/enc/kernel", "net/enc/bias", "net/dec/kernel", "net/dec/bias"
    )
    assert selected("exclude", [], paths) == [False] * 4
    assert selected("exclude", ["enc"], paths) == [True, True, False, False]
    assert selected("exclude", ["bias$"], paths) == [False, True, False, True]
    assert selected("exclude", ["c/k", "dec"], paths) == [True, False, True, True]


def test_a_pattern_that_selects_nothing_is_refused():
    with pytest.raises(
        ValueError, match="'encoder' does not.*enc/kernel.*Received: ex"
    ):
        selected("exclude", ["enc", "encoder"], variables("enc/kernel", "dec/kernel"))


def test_the_name_of_the_model_is_refused():
    paths = variables("bias_net/enc/kernel", "bias_net/enc/bias")
    with pytest.raises(ValueError, match="name of the model.*Received: exclude"):
        selected("exclude", ["bias"], paths)
    assert selected("exclude", ["/bias"], paths) == [False, True]
    assert selected("exclude", ["kernel"], variables("kernel")) == [True]


@pytest.mark.parametrize("bad", ["bias", [3], [""], ["("], None, {"a": 1}])
def test_refuses_what_is_no_list_of_patterns(bad):
    with pytest.raises(
        ValueError, match="exclude must be a list of reg.*Received: exc"
    ):
        check_patterns("exclude", bad)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_a_norm_of_every_magnitude(size):
    x = np.array([[3.0, 4.0, 0.0]]) * size
    found = numpy(norm(ops.convert_to_tensor(x.astype("float32"))))
    np.testing.assert_allclose(found, [[5.0 * size]], rtol=1e-6)


def test_norms_along_axes_of_zeros_and_of_what_is_not_finite():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    for axes in (None, (0,), (0, 1), (2,)):
        wanted = np.sqrt(np.sum(x.astype("float64") ** 2, axis=axes, keepdims=True))
        found = numpy(norm(ops.convert_to_tensor(x), axes))
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert numpy(norm(ops.zeros((3,)))).tolist() == [0.0]
    for bad in (np.inf, np.nan):
        assert np.isnan(numpy(norm(ops.convert_to_tensor([1.0, bad]))))


# -- models, before saving and after loading ------------------------------------


@keras.saving.register_keras_serializable(package="test_parameters")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.enc = layers.Dense(3, name="enc")
        self.dec = layers.Dense(1, name="dec")

    def call(self, x):
        return self.dec(self.enc(x))


def lazy():
    return keras.Sequential([layers.Dense(3, name="enc"), layers.Dense(1, name="dec")])


def with_input():
    stack = [
        keras.Input((4,)),
        layers.Dense(3, name="enc"),
        layers.Dense(1, name="dec"),
    ]
    return keras.Sequential(stack, name="bias_net")


def functional():
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(1, name="dec")(layers.Dense(3, name="enc")(x)))


def nested():
    x = keras.Input((4,))
    body = keras.Sequential([layers.Dense(3, name="enc")], name="body")
    return keras.Model(x, layers.Dense(1, name="dec")(body(x)))


@pytest.mark.parametrize("make", [lazy, with_input, functional, nested, Subclassed])
def test_patterns_select_the_same_after_loading(make, tmp_path):
    """An excluded variable does not decay, in the loaded model either."""
    from dlcompanion.optimization import LARS

    def optimizer(model):
        return model.optimizer

    model = make()
    exclude = {"exclude_from_decay": ["enc/k"], "exclude_from_adaptation": ["dec"]}
    model.compile(LARS(0.1, weight_decay=0.5, **exclude), "mse")
    x = np.ones((4, 4), "float32")
    model.fit(x, x[:, :1], verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    rules = list(optimizer(model).rules().values())
    assert rules == list(optimizer(loaded).rules().values())
    assert rules == [(True, False), (False, False), (False, True), (False, False)]
    before = loaded.get_weights()
    velocities = loaded.optimizer.variables[2:]
    for velocity in velocities:
        velocity.assign(ops.zeros(velocity.shape))
    loaded.optimizer.apply([ops.zeros(w.shape) for w in before])
    for w, after, (_, decayed) in zip(before, loaded.get_weights(), rules, strict=True):
        np.testing.assert_allclose(after, w * (0.95 if decayed else 1.0), rtol=1e-6)
        assert decayed or np.array_equal(after, w)
