"""Normalizing flows: a density by change of variables (NICE and RealNVP)."""

import types

import keras
import numpy as np
from keras import ops

from dlcompanion import backend, probability
from dlcompanion.generative.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    DiagonalScaling,
    halves,
)
from dlcompanion.training import SavesSeeds


@keras.saving.register_keras_serializable(package="dlcompanion")
class NormalizingFlow(SavesSeeds, keras.Model):
    r"""Density model: invertible layers that carry data to standard normal noise.

    With :math:`z = f(x)`, :math:`f = f_K \circ \dots \circ f_1`,

    .. math:: \log p(x) = \log \mathcal N(f(x); 0, I)
              + \sum_k \log \left| \det \frac{\partial f_k}{\partial f_{k-1}} \right| ,

    and a sample is :math:`f^{-1}` of noise. ``fit(x)`` takes no targets and
    minimises :math:`-\log p`; ``predict(x)`` is the log-density. The step is small
    operations, so on TensorFlow ``compile(optimizer, jit_compile=True)`` is worth its
    seconds of compilation. The chain is a TFP bijector, made anew wherever it is
    used from the Keras layers; nothing of TFP is stored.

    Args:
        event_size: Integer of at least 2, the number of variables.
        transforms: List of Keras layers, applied to data in this order, whose
            ``call(x, inverse=False)`` returns ``(y, log_det)``.
        seed: Integer or ``None``, where ``sample`` starts. The state of the generator
            is saved with the model, which draws on where it stopped.
        **kwargs: Passed on to :class:`keras.Model`.

    Input shape:
        ``(batch, event_size)``.

    Output shape:
        ``(batch,)``, the log-density in nats.

    Raises:
        ValueError: If ``event_size < 2`` or there is no transform; if data of another
            rank, size or dtype, an empty batch, or (in ``fit``, ``evaluate`` and
            ``predict`` on arrays) a value that is not finite comes in; if ``fit``
            gets targets.
        ImportError: On PyTorch, which TFP does not run on.

    Example:
        >>> flow = NormalizingFlow(2, [DiagonalScaling()], seed=0)
        >>> tuple(flow.sample(3).shape)
        (3, 2)

    References:
        Rezende & Mohamed, *Variational Inference with Normalizing Flows*, 2015.
        https://arxiv.org/abs/1505.05770
    """

    def __init__(self, event_size, transforms, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.autocast = False  # the couplings choose their own precision
        probability.tfb()
        if event_size < 2 or not transforms:
            raise ValueError(
                "A flow needs event_size >= 2 and at least one transform. Received: "
                f"event_size={event_size!r}, transforms={transforms!r}"
            )
        self.event_size = event_size
        self.transforms = list(transforms)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._compiled = types.SimpleNamespace(  # out of sight of Keras's tracking
            log_prob=backend.compile(self.call, jit=False),  # XLA: once a batch size
            to_data=backend.compile(self._to_data, jit=False),
        )

    def build(self, input_shape):
        if len(input_shape) != 2 or input_shape[-1] != self.event_size:
            raise ValueError(
                f"{type(self).__name__} needs inputs of shape (batch, "
                f"{self.event_size}). Received: input_shape={tuple(input_shape)}"
            )
        for transform in self.transforms:
            if not transform.built:
                transform.build((None, self.event_size))

    def bijector(self):
        """The flow from noise to data, as a ``tfb.Bijector``. Use it and let it go."""
        self._ensure_built()
        steps = [probability.as_bijector(transform) for transform in self.transforms]
        return probability.tfb().Invert(probability.tfb().Chain(steps[::-1]))

    def distribution(self):
        """The density as a ``tfd.TransformedDistribution``. Use it and let it go."""
        tfd = probability.tfd()
        zeros = ops.zeros((self.event_size,))
        base = tfd.Independent(tfd.Normal(zeros, ops.ones_like(zeros)), 1)
        return tfd.TransformedDistribution(base, self.bijector())

    def call(self, inputs):
        return self.distribution().log_prob(inputs)

    def log_prob(self, x):
        """Log-density of each row, ``(batch,)``; compiled. NaN in, NaN out."""
        x = ops.convert_to_tensor(x)
        _check_points(x, self.event_size)
        self._ensure_built()
        x = ops.cast(x, keras.config.floatx())
        return self._compiled.log_prob(x)

    def sample(self, n, seed=None):
        """Draw points; compiled.

        Args:
            n: Positive integer.
            seed: Integer, for a draw that leaves the model's own generator alone.

        Returns:
            Tensor of shape ``(n, event_size)``.
        """
        if not isinstance(n, (int, np.integer)) or n < 1:
            raise ValueError(f"n must be a positive integer. Received: n={n!r}")
        self._ensure_built()
        seed = self.seed_generator if seed is None else seed
        noise = keras.random.normal((int(n), self.event_size), seed=seed)
        return self._compiled.to_data(noise)

    def _to_data(self, noise):
        return self.bijector().forward(noise)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        # Keras's own reduction knows sample weights, and replicas on TensorFlow
        negative = _Negative(name="negative_log_density")
        loss = negative(y_pred, y_pred, sample_weight)
        return loss + sum(self._aggregate_additional_loss(one) for one in self.losses)

    def fit(self, x=None, y=None, *args, sample_weight=None, **kwargs):
        if y is not None:
            raise ValueError(f"A flow is fitted without targets. Received: y={type(y)}")
        y = _check_data(x, self.event_size, sample_weight)
        return super().fit(x, y, *args, sample_weight=sample_weight, **kwargs)

    def evaluate(self, x=None, y=None, *args, sample_weight=None, **kwargs):
        y = _check_data(x, self.event_size, sample_weight)
        return super().evaluate(x, y, *args, sample_weight=sample_weight, **kwargs)

    def predict(self, x, *args, **kwargs):
        _check_data(x, self.event_size)
        return super().predict(x, *args, **kwargs)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[:1])

    def _ensure_built(self):
        if not self.built:
            self.build((None, self.event_size))
            self.built = True

    def get_config(self):
        transforms = [keras.saving.serialize_keras_object(t) for t in self.transforms]
        config = {"event_size": self.event_size, "transforms": transforms}
        return {**super().get_config(), **config, "seed": self.seed}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if "transforms" in config:
            objects = config["transforms"]
            config["transforms"] = [
                keras.saving.deserialize_keras_object(t) for t in objects
            ]
        return cls(**config)


