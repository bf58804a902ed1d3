r"""Distribution heads: a network whose output is the parameters of a density.

A layer of Keras 3 returns tensors, never a distribution. So the head returns
parameters, and the same small *spec* turns them into a distribution wherever one is
wanted: in the loss, in the evaluation, in a plot.

=============================================  =======================================
``DistributionHead(spec)``                     the layer, a ``Dense`` in float32
``NegativeLogLikelihood(spec)``                the loss of it
``spec(model.predict(x))``                     the distribution itself
=============================================  =======================================

The specs are those of :mod:`dlcompanion.probability`.
"""

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count, check_number
from dlcompanion.probability import Spec, tfd, tfp_seed
from dlcompanion.probability.values import check_params
from dlcompanion.training import SavesSeeds
from dlcompanion.training.masks import masked_mean


@keras.saving.register_keras_serializable(package="dlcompanion")
class DistributionHead(keras.layers.Layer):
    r"""Last layer of a network whose output is a distribution.

    .. math:: p(y \mid x) = p\bigl(y;\, \eta = W h(x) + b\bigr)

    It returns :math:`\eta`, the unconstrained parameters that the spec needs, in
    float32 (float64 under that policy): a mean in bfloat16 has three digits. Everything
    that a ``Dense`` can do, the one inside can (``head.dense``), such as LoRA.

    Args:
        spec: A spec of :mod:`dlcompanion.probability`, such as
            ``MixtureNormalSpec(components=5)``.
        kernel_initializer: As :class:`keras.layers.Dense`. With ``"zeros"`` the
            distribution is at first the same for all inputs.
        bias_initializer: As :class:`keras.layers.Dense`.
        kernel_regularizer: As :class:`keras.layers.Dense`.
        bias_regularizer: As :class:`keras.layers.Dense`.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, ..., features)``.

    Output shape:
        ``(batch, ..., spec.params_size)``.

    Raises:
        ValueError: If ``spec`` is no spec.

    Example:
        >>> from dlcompanion.probability import NormalSpec
        >>> head = DistributionHead(NormalSpec(event_shape=2))
        >>> tuple(head(np.ones((5, 3), "float32")).shape)
        (5, 4)

    References:
        Bishop, *Mixture Density Networks*, 1994.
        https://publications.aston.ac.uk/id/eprint/373/
    """

    def __init__(
        self,
        spec,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.spec = _check_spec("spec", spec)
        self.dense = keras.layers.Dense(
            spec.params_size,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            dtype=backend.at_least_float32(self.variable_dtype),
            name="dense",
        )

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(inputs)

    def distribution(self, params):
        """The ``tfd`` distribution of what this layer returned. Use it and let go."""
        return self.spec(params)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.spec.params_size)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(
            self.compute_output_shape(inputs.shape), self.dense.compute_dtype
        )

    def get_config(self):
        dense = self.dense.get_config()
        kept = ("kernel_initializer", "bias_initializer")
        kept += ("kernel_regularizer", "bias_regularizer")
        config = {**super().get_config(), **{name: dense[name] for name in kept}}
        return {**config, "spec": keras.saving.serialize_keras_object(self.spec)}

    @classmethod
    def from_config(cls, config):
        return cls(**_with_spec(config))


