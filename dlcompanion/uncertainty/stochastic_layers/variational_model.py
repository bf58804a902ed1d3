"""VariationalModel: the two terms of the bound on the evidence, logged apart."""

import keras
from keras import ops

from dlcompanion import backend
from dlcompanion.uncertainty.stochastic_layers.model_wrapper import ModelWrapper
from dlcompanion.uncertainty.stochastic_layers.stochastic_weights import (
    StochasticWeights,
)


@keras.saving.register_keras_serializable(package="dlcompanion")
class VariationalModel(ModelWrapper):
    r"""A model with Bayesian layers that logs likelihood and divergence apart.

    .. math:: \underbrace{-\mathbb E_{w \sim q} \log p(y_n \mid x_n, w)}_{
        \texttt{nll\_loss}} + \underbrace{\frac1N \mathrm{KL}\left(q(w) \,\|\, p(w)
        \right)}_{\texttt{kl}} = \texttt{loss}

    Wrap a model whose weights are drawn by Bayesian layers, compile and fit the
    wrapper. The logs of ``fit``, of validation and of ``evaluate`` then hold
    ``nll_loss``, all of the loss but the divergence, and ``kl``, the divergence of all
    Bayesian layers that are trained, both in nats an example. Training, predictions
    and weights are those of ``model``. As every loss of Keras ``nll_loss`` is divided
    by the size of the batch, also where there are weights of examples.

    Args:
        model: A :class:`keras.Model` with Bayesian layers, such as
            :class:`DenseFlipout`.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: As ``model`` takes them.
        training: As of ``model``.

    Returns:
        As ``model``: one draw.

    Raises:
        ValueError: If ``model`` is no Keras model or has no Bayesian layer.

    Example:
        >>> import numpy as np
        >>> from dlcompanion.uncertainty import DenseFlipout
        >>> layer = DenseFlipout(1, training_examples=20, seed=0)
        >>> model = VariationalModel(keras.Sequential([keras.Input((3,)), layer]))
        >>> model.compile("adam", "mse")
        >>> x = np.random.default_rng(0).normal(size=(20, 3))
        >>> logs = model.fit(x, x[:, :1], verbose=0).history
        >>> parts = logs["nll_loss"][0] + logs["kl"][0]
        >>> sorted(logs), np.allclose(logs["loss"][0], parts)
        (['kl', 'loss', 'nll_loss'], True)

    References:
        Blundell et al., *Weight Uncertainty in Neural Networks*, 2015.
        https://arxiv.org/abs/1505.05424
    """

    def __init__(self, model, **kwargs):
        super().__init__(model, **kwargs)
        self.nll_tracker = keras.metrics.Mean("nll_loss")
        self.kl_tracker = keras.metrics.Mean("kl")
        object.__setattr__(self, "_added", None)  # losses of this step, if known
        self.build_if_known()

    def check_model(self):
        inside = backend.flatten_layers(self.model)
        if not any(isinstance(layer, StochasticWeights) for layer in inside):
            raise ValueError(
                "The model must have a Bayesian layer, such as DenseFlipout. "
                f"Received: model={self.model.name}, without one"
            )

    @property
    def losses(self):
        return super().losses if self._added is None else self._added

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        added = self.losses  # once: a divergence that is estimated is drawn each time
        object.__setattr__(self, "_added", added)
        try:
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        finally:
            object.__setattr__(self, "_added", None)
        divergences = [one for one in added if backend.attached(one, "is_divergence")]
        kl = sum(divergences, 0 * loss)  # of frozen layers there is none
        examples = ops.shape(keras.tree.flatten(y_pred)[0])[0]
        self.kl_tracker.update_state(kl, examples)
        self.nll_tracker.update_state(backend.replicas() * loss - kl, examples)
        return loss
