"""Planar and radial flows: noise pushed from planes and drawn to points."""

import keras
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count
from dlcompanion.generative.flows.change_of_variables import NormalizingFlow
from dlcompanion.generative.flows.inverted_transform import Inverted

HALVINGS = 30  # of an interval: what is left is below the precision of float32


class _OneUnit(keras.layers.Layer):
    """What the two layers share: vectors in, float32 at least, no context."""

    def __init__(self, **kwargs):
        kwargs.setdefault("dtype", keras.config.floatx())  # densities need float32
        super().__init__(**kwargs)

    def build(self, inputs_shape, context_shape=None):
        if len(inputs_shape) != 2 or inputs_shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__} needs inputs of shape (batch, event_size). "
                f"Received: inputs_shape={tuple(inputs_shape)}"
            )

    def compute_output_shape(self, inputs_shape):
        return tuple(inputs_shape), tuple(inputs_shape[:1])


@keras.saving.register_keras_serializable(package="dlcompanion")
class Planar(_OneUnit):
    r"""Push points along one direction by how far they are from a plane.

    .. math:: y = x + \hat u \tanh(w^\top x + b), \qquad
              \log \det \frac{\partial y}{\partial x}
              = \log\bigl(1 + (1 - \tanh^2(w^\top x + b))\, w^\top \hat u\bigr) .

    One hidden unit, so that the determinant costs no more than the map. It is
    invertible if :math:`w^\top \hat u > -1`, which holds for every learned :math:`u` as

    .. math:: \hat u = u + \bigl(m(w^\top u) - w^\top u\bigr)
              \frac{w}{\lVert w \rVert^2}, \qquad m(a) = \log(1 + e^a) - 1 .

    There is no formula for the inverse, but along :math:`w` the map is an increasing
    function of one number, whose zero is found by halving an interval; a step of
    Newton's method after that carries the gradient.

    Args:
        **kwargs: Passed on to :class:`keras.layers.Layer`. The dtype is that of
            ``keras.config.floatx()`` unless given, whatever the global policy says.

    Call arguments:
        inputs: Tensor of shape ``(batch, event_size)``.
        inverse: Boolean, whether to solve for :math:`x`.
        context: Ignored.

    Output shape:
        ``(batch, event_size)`` and the log-determinant, ``(batch,)``.

    Raises:
        ValueError: If the input is not of rank 2.

    Example:
        >>> layer = Planar()
        >>> y, log_det = layer(keras.ops.ones((5, 2)))
        >>> x, _ = layer(y, inverse=True)
        >>> bool(keras.ops.all(keras.ops.isclose(x, 1.0, atol=1e-5)))
        True

    References:
        Rezende & Mohamed, *Variational Inference with Normalizing Flows*, 2015,
        section 4.1 and appendix A. https://arxiv.org/abs/1505.05770
    """

    def build(self, inputs_shape, context_shape=None):
        super().build(inputs_shape, context_shape)
        shape = (inputs_shape[-1],)
        anywhere = keras.initializers.RandomNormal(stddev=1.0)
        self.w = self.add_weight(shape, anywhere, name="w", autocast=False)
        self.u = self.add_weight(shape, "random_normal", name="u", autocast=False)
        self.b = self.add_weight((), "zeros", name="b", autocast=False)

    def call(self, inputs, inverse=False, context=None):
        w, b, u = (backend.widen(v) for v in (self.w, self.b, self.u))
        y = ops.cast(inputs, w.dtype)
        size = ops.stop_gradient(ops.max(ops.abs(w)))
        flat = size == 0  # no plane: all points move by the same
        size = ops.where(flat, ops.ones_like(size), size)
        direction = w / size  # whose square stays in the range of float32
        square = ops.where(flat, ops.ones_like(size), ops.sum(direction * direction))
        inner = ops.sum(w * u)
        # above 0; w^T u_hat is s - 1
        s = ops.where(flat, ops.ones_like(size), ops.softplus(inner))
        u_hat = u + (s - 1.0 - inner) * (direction / square) / size
        along = ops.sum(y * w, axis=-1)  # w^T x, or w^T y on the way back
        if inverse:
            along = _solve(along, s, b)
        push = ops.tanh(along + b)
        log_det = ops.log(_rise(push, s))
        step = push[:, None] * u_hat
        moved, log_det = (y - step, -log_det) if inverse else (y + step, log_det)
        return ops.cast(moved, inputs.dtype), ops.cast(log_det, inputs.dtype)


