"""FreeEnergy: a flow learns to draw from a density known up to a constant."""

import keras
from keras import ops

from dlcompanion.checks import check_finite
from dlcompanion.generative.flows.change_of_variables import (
    FINITE,
    NormalizingFlow,
    check_points,
    is_array,
    log_standard_normal,
)
from dlcompanion.training import UnsupervisedModel


@keras.saving.register_keras_serializable(package="dlcompanion")
class FreeEnergy(UnsupervisedModel):
    r"""Model that fits a flow to an energy, without a single example.

    To draw from :math:`p(x) = e^{-U(x)} / Z`, minimize the reverse divergence of the
    flow's density :math:`q` over its own samples :math:`x = g(z)`,

    .. math:: F = \mathbb E_{z \sim \mathcal N(0, I)}
              \bigl[\log q(g(z)) + U(g(z))\bigr]
              = \operatorname{KL}(q \,\|\, p) - \log Z \;\ge\; -\log Z .

    What ``fit`` takes is noise, fresh rows of a standard normal; the loss is the mean
    of what ``predict`` gives for each row. The divergence is *mode seeking*: :math:`q`
    is punished for being where :math:`p` is not, and hardly for forgetting a valley.

    Args:
        flow: :class:`NormalizingFlow` without context; one that is cheap from noise
            to data. It is trained in place.
        energy: Keras layer, or function registered with Keras, from ``(batch,
            *event_shape)`` to :math:`U` of shape ``(batch,)``.
        **kwargs: Passed on to :class:`keras.Model`.

    Input shape:
        ``(batch, *event_shape)``, standard normal noise.

    Output shape:
        ``(batch,)``, :math:`\log q + U` of each draw, in nats.

    Raises:
        ValueError: If ``flow`` is no flow or has a context, or the energy of a batch
            is not of shape ``(batch,)``.

    Example:
        >>> import numpy as np
        >>> from dlcompanion.generative import PlanarFlow
        >>> def bowl(x):
        ...     return keras.ops.sum((x - 3.0) ** 2, axis=-1)
        >>> model = FreeEnergy(PlanarFlow(2, length=2, seed=0), bowl)
        >>> model.compile("adam")
        >>> noise = np.random.default_rng(0).normal(size=(64, 2))
        >>> losses = model.fit(noise, verbose=0).history["loss"]

    References:
        Rezende & Mohamed, *Variational Inference with Normalizing Flows*, 2015,
        section 6.1. https://arxiv.org/abs/1505.05770
    """

    no_targets = "FreeEnergy is fitted to noise alone."
    weighs_examples = False

    def __init__(self, flow, energy, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(flow, NormalizingFlow) or flow.context_size:
            raise ValueError(
                "FreeEnergy needs a NormalizingFlow without context. "
                f"Received: flow={flow!r}"
            )
        self.autocast = False
        self.flow = flow
        self.energy = energy

    def build(self, input_shape):
        self.flow._ensure_built()
        shape = (None, *self.flow.noise_shape)
        if tuple(input_shape)[1:] != shape[1:]:
            raise ValueError(
                f"FreeEnergy needs noise of shape {shape}. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        if isinstance(self.energy, keras.layers.Layer) and not self.energy.built:
            self.energy.build((None, *self.flow.event_shape))

    def call(self, inputs):
        x, log_det = self.flow.to_data(inputs)
        energy = self.energy(x)
        if len(energy.shape) != 1:
            raise ValueError(
                "The energy of a batch must have shape (batch,). "
                f"Received: shape={tuple(energy.shape)}"
            )
        noise = ops.cast(inputs, log_det.dtype)
        return log_standard_normal(noise) - log_det + ops.cast(energy, noise.dtype)

    def example_losses(self, x, outputs):
        return outputs

    def check_data(self, x):
        if is_array(x):
            self.flow._ensure_built()
            check_points(x, self.flow.noise_shape)
            check_finite("x", x, FINITE)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[:1])

    def compute_output_spec(self, inputs):
        return self.flow.compute_output_spec(inputs)

    def get_config(self):
        return {
            **super().get_config(),
            "flow": keras.saving.serialize_keras_object(self.flow),
            "energy": keras.saving.serialize_keras_object(self.energy),
        }

    @classmethod
    def from_config(cls, config):
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("flow", "energy")
        }
        return cls(**{**config, **parts})
