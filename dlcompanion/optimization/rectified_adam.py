"""Rectified Adam: adaptive steps only once the second moment can be trusted."""

import itertools
import math
import types

import keras
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_number, check_share


@keras.saving.register_keras_serializable(package="dlcompanion")
class RectifiedAdam(keras.optimizers.Optimizer):
    r"""Adam whose first steps wait until the second moment is known.

    Adam divides by the root of a second moment that in the first steps is an average
    of a handful of squares. The length of that average,

    .. math::

       \rho_\infty = \frac{2}{1 - \beta_2} - 1, \qquad
       \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t},

    tells how much its inverse root varies. With the bias-corrected momentum
    :math:`\hat m_t` and second moment :math:`\hat v_t` the step is

    .. math::

       \theta_{t+1} = \theta_t - \eta
       \begin{cases}
       r_t\, \hat m_t / \sqrt{\hat v_t} & \text{if } \rho_t > \text{threshold} \\
       \hat m_t & \text{otherwise}
       \end{cases}
       \qquad
       r_t = \sqrt{\frac{(\rho_t - 4)(\rho_t - 2)\,\rho_\infty}
       {(\rho_\infty - 4)(\rho_\infty - 2)\,\rho_t}} .

    With ``beta_2=0.999`` the first five steps are those of SGD with momentum, and the
    sixth is Adam's times 0.026. The paper compares :math:`\rho_t` with 4 (algorithm 2,
    line 8), which gives one rectified step more; PyTorch and optax with 5, as here by
    default. Equal to ``torch.optim.RAdam``, where epsilon is added to the root of the
    second moment before its bias is corrected, as in Keras's Adam. optax adds it
    after. pytorch_optimizer does not move before :math:`\rho_t` is large enough.

    Args:
        learning_rate: Float or a schedule.
        beta_1: Float in [0, 1), the decay of the momentum.
        beta_2: Float in [0, 1), the decay of the second moment.
        epsilon: Positive float, added to the root of the second moment.
        threshold: Float of at least 4, what :math:`\rho_t` must exceed for an adaptive
            step.
        name: String, the name of the optimizer.
        **kwargs: Passed on to ``keras.optimizers.Optimizer``. ``weight_decay``
            multiplies the weights by ``1 - learning_rate * weight_decay``.

    Raises:
        ValueError: If a beta lies outside [0, 1), if ``epsilon`` is not positive, or if
            ``threshold`` is below 4.

    Example:
        >>> weight = keras.Variable([1.0])
        >>> optimizer = RectifiedAdam(0.1)
        >>> optimizer.apply([ops.array([0.5])], [weight])  # a step of SGD
        >>> round(float(weight[0]), 4)
        0.95

    References:
        Liu et al., *On the Variance of the Adaptive Learning Rate and Beyond*, 2020,
        algorithm 2. https://arxiv.org/abs/1908.03265
    """

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        threshold=5.0,
        name="rectified_adam",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.beta_1 = check_share("beta_1", beta_1, one=False)
        self.beta_2 = check_share("beta_2", beta_2, one=False)
        self.epsilon = check_number("epsilon", epsilon, open_ends=True)
        self.threshold = check_number("threshold", threshold, low=4.0)
        self._step = None

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )

    def update_step(self, gradient, variable, learning_rate):
        number = backend.variable_number(self, variable)
        m, v = self._momentums[number], self._velocities[number]
        dtype = backend.at_least_float32(variable.dtype)
        if dtype not in self._step.factors:  # the same for all variables
            self._step.factors[dtype] = self.factors(learning_rate, dtype)
        alpha, a, b = (ops.cast(x, variable.dtype) for x in self._step.factors[dtype])
        gradient = ops.cast(backend.dense_gradient(gradient), variable.dtype)
        backend.move_towards(self, m, gradient, 1 - self.beta_1)
        backend.move_towards(self, v, ops.square(gradient), 1 - self.beta_2)
        backend.subtract(self, variable, alpha * m / (a * ops.sqrt(v) + b))

    def factors(self, learning_rate, dtype):
        r"""Three scalars of this step, in :math:`\alpha\, m / (a \sqrt{v} + b)`.

        The two cases differ in :math:`a` and :math:`b` alone.
        """
        step = ops.cast(self.iterations + 1, dtype)
        rectified, r = rectification(step, self.beta_2, self.threshold)
        correction = ops.sqrt(1 - ops.power(self.beta_2, step))
        a = ops.where(rectified, 1 / (r * correction), 0.0)
        b = ops.where(rectified, a * self.epsilon, 1.0)
        alpha = ops.cast(learning_rate, dtype) / (1 - ops.power(self.beta_1, step))
        return alpha, a, b

    def apply(self, grads, trainable_variables=None):
        self._step = types.SimpleNamespace(factors={})
        try:
            super().apply(grads, trainable_variables)
        finally:
            self._step = None  # nothing of a compiled step is kept

    def get_config(self):
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "threshold": self.threshold,
        }


def rectification(step, beta_2, threshold=5.0):
    r"""Whether a step is adaptive, and :math:`r_t` by which it is multiplied then.

    :math:`\rho_t` is a small difference of large numbers: with ``beta_2=0.999`` that of
    1999 and 1994 at the fifth step. Written by its formula in float32 it is wrong in
    the second digit. With :math:`x = -t \log \beta_2` it is

    .. math::

       \rho_t = \rho_\infty + \frac{2}{\log \beta_2}
       - \frac{2}{\log \beta_2} \left(1 - \frac{x}{e^x - 1}\right),

    whose first difference is a constant.

    Args:
        step: Scalar tensor of floats, the number of the step, from 1 on.
        beta_2: Float, the decay of the second moment.
        threshold: Float, what :math:`\rho_t` must exceed.

    Returns:
        Boolean scalar tensor, and :math:`r_t` as a scalar tensor, that of the first
        adaptive step before it.
    """
    first = first_rectified_step(beta_2, threshold)
    if first is None:
        return step < 0, ops.ones_like(step)
    limit, scale = 2 / (1 - beta_2) - 1, -2 / math.log(beta_2)
    x = 2 * ops.maximum(step, float(first)) / scale
    small = x * (1 / 2 - x * (1 / 12 - x * x * (1 / 720 - x * x / 30240)))
    # exp(-x) does not overflow late in training
    large = 1 - x * ops.exp(-x) / (1 - ops.exp(-x))
    rho = (limit - scale) + scale * ops.where(x < 0.5, small, large)
    r = ops.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
    return step >= first, r


def first_rectified_step(beta_2, threshold=5.0):
    r"""The first step at which :math:`\rho_t` exceeds the threshold, or None.

    Args:
        beta_2: Float, the decay of the second moment.
        threshold: Float, what :math:`\rho_t` must exceed.

    Returns:
        Integer, or None if :math:`\rho_\infty` does not exceed it.

    Example:
        >>> first_rectified_step(0.999), first_rectified_step(0.999, 4.0)
        (6, 5)
    """
    limit = 2 / (1 - beta_2) - 1
    if limit <= threshold:
        return None
    decay = -math.log(beta_2)
    return next(
        t
        for t in itertools.count(1)
        if limit - 2 * t / math.expm1(decay * t) > threshold
    )