class _CouplingFlow(NormalizingFlow):
    """Couplings that keep the first half and the second half in turn."""

    coupling = None  # class of the layer

    def __init__(
        self,
        event_size,
        couplings=4,
        hidden_units=(64, 64),
        activation="relu",
        seed=None,
        **kwargs,
    ):
        hidden_units = tuple(hidden_units)
        if event_size < 2 or couplings < 1 or any(n < 1 for n in hidden_units):
            raise ValueError(
                f"{type(self).__name__} needs event_size >= 2, couplings >= 1 and "
                f"positive hidden_units. Received: event_size={event_size}, "
                f"couplings={couplings}, hidden_units={hidden_units}"
            )
        policy = kwargs.get("dtype")
        transforms = []
        for number in range(couplings):
            _, moved = halves(event_size, swap := bool(number % 2))
            layers = [
                keras.layers.Dense(n, activation, dtype=policy) for n in hidden_units
            ]
            # small: every coupling starts close to the identity
            small = keras.initializers.VarianceScaling(1e-2)
            units = self.coupling.outputs_per_variable * moved
            layers.append(
                keras.layers.Dense(units, kernel_initializer=small, dtype=policy)
            )
            transforms.append(self.coupling(keras.Sequential(layers), swap))
        transforms += self.closing_transforms()
        super().__init__(event_size, transforms, seed, **kwargs)
        self.couplings = couplings
        self.hidden_units = hidden_units
        self.activation = activation

    def closing_transforms(self):
        return []

    def get_config(self):
        config = super().get_config()
        del config["transforms"]  # made anew by __init__
        return {
            **config,
            "couplings": self.couplings,
            "hidden_units": list(self.hidden_units),
            "activation": keras.activations.serialize(
                keras.activations.get(self.activation)
            ),
        }