@keras.saving.register_keras_serializable(package="dlcompanion")
class NegativeLogLikelihood(keras.losses.Loss):
    r"""Negative log-probability of the targets under the predicted distribution.

    .. math:: \ell(y, \eta) = -\log p(y; \eta) \quad \text{in nats}

    One number an example; entries of an event are summed, never averaged. Shapes must
    fit exactly. TensorFlow Probability alone would broadcast targets ``(batch,)``
    against parameters ``(batch, 1, ...)`` to ``(batch, batch)`` log-densities, and
    their mean would be a wrong loss, without an error.

    Args:
        spec: The spec that the parameters are meant for.
        reduction: As in every Keras loss.
        name: String.
        **kwargs: Passed on to :class:`keras.losses.Loss`.

    Call arguments:
        y_true: Targets, ``(batch, ..., *spec.event_shape)``.
        y_pred: Parameters, ``(batch, ..., spec.params_size)``, of any floating dtype;
            the density is computed in float32 at least.
        sample_weight: Optional, ``(batch, ...)``.

    Raises:
        ValueError: If ``spec`` is no spec, or shapes do not fit. Where the targets
            come as a NumPy array, also if one is outside the support (a label that is
            neither 0 nor 1, a negative count, NaN). Inside ``fit`` nothing can be
            raised: there such a target makes loss and gradient NaN.
        ImportError: On PyTorch, which TensorFlow Probability does not run on.

    Example:
        >>> from dlcompanion.probability import NormalSpec
        >>> loss = NegativeLogLikelihood(NormalSpec())
        >>> params = np.array([[0.0, 0.5413]], "float32")  # softplus(0.5413) = 1
        >>> if keras.backend.backend() in ("tensorflow", "jax"):
        ...     nats = float(loss(np.zeros(1), params))  # log(2 pi) / 2

    References:
        Bishop, *Mixture Density Networks*, 1994.
        https://publications.aston.ac.uk/id/eprint/373/
    """

    def __init__(
        self,
        spec,
        reduction="sum_over_batch_size",
        name="negative_log_likelihood",
        **kwargs,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.spec = _check_spec("spec", spec)

    def __call__(self, y_true, y_pred, sample_weight=None):
        self.spec.check_shapes(_with_shape(y_pred), _with_shape(y_true))
        if isinstance(y_true, (np.ndarray, list, tuple)):
            self.spec.check_values(np.asarray(y_true))
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true, y_pred):
        return -self.spec.log_prob(y_pred, y_true)

    def get_config(self):
        spec = keras.saving.serialize_keras_object(self.spec)
        return {**super().get_config(), "spec": spec}

    @classmethod
    def from_config(cls, config):
        return cls(**_with_spec(config))


def _check_spec(name, spec):
    if not isinstance(spec, Spec):
        raise ValueError(
            f"{name} must be a spec of dlcompanion.probability, such as NormalSpec(). "
            f"Received: {name}={spec!r}"
        )
    return spec


def _with_spec(config):
    spec = keras.saving.deserialize_keras_object(config["spec"])
    return {**config, "spec": spec}


def _with_shape(x):
    return x if hasattr(x, "shape") else np.asarray(x)


class _OfParameters(SavesSeeds, keras.layers.Layer):
    """A layer that reads parameters by a spec, and may draw."""

    def __init__(self, spec, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
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
        dtype = backend.at_least_float32(self.variable_dtype)
        distribution = self.spec(ops.cast(inputs, dtype))
        draw = distribution.sample(seed=tfp_seed(self.seed_generator))
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

    Call arguments:
        inputs: Tensor of parameters.
        mask: Boolean tensor ``(batch, time)``: masked steps have no divergence.

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
        self.prior_params = check_params("prior_params", prior_params, prior_spec)
        self.weight = check_number("weight", weight)
        self.samples = None if samples is None else check_count("samples", samples)

    def call(self, inputs, mask=None):
        q = self.spec(inputs)
        dtype = backend.at_least_float32(inputs.dtype)
        p = self.prior_spec(ops.convert_to_tensor(self.prior_params, dtype))
        if self.samples is None:
            divergence = self._closed_form(q, p)
        else:
            z = q.sample(self.samples, seed=tfp_seed(self.seed_generator))
            divergence = ops.mean(q.log_prob(z) - p.log_prob(z), axis=0)
        self.add_loss(self.weight * masked_mean(divergence, mask))
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

    def compute_output_spec(self, inputs, mask=None):
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "prior_spec": keras.saving.serialize_keras_object(self.prior_spec),
            "prior_params": self.prior_params,
            "weight": self.weight,
            "samples": self.samples,
        }
