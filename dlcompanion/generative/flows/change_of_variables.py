"""NormalizingFlow: the density of what invertible layers make of noise."""

import math
import types

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count, check_finite
from dlcompanion.probability import as_bijector, tfb, tfd
from dlcompanion.training import SavesSeeds, UnsupervisedModel

#: The rule of data, as an error states it.
FINITE = "A flow needs finite data"


@keras.saving.register_keras_serializable(package="dlcompanion")
class NormalizingFlow(SavesSeeds, UnsupervisedModel):
    r"""Density model: invertible layers that carry data to standard normal noise.

    With :math:`z = f(x)`, :math:`f = f_K \circ \dots \circ f_1`,

    .. math:: \log p(x) = \log \mathcal N(f(x); 0, I)
              + \sum_k \log \left| \det \frac{\partial f_k}{\partial f_{k-1}} \right| ,

    and a sample is :math:`f^{-1}` of noise. ``fit(x)`` takes no targets and
    minimizes :math:`-\log p`; ``predict(x)`` is the log-density. The step is small
    operations, so on TensorFlow ``compile(optimizer, jit_compile=True)`` is worth its
    seconds of compilation.

    With a ``context_size`` the density is conditional, :math:`p(x \mid c)`: every layer
    is told :math:`c`, and ``fit``, ``evaluate``, ``predict`` and a call take the pair
    ``(x, context)`` in place of ``x``.

    Args:
        event_shape: Integer or tuple of integers, the shape of one example.
        transforms: List of Keras layers, applied to data in this order, whose
            ``call(x, inverse=False)`` returns ``(y, log_det)`` and which have a
            ``compute_output_shape``; in a conditional flow ``call`` takes ``context``
            too, and ``build`` its shape. A layer may change the shape of the event,
            not the number of its entries. One that is easy in the other direction
            only goes in as ``Inverted``.
        context_size: Integer, the number of variables the density depends on, 0 for
            none.
        seed: Integer or ``None``, where ``sample`` starts. The state of the generator
            is saved with the model, which draws on where it stopped.
        **kwargs: Passed on to :class:`keras.Model`.

    Input shape:
        ``(batch, *event_shape)``, or a pair of that and ``(batch, context_size)``.

    Output shape:
        ``(batch,)``, the log-density in nats.

    Raises:
        ValueError: If a size is not positive or there is no transform; if data of
            another shape or dtype, an empty batch, or (in ``fit``, ``evaluate`` and
            ``predict`` on arrays) a value that is not finite comes in; if there is a
            context where none was announced, or none where one was; if ``fit`` gets
            targets.

    Example:
        >>> from dlcompanion.generative.flows.coupling import DiagonalScaling
        >>> flow = NormalizingFlow(2, [DiagonalScaling()], seed=0)
        >>> tuple(flow.sample(3).shape)
        (3, 2)

    References:
        Rezende & Mohamed, *Variational Inference with Normalizing Flows*, 2015.
        https://arxiv.org/abs/1505.05770; Papamakarios et al., *Normalizing Flows for
        Probabilistic Modeling and Inference*, 2021. https://arxiv.org/abs/1912.02762
    """

    no_targets = (
        "A flow is fitted without targets; with a context, data are (x, context) and "
        "validation_data is ((x, context),)."
    )

    def __init__(self, event_shape, transforms, context_size=0, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.autocast = False  # the transforms choose their own precision
        shape = event_shape if isinstance(event_shape, tuple | list) else (event_shape,)
        self.event_shape = tuple(check_count("event_shape", n) for n in shape)
        if not self.event_shape or not transforms:
            raise ValueError(
                "A flow needs an event and at least one transform. Received: "
                f"event_shape={event_shape!r}, transforms={transforms!r}"
            )
        self.transforms = list(transforms)
        self.context_size = check_count("context_size", context_size, least=0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._compiled = types.SimpleNamespace(  # out of sight of Keras's tracking
            log_prob=backend.compile(self.call, jit=False),  # XLA: once a batch size
            to_data=backend.compile(self.to_data, jit=False),
        )

    def build(self, input_shape):
        conditional = bool(input_shape) and isinstance(input_shape[0], tuple | list)
        shapes = [tuple(s) for s in (input_shape if conditional else [input_shape])]
        wanted = [(None, *self.event_shape), (None, self.context_size)]
        wanted = wanted if self.context_size else wanted[:1]
        if [s[1:] for s in shapes] != [s[1:] for s in wanted]:
            raise ValueError(
                f"{type(self).__name__} needs inputs of shape "
                f"{' and '.join(map(str, wanted))}. Received: input_shape={input_shape}"
            )
        shape, *context = wanted
        for transform in self.transforms:
            if not transform.built:
                transform.build(shape, *context)
            shape = tuple(transform.compute_output_shape(shape)[0])
        self.noise_shape = shape[1:]

    # -- the equation -------------------------------------------------------------

    def to_noise(self, x, context=None, training=None):
        """Carry data to noise: ``z`` and the log-determinant, ``(batch,)``."""
        self._ensure_built()
        given = {} if context is None else {"context": context}
        # by hand: on JAX Keras tells only those that it calls itself
        given |= {} if training is None else {"training": training}
        log_det = 0.0
        for transform in self.transforms:
            x, more = transform(x, **given)
            log_det = log_det + more
        return x, log_det

    def to_data(self, z, context=None):
        """Carry noise to data: ``x`` and the log-determinant, ``(batch,)``."""
        self._ensure_built()
        given = {} if context is None else {"context": context}
        log_det = 0.0
        for transform in self.transforms[::-1]:
            z, more = transform(z, inverse=True, **given)
            log_det = log_det + more
        return z, log_det

    def call(self, inputs, training=None):
        pair = inputs if isinstance(inputs, tuple | list) else (inputs,)
        z, log_det = self.to_noise(*pair, training=training)
        return log_standard_normal(z) + log_det

    # -- what it is for -----------------------------------------------------------

    def log_prob(self, x, context=None):
        """Log-density of each example; compiled. NaN in, NaN out.

        Args:
            x: Array of shape ``(batch, *event_shape)``.
            context: Array of shape ``(batch, context_size)``, or ``(context_size,)``
                for one that all share; only for a conditional flow.

        Returns:
            Tensor of shape ``(batch,)``, in nats.
        """
        x = ops.convert_to_tensor(x)
        check_points(x, self.event_shape)
        self._ensure_built()
        x = ops.cast(x, keras.config.floatx())
        context = self._context(context, x.shape[0])
        return self._compiled.log_prob(x if context is None else (x, context))

    def sample(self, n, context=None, seed=None):
        """Draw points; compiled.

        Args:
            n: Positive integer.
            context: As in ``log_prob``, for ``n`` examples.
            seed: Integer, for a draw that leaves the model's own generator alone.

        Returns:
            Tensor of shape ``(n, *event_shape)``.
        """
        return self._draw(n, context, seed)[0]

    def sample_and_log_prob(self, n, context=None, seed=None):
        """Draw points and say how probable they are, in one pass; compiled.

        Args:
            n: As in ``sample``.
            context: As in ``sample``.
            seed: As in ``sample``.

        Returns:
            Tensors of shape ``(n, *event_shape)`` and ``(n,)``.
        """
        x, log_det, noise = self._draw(n, context, seed)
        return x, log_standard_normal(noise) - log_det

    def _draw(self, n, context, seed):
        n = check_count("n", n)
        self._ensure_built()
        context = self._context(context, n)
        seed = self.seed_generator if seed is None else seed
        noise = keras.random.normal((n, *self.noise_shape), seed=seed)
        given = (noise,) if context is None else (noise, context)
        return *self._compiled.to_data(*given), noise

    def bijector(self, context=None):
        """The flow from noise to data, as a ``tfb.Bijector``. Use it and let it go.

        Nothing of TFP is stored on the model. Raises an ImportError on PyTorch.

        Args:
            context: Array of shape ``(batch, context_size)``, one row for each point
                that the bijector will be asked about; only for a conditional flow.

        Returns:
            A bijector whose ``forward`` is ``to_data``.
        """
        self._ensure_built()
        context = self._context(context, 1 if context is None else len(context))
        steps = [
            as_bijector(transform, len(self.event_shape), context)
            for transform in self.transforms
        ]
        return tfb().Invert(tfb().Chain(steps[::-1]))

    def distribution(self, context=None):
        """The density as a ``tfd.TransformedDistribution``. Use it and let it go.

        Args:
            context: As in ``bijector``.

        Returns:
            A distribution whose ``log_prob`` is that of the flow.
        """
        self._ensure_built()
        normal = tfd().Normal(ops.zeros(self.noise_shape), 1.0)
        base = tfd().Independent(normal, len(self.noise_shape))
        return tfd().TransformedDistribution(base, self.bijector(context))

    # -- training -----------------------------------------------------------------

    def example_losses(self, x, outputs):
        return -outputs

    def compute_output_shape(self, input_shape):
        shape = input_shape[0] if self.context_size else input_shape
        return tuple(shape[:1])

    def compute_output_spec(self, inputs, training=None):
        """Densities have the dtype of the transforms, whatever the policy says."""
        first = keras.tree.flatten(inputs)[0]
        return keras.KerasTensor(tuple(first.shape[:1]), keras.config.floatx())

    # -- what comes in ------------------------------------------------------------

    def check_data(self, x):
        pair = tuple(x) if isinstance(x, tuple | list) else (x,)
        if all(is_array(a) for a in pair):
            x, *context = pair
            if len(context) != bool(self.context_size):
                wanted = "the pair (x, context)" if self.context_size else "x alone"
                raise ValueError(
                    f"{type(self).__name__} with context_size={self.context_size} "
                    f"takes {wanted}. Received: {len(pair)} arrays"
                )
            check_points(x, self.event_shape)
            check_finite("x", x, FINITE)
            for c in context:
                self._context(c, len(x), shared=False)
                check_finite("context", c, FINITE)

    def _context(self, context, rows, shared=True):
        """The context of so many examples as a tensor, or ``None``."""
        if context is None and not self.context_size:
            return None
        shape = None if context is None else tuple(np.shape(context))
        allowed = [(rows, self.context_size)] + [(self.context_size,)] * shared
        if not self.context_size or shape not in allowed:
            raise ValueError(
                f"A flow with context_size={self.context_size} needs "
                + (f"a context of shape {allowed[0]}" if self.context_size else "none")
                + f". Received: context of shape {shape}"
            )
        context = ops.cast(ops.convert_to_tensor(context), keras.config.floatx())
        return ops.broadcast_to(context, allowed[0])

    def _ensure_built(self):
        if not self.built:
            shape = (None, *self.event_shape)
            self.build(
                [shape, (None, self.context_size)] if self.context_size else shape
            )
            self.built = True

    def get_config(self):
        transforms = [keras.saving.serialize_keras_object(t) for t in self.transforms]
        return {
            **super().get_config(),
            "event_shape": list(self.event_shape),
            "transforms": transforms,
            "context_size": self.context_size,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if "transforms" in config:
            objects = config["transforms"]
            config["transforms"] = [
                keras.saving.deserialize_keras_object(t) for t in objects
            ]
        return cls(**config)


def log_standard_normal(z):
    """Log-density of standard normal noise of any shape, ``(batch,)``."""
    axes = tuple(range(1, len(z.shape)))
    size = math.prod(z.shape[1:])
    return -0.5 * (ops.sum(ops.square(z), axis=axes) + size * math.log(2 * math.pi))


def is_array(x):
    """Whether it is an array or tensor, and no stream of batches."""
    return isinstance(x, np.ndarray) or ops.is_tensor(x)


def check_points(x, event_shape):
    """What can be said of an array or tensor without looking at its values."""
    shape, dtype = tuple(x.shape), keras.backend.standardize_dtype(x.dtype)
    if shape[1:] != event_shape or len(shape) < 2 or shape[0] == 0:
        wanted = ", ".join(map(str, event_shape))
        raise ValueError(
            f"A flow needs points of shape (batch, {wanted}) and at least one of "
            f"them. Received: shape={shape}"
        )
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(f"A flow needs floating point data. Received: dtype={dtype}")