def _rise(push, s):
    """1 + (1 - push^2) (s - 1), by positive terms: no rounding makes it 0."""
    square = push * push
    return square + (1.0 - square) * s


def _solve(target, s, b):
    """The a with a + (s - 1) tanh(a + b) = target, an increasing function of a."""

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        above = middle + (s - 1.0) * ops.tanh(middle + b) > target
        return ops.where(above, low, middle), ops.where(above, middle, high)

    reach = ops.abs(s - 1.0)
    low, high = backend.repeat(HALVINGS, halve, (target - reach, target + reach))
    a = ops.stop_gradient(0.5 * (low + high))
    push = ops.tanh(a + b)
    rise = ops.stop_gradient(_rise(push, s))
    return a - (a + (s - 1.0) * push - target) / rise


@keras.saving.register_keras_serializable(package="dlcompanion")
class Radial(_OneUnit):
    r"""Draw points to a center, or push them away from it.

    With :math:`r = \lVert x - x_0 \rVert` and :math:`h = 1 / (\alpha + r)`,

    .. math:: y = x + \beta h\, (x - x_0), \qquad
              \det \frac{\partial y}{\partial x} = (1 + \beta h)^{d - 1}
              \bigl(1 + \beta h - \beta r h^2\bigr) .

    Learned are :math:`x_0`, :math:`\alpha = \operatorname{softplus}(a) > 0` and
    :math:`\beta = \operatorname{softplus}(c) - \alpha > -\alpha`, so that the map is
    invertible: its inverse is the root of a quadratic equation for :math:`r`.

    Args:
        **kwargs: As ``Planar``.

    Call arguments:
        inputs: Tensor of shape ``(batch, event_size)``.
        inverse: Boolean, whether to solve for :math:`x`.
        context: Ignored.

    Output shape:
        ``(batch, event_size)`` and the log-determinant, ``(batch,)``.

    Raises:
        ValueError: If the input is not of rank 2.

    Example:
        >>> layer = Radial()
        >>> y, log_det = layer(keras.ops.ones((5, 2)))
        >>> x, _ = layer(y, inverse=True)
        >>> bool(keras.ops.all(keras.ops.isclose(x, 1.0, atol=1e-5)))
        True

    References:
        Rezende & Mohamed, *Variational Inference with Normalizing Flows*, 2015,
        section 4.1 and appendix A. https://arxiv.org/abs/1505.05770
    """

    def build(self, inputs_shape, context_shape=None):
        super().build(inputs_shape, context_shape)
        shape = (inputs_shape[-1],)
        anywhere = keras.initializers.RandomNormal(stddev=1.0)
        self.centre = self.add_weight(shape, anywhere, name="centre", autocast=False)
        self.a = self.add_weight((), "zeros", name="a", autocast=False)
        self.c = self.add_weight((), "random_normal", name="c", autocast=False)

    def call(self, inputs, inverse=False, context=None):
        centre, a, c = (backend.widen(v) for v in (self.centre, self.a, self.c))
        alpha, s = ops.softplus(a), ops.softplus(c)  # beta is s - alpha
        away = ops.cast(inputs, centre.dtype) - centre
        square = ops.sum(away * away, axis=-1)
        r = ops.sqrt(ops.maximum(square, 1e-12))  # a gradient at the centre too
        if inverse:  # r + beta r / (alpha + r) is known; r is the positive root
            p = 0.5 * (s - r)
            root = ops.sqrt(p * p + alpha * r)
            # the form that subtracts no equals from each other
            r = ops.where(p > 0, alpha * r / (ops.abs(p) + root), ops.abs(p) + root)
        # 1 + beta h and 1 + beta h - beta r h^2, by positive terms
        stretch = (r + s) / (r + alpha)
        along = (r * r + 2.0 * alpha * r + alpha * s) / ops.square(r + alpha)
        log_det = (away.shape[-1] - 1) * ops.log(stretch) + ops.log(along)
        stretch = stretch[:, None]
        moved, log_det = (
            (away / stretch, -log_det) if inverse else (away * stretch, log_det)
        )
        moved = centre + moved
        return ops.cast(moved, inputs.dtype), ops.cast(log_det, inputs.dtype)


