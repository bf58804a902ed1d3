"""PredictiveMean: the mean of draws from a random model, as one Keras model."""

import keras
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count
from dlcompanion.uncertainty.stochastic_layers.model_wrapper import ModelWrapper
from dlcompanion.uncertainty.stochastic_layers.predictive_samples import seed_states


@keras.saving.register_keras_serializable(package="dlcompanion")
class PredictiveMean(ModelWrapper):
    r"""The mean prediction of a model that draws anew at every call.

    .. math:: p(y \mid x) \approx \frac1S \sum_{s=1}^S p(y \mid x, w_s),
        \qquad w_s \sim q(w) .

    A model of Bayesian layers, or one in :class:`MonteCarloDropout`, gives one draw a
    call. What reads it as an ordinary model, as ``evaluate``, a calibrator or a
    conformal predictor does, then sees the noise of that draw. Wrapped in this it sees
    the mean of ``samples`` draws, of the outputs as they are: let the model give
    probabilities, not logits. The weights are shared with ``model``; in training the
    wrapper makes one draw, as the model does.

    Args:
        model: A :class:`keras.Model` that is random in inference.
        samples: Positive integer :math:`S`. Each is a pass in one program, so that
            compiling takes the longer the more there are.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: As ``model`` takes them.
        training: ``True`` for one draw in training.

    Returns:
        As ``model``.

    Raises:
        ValueError: If ``model`` is no Keras model, ``samples`` no positive integer, or
            the model has no random layer.

    Example:
        >>> from dlcompanion.uncertainty import DenseFlipout
        >>> model = keras.Sequential([keras.Input((3,)), DenseFlipout(1, seed=0)])
        >>> mean = PredictiveMean(model, samples=50)
        >>> mean.predict(keras.ops.ones((4, 3)), verbose=0).shape
        (4, 1)
    """

    def __init__(self, model, samples=16, **kwargs):
        super().__init__(model, **kwargs)
        self.samples = check_count("samples", samples)
        self.build_if_known()

    def check_model(self):
        if not seed_states(self.model):
            raise ValueError(
                "Every draw would be the same: the model needs a Bayesian layer, or to "
                f"be wrapped in MonteCarloDropout. Received: model={self.model.name}"
            )

    def call(self, inputs, training=None):
        if training:
            return self.model(inputs, training=True)
        draws = [self.model(inputs, training=False) for _ in range(self.samples)]
        return keras.tree.map_structure(_mean, *draws)

    def get_config(self):
        return {**super().get_config(), "samples": self.samples}


def _mean(*draws):
    """The mean of draws, with the mask of the first."""
    mean = ops.mean(ops.stack(draws), axis=0)
    return backend.set_mask(mean, backend.mask_of(draws[0]))
