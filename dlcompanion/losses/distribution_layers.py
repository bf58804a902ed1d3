r"""Layers between parameters and a distribution: a draw, and a penalty on divergence.

Both take the *parameters* that a spec of :mod:`dlcompanion.probability` reads. They are
for distributions inside a network, as in an autoencoder of one's own; the last layer
of a network needs neither
(:class:`~dlcompanion.losses.DistributionHead`).
"""

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count, check_number
from dlcompanion.probability import Spec, tfd, tfp_seed
from dlcompanion.training import SavesSeeds


class _OfParameters(SavesSeeds, keras.layers.Layer):
    """A layer that reads parameters by a spec, and may draw."""

    def __init__(self, spec, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.autocast = False  # parameters stay in the precision they come in
        self.spec = _check_spec("spec", spec)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        if input_shape[-1] != self.spec.params_size:
            raise ValueError(
                f"{self.spec} needs parameters (batch, ..., {self.spec.params_size}). "
                f"Received: input_shape={tuple(input_shape)}"
            )

    def get_config(self):
        spec = keras.saving.serialize_keras_object(self.spec)
        return {**super().get_config(), "spec": spec, "seed": self.seed}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in ("spec", "prior_spec"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


@keras.saving.register_keras_serializable(package="dlcompanion")
class DistributionSample(_OfParameters):
    r"""One draw from the distribution whose parameters come in.

    .. math:: z \sim p(z;\, \eta)

    A draw in inference, too, as in ``tfp.layers``. Gradients pass where TFP
    reparameterizes: normals, logistics, but no classes and no counts.

    Args:
        spec: Spec of the distribution.
        seed: Integer or ``None``. The state of the generator is saved with the layer,
            which draws on where it stopped.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, ..., spec.params_size)``.

    Output shape:
        ``(batch, ..., *spec.event_shape)``.

    Raises:
        ValueError: If ``spec`` is no spec or the parameters are of another size.
        ImportError: On PyTorch, which TensorFlow Probability does not run on.

    Example:
        >>> from dlcompanion.probability import NormalSpec
        >>> draw = DistributionSample(NormalSpec(2), seed=0)
        >>> draw.compute_output_shape((None, 4))
        (None, 2)

    References:
        Dillon et al., *TensorFlow Distributions*, 2017.
        https://arxiv.org/abs/1711.10604
    """

    def call(self, inputs):
        draw = self.spec(inputs).sample(seed=tfp_seed(self.seed_generator))
        return ops.cast(draw, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], *self.spec.event_shape)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(
            self.compute_output_shape(inputs.shape), self.compute_dtype
        )


@keras.saving.register_keras_serializable(package="dlcompanion")
class KLDivergencePenalty(_OfParameters):
    r"""Adds to the loss how far a distribution is from a fixed prior.

    .. math:: L \mathrel{+}= \frac{w}{n} \sum_i
        \operatorname{KL}\bigl( q(z;\, \eta_i) \,\Vert\, p(z) \bigr)

    The parameters pass through unchanged. The closed form is TFP's; where it has none,
    as for mixtures, ``samples`` draws estimate the divergence by
    :math:`\log q(z) - \log p(z)`.

    Args:
        spec: Spec of :math:`q`, whose parameters come in.
        prior_spec: Spec of :math:`p`, of the same event shape.
        prior_params: Sequence of ``prior_spec.params_size`` finite numbers.
        weight: Number :math:`w \ge 0`.
        samples: Positive integer, or ``None`` for the closed form.
        seed: Integer or ``None``, for the samples.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, ..., spec.params_size)``.

    Output shape:
        That of the input.

    Raises:
        ValueError: If a spec is none, event shapes differ, ``prior_params`` are not
            finite or of the wrong number, ``weight`` is negative, or there is no closed
            form and no ``samples``.
        ImportError: On PyTorch, which TensorFlow Probability does not run on.

    Example:
        >>> from dlcompanion.probability import NormalSpec
        >>> standard = [0.0, 0.5413]  # mean 0, softplus(0.5413) = 1
        >>> layer = KLDivergencePenalty(NormalSpec(), NormalSpec(), standard)
        >>> if keras.backend.backend() in ("tensorflow", "jax"):
        ...     same = layer(ops.array([[1.0, 0.5413]]))  # adds 0.5

    References:
        Dillon et al., *TensorFlow Distributions*, 2017.
        https://arxiv.org/abs/1711.10604
    """

    def __init__(
        self,
        spec,
        prior_spec,
        prior_params,
        weight=1.0,
        samples=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(spec, seed, **kwargs)
        self.prior_spec = _check_spec("prior_spec", prior_spec)
        if prior_spec.event_shape != spec.event_shape:
            raise ValueError(
                f"prior_spec must have the event shape {spec.event_shape} of spec. "
                f"Received: prior_spec={prior_spec}"
            )
        size = prior_spec.params_size
        params = np.ravel(np.asarray(prior_params, "float64"))
        if len(params) != size or not np.isfinite(params).all():
            raise ValueError(
                f"prior_params must be {size} finite numbers for {prior_spec}. "
                f"Received: prior_params={prior_params!r}"
            )
        self.prior_params = params.tolist()
        self.weight = check_number("weight", weight)
        self.samples = None if samples is None else check_count("samples", samples)

    def call(self, inputs):
        q = self.spec(inputs)
        p = self.prior_spec(ops.convert_to_tensor(self.prior_params, "float32"))
        if self.samples is None:
            divergence = self._closed_form(q, p)
        else:
            z = q.sample(self.samples, seed=tfp_seed(self.seed_generator))
            divergence = q.log_prob(z) - p.log_prob(z)
        self.add_loss(self.weight * ops.mean(divergence))
        return inputs

    def _closed_form(self, q, p):
        try:
            return tfd().kl_divergence(q, p)
        except NotImplementedError as error:
            raise ValueError(
                "This divergence has no closed form: give samples, such as 100. "
                f"Received: spec={self.spec}, prior_spec={self.prior_spec}"
            ) from error

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "prior_spec": keras.saving.serialize_keras_object(self.prior_spec),
            "prior_params": self.prior_params,
            "weight": self.weight,
            "samples": self.samples,
        }


def _check_spec(name, spec):
    if not isinstance(spec, Spec):
        raise ValueError(
            f"{name} must be a spec of dlcompanion.probability. "
            f"Received: {name}={spec!r}"
        )
    return spec
