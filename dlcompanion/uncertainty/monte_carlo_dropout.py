"""Monte Carlo dropout: dropout stays on, and its draws say how sure a model is."""

import contextlib

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.regularization import DropBlock2D
from dlcompanion.uncertainty.stochastic_layers.model_wrapper import ModelWrapper
from dlcompanion.uncertainty.stochastic_layers.predictive_samples import seed_states

#: Layers that are kept active; the spatial dropouts of Keras are subclasses of Dropout.
DROPOUT = (
    keras.layers.Dropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    DropBlock2D,
)


@keras.saving.register_keras_serializable(package="dlcompanion")
class MonteCarloDropout(ModelWrapper):
    r"""A model you already have, with its dropout left on in inference.

    A network trained with dropout can be read as an approximation to a Bayesian one,
    in which each mask :math:`m_s` is a draw of the weights. The predictive
    distribution is then the mean over masks,

    .. math:: p(y \mid x) \approx \frac1S \sum_{s=1}^S p(y \mid x, w \odot m_s) .

    Each call in inference is one draw; :func:`predictive_samples` makes many, and
    :func:`predictive_entropy` and :func:`mutual_information` sum them up. Calling the
    model with ``training=True`` instead would give the noise too, but also put every
    other layer in training mode: BatchNormalization would use, and change, the
    statistics of the batch. Here all layers but those of dropout stay in inference.

    Kept active are Dropout, the spatial dropouts, AlphaDropout, GaussianDropout,
    :class:`~dlcompanion.regularization.DropBlock2D`, the dropout inside of attention
    layers, and recurrent layers with ``dropout`` or ``recurrent_dropout``. The weights
    are shared with ``model``, which itself stays as it was. In training the wrapper
    does what the model does.

    Args:
        model: A :class:`keras.Model` with dropout.
        layers: List of names of layers, to keep these active and no others. By
            default all that are named above.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: As ``model`` takes them.
        training: ``True`` for what the model does in training.

    Returns:
        One draw of the output of ``model``.

    Raises:
        ValueError: If ``model`` is no Keras model, there is no dropout in it, or no
            layer of a name given.

    The random state of the dropout layers, which Keras does not save, is saved with
    this model. On PyTorch a dropout layer of Keras without a ``seed`` has no state: it
    draws from PyTorch's global generator. Masks of different examples are independent.

    Example:
        >>> model = keras.Sequential(
        ...     [
        ...         keras.Input((4,)),
        ...         keras.layers.BatchNormalization(),
        ...         keras.layers.Dropout(0.5, seed=0),
        ...         keras.layers.Dense(3, "softmax"),
        ...     ]
        ... )
        >>> from dlcompanion.uncertainty import predictive_entropy, predictive_samples
        >>> x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
        >>> draws = predictive_samples(MonteCarloDropout(model), x, samples=20)
        >>> draws.shape, predictive_entropy(draws).shape
        ((20, 6, 3), (6,))

    References:
        Gal and Ghahramani, *Dropout as a Bayesian Approximation: Representing Model
        Uncertainty in Deep Learning*, 2016. https://arxiv.org/abs/1506.02142
    """

    def __init__(self, model, layers=None, **kwargs):
        super().__init__(model, **kwargs)
        self.layer_names = None if layers is None else list(layers)
        self.build_if_known()

    def check_model(self):
        self._active()

    def _active(self):
        """The layers that are to stay random."""
        inside = backend.flatten_layers(self.model)
        if self.layer_names is None:
            found = [layer for layer in inside if _has_dropout(layer)]
        else:
            found = [layer for layer in inside if layer.name in self.layer_names]
            missing = set(self.layer_names) - {layer.name for layer in found}
            if missing:
                raise ValueError(
                    "layers must name layers inside of the model. "
                    f"Received: unknown {sorted(missing)}"
                )
        if not found:
            raise ValueError(
                "The model must have a layer of dropout: without one every draw would "
                f"be the same. Received: model={self.model.name}"
            )
        return found

    def call(self, inputs, training=None):
        if training:
            return self.model(inputs, training=True)
        with in_training(self._active()):
            return self.model(inputs, training=False)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for n, state in enumerate(seed_states(self.model)):
            store[f"dropout_state_{n}"] = ops.convert_to_numpy(state)

    def load_own_variables(self, store):
        seeds = {k: store[k] for k in store.keys() if k.startswith("dropout_state_")}
        super().load_own_variables(
            {k: store[k] for k in store.keys() if k not in seeds}
        )
        states = seed_states(self.model)
        if len(seeds) != len(states):
            raise ValueError(
                "The model must have as many seed generators as were saved. "
                f"Received: saved={len(seeds)}, present={len(states)}"
            )
        for n, state in enumerate(states):
            value = np.asarray(seeds[f"dropout_state_{n}"])
            state.assign(value.astype(state.dtype))

    def get_config(self):
        return {**super().get_config(), "layers": self.layer_names}


def _has_dropout(layer):
    if isinstance(layer, keras.layers.RNN):
        cells = getattr(layer.cell, "cells", [layer.cell])
        rates = [
            getattr(cell, name, 0) or 0
            for cell in cells
            for name in ("dropout", "recurrent_dropout")
        ]
        return any(rates)
    return isinstance(layer, DROPOUT)


@contextlib.contextmanager
def in_training(layers):
    """Inside the block these layers are in training mode, whatever ``training`` is.

    Args:
        layers: List of layers whose ``call`` has an argument ``training``.

    Yields:
        Nothing.

    Example:
        >>> dropout = keras.layers.Dropout(0.5, seed=0)
        >>> with in_training([dropout]):
        ...     y = dropout(np.ones((1, 100)), training=False)
        >>> 20 < int(ops.sum(ops.cast(y > 0, "int32"))) < 80
        True
    """
    with backend.replaced(layers, "call", _training_call):
        yield


def _training_call(layer, call):
    def in_training_mode(*args, **kwargs):
        return call(*args, **{**kwargs, "training": True})

    return in_training_mode