@keras.saving.register_keras_serializable(package="dlcompanion")
class NICE(_CouplingFlow):
    r"""Flow of additive couplings and one learned scale for each variable.

    The couplings (:class:`AdditiveCoupling`) keep volume and the closing
    :class:`DiagonalScaling` sets it, so that
    :math:`\log p(x) = \log \mathcal N(f(x); 0, I) + \sum_i s_i`. The paper's noise is
    logistic or normal; here it is normal.

    Args:
        event_size: Integer of at least 2, the number of variables.
        couplings: Positive integer. With fewer than three, not every variable can
            depend on every other.
        hidden_units: Sequence of positive integers, the hidden layers of each
            conditioner.
        activation: Activation of the hidden layers.
        seed: As :class:`NormalizingFlow`.
        **kwargs: As :class:`NormalizingFlow`. The dtype is that of the conditioners.

    Input shape:
        ``(batch, event_size)``.

    Output shape:
        ``(batch,)``, the log-density in nats.

    Raises:
        ValueError: If a size is too small, or as :class:`NormalizingFlow`.
        ImportError: On PyTorch, which TFP does not run on.

    Example:
        >>> flow = NICE(event_size=2, couplings=4, seed=0)
        >>> flow.compile("adam")
        >>> x = np.random.default_rng(0).normal(size=(64, 2))
        >>> losses = flow.fit(x, verbose=0).history["loss"]
        >>> tuple(flow.sample(3).shape)
        (3, 2)

    References:
        Dinh et al., *NICE: Non-linear Independent Components Estimation*, 2014.
        https://arxiv.org/abs/1410.8516
    """

    coupling = AdditiveCoupling

    def closing_transforms(self):
        return [DiagonalScaling()]


@keras.saving.register_keras_serializable(package="dlcompanion")
class RealNVP(_CouplingFlow):
    r"""Flow of affine couplings, each volume-changing where it likes.

    :math:`\log p(x) = \log \mathcal N(f(x); 0, I) + \sum_k \sum_i s_{ki}`, with the
    log-scales of :class:`AffineCoupling`. Density and sampling cost one pass each,
    without a loop over the variables. The paper's checkerboard masks, multi-scale
    architecture and batch normalization are for images and not here: the variables
    are split in the middle, and the halves take turns.

    Args:
        event_size: As :class:`NICE`.
        couplings: As :class:`NICE`.
        hidden_units: As :class:`NICE`.
        activation: As :class:`NICE`.
        seed: As :class:`NormalizingFlow`.
        **kwargs: As :class:`NICE`.

    Input shape:
        ``(batch, event_size)``.

    Output shape:
        ``(batch,)``, the log-density in nats.

    Raises:
        ValueError: As :class:`NICE`.
        ImportError: On PyTorch, which TFP does not run on.

    Example:
        >>> flow = RealNVP(event_size=2, couplings=4, seed=0)
        >>> tuple(flow.log_prob(np.zeros((5, 2))).shape)
        (5,)

    References:
        Dinh et al., *Density estimation using Real NVP*, 2017.
        https://arxiv.org/abs/1605.08803
    """

    coupling = AffineCoupling


class _Negative(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return -y_pred


def _check_points(x, event_size):
    """What can be said of an array or tensor without looking at its values."""
    shape, dtype = tuple(x.shape), keras.backend.standardize_dtype(x.dtype)
    if len(shape) != 2 or shape[1] != event_size or shape[0] == 0:
        raise ValueError(
            f"A flow needs points of shape (batch, {event_size}) and at least one of "
            f"them. Received: shape={shape}"
        )
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(f"A flow needs floating point data. Received: dtype={dtype}")


def _check_data(x, event_size, sample_weight=None):
    """The same, and the values, where x is an array and no stream of batches.

    Returns:
        Targets that nobody reads if there are weights: Keras drops weights without.
    """
    if isinstance(x, np.ndarray) or keras.ops.is_tensor(x):
        _check_points(x, event_size)
        wrong = np.flatnonzero(~np.isfinite(ops.convert_to_numpy(x)).all(axis=1))
        if len(wrong):
            raise ValueError(
                "A flow needs finite data. "
                f"Received: {len(wrong)} rows with NaN or infinity, first x[{wrong[0]}]"
            )
    return None if sample_weight is None else np.zeros(len(sample_weight), "float32")