class _OneUnitFlow(NormalizingFlow):
    """A chain of such layers from noise to data."""

    layer = None

    def __init__(self, event_size, length=8, seed=None, **kwargs):
        event_size = check_count("event_size", event_size)
        length = check_count("length", length)
        transforms = [Inverted(self._transform()) for _ in range(length)]
        super().__init__(event_size, transforms, 0, seed, **kwargs)
        self.event_size = event_size
        self.length = length

    def get_config(self):
        config = super().get_config()
        for name in ("transforms", "event_shape", "context_size"):
            del config[name]  # made anew by __init__
        return {**config, "event_size": self.event_size, "length": self.length}


@keras.saving.register_keras_serializable(package="dlcompanion")
class PlanarFlow(_OneUnitFlow):
    r"""Flow of ``Planar`` layers, from noise to data.

    :math:`\log q(x) = \log \mathcal N(z; 0, I) - \sum_k \log \det_k` is cheap for what
    the flow draws itself (``sample_and_log_prob``), and so it is made for fitting an
    energy (:class:`FreeEnergy`), not data. The density of given data needs the inverse,
    which each layer finds by halving intervals; ``fit`` works, a coupling is faster.

    Args:
        event_size: Positive integer, the number of variables.
        length: Positive integer, the number of layers.
        seed: As :class:`NormalizingFlow`.
        **kwargs: As :class:`NormalizingFlow`.

    Input shape:
        ``(batch, event_size)``.

    Output shape:
        ``(batch,)``, the log-density in nats.

    Raises:
        ValueError: If a size is not positive, or as :class:`NormalizingFlow`.

    Example:
        >>> flow = PlanarFlow(event_size=2, length=4, seed=0)
        >>> x, log_prob = flow.sample_and_log_prob(3)
        >>> tuple(x.shape), tuple(log_prob.shape)
        ((3, 2), (3,))

    References:
        Rezende & Mohamed, *Variational Inference with Normalizing Flows*, 2015.
        https://arxiv.org/abs/1505.05770
    """

    _transform = Planar


@keras.saving.register_keras_serializable(package="dlcompanion")
class RadialFlow(_OneUnitFlow):
    r"""Flow of ``Radial`` layers, from noise to data.

    As :class:`PlanarFlow`, with centers in place of planes; here the inverse is a
    formula.

    Args:
        event_size: As :class:`PlanarFlow`.
        length: As :class:`PlanarFlow`.
        seed: As :class:`NormalizingFlow`.
        **kwargs: As :class:`NormalizingFlow`.

    Input shape:
        ``(batch, event_size)``.

    Output shape:
        ``(batch,)``, the log-density in nats.

    Raises:
        ValueError: As :class:`PlanarFlow`.

    Example:
        >>> flow = RadialFlow(event_size=2, length=4, seed=0)
        >>> tuple(flow.sample(3).shape)
        (3, 2)

    References:
        Rezende & Mohamed, *Variational Inference with Normalizing Flows*, 2015.
        https://arxiv.org/abs/1505.05770
    """

    _transform = Radial
