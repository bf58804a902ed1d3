r"""Gradients of expectations: the score-function estimator, and the pathwise one.

Both estimate :math:`\nabla_\theta \, \mathbb E_{x \sim p_\theta}[f(x)]`, where the
parameters sit in the distribution and not in the cost. They take functions, not
distributions: whatever has a log-probability, or can be sampled by pushing noise
through a differentiable map.

=====================================  =============================================
:func:`score_function_gradient`        needs :math:`\log p_\theta` only: discrete
                                       :math:`x`, black-box cost
:func:`score_function_loss`            the same as a loss, for ``fit``
:func:`pathwise_gradient`              needs a differentiable sampler and cost
=====================================  =============================================
"""

import keras
import numpy as np
from keras import ops

from dlcompanion import autodiff


def score_function_loss(log_probs, costs, baseline="none"):
    r"""Mean cost, whose gradient is the score-function (REINFORCE) estimate.

    .. math:: \nabla_\theta \, \mathbb E_{p_\theta}[f(x)] \approx \frac1n \sum_{i=1}^n
              \bigl(f(x_i) - b_i\bigr) \nabla_\theta \log p_\theta(x_i)
              + \frac1n \sum_{i=1}^n \nabla_\theta f(x_i),
              \qquad x_i \sim p_\theta .

    The second sum is zero unless the cost itself depends on :math:`\theta`, as in an
    ELBO. (There it is :math:`\nabla \log q`, zero on average and noise each time: pass
    ``ops.stop_gradient(costs)`` to drop it.) A baseline :math:`b_i` that does not
    depend on :math:`x_i` leaves the mean of the estimate alone, because
    :math:`\mathbb E[\nabla \log p] = 0`, and can take most of its variance away. The
    *value* of the loss is the mean cost, whatever the baseline is, so that what
    ``fit`` prints has a meaning.

    Args:
        log_probs: Tensor ``(samples, ...)``, :math:`\log p_\theta(x_i)`, connected
            with the parameters. The other axes are a batch.
        costs: Tensor of the same shape, :math:`f(x_i)`. It may depend on parameters.
        baseline: ``"none"`` for :math:`b_i = 0`; a number or a tensor that broadcasts
            against one sample, ``(...)``, for a constant; or ``"leave_one_out"``, the
            mean cost of the *other* samples, :math:`b_i = \frac{1}{n-1} \sum_{j \ne i}
            f(x_j)`, which needs at least two.

    Returns:
        Tensor ``(...)``, the mean cost over the samples. NaN in, NaN out.

    Raises:
        ValueError: If the shapes differ or have no axis of samples, if the dtypes are
            not floating point, if the baseline is unknown, is a number that is not
            finite or has an axis too many, or if it is ``"leave_one_out"`` of one
            sample.

    Example:
        >>> log_probs = ops.log(np.array([0.5, 0.5], "float32"))
        >>> costs = np.array([1.0, 3.0], "float32")
        >>> float(score_function_loss(log_probs, costs, "leave_one_out"))
        2.0

    References:
        Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist
        Reinforcement Learning*, 1992. https://doi.org/10.1007/BF00992696

        Kool et al., *Buy 4 REINFORCE Samples, Get a Baseline for Free!*, 2019.
        https://openreview.net/forum?id=r1lgTGL5DE
    """
    log_probs, costs = ops.convert_to_tensor(log_probs), ops.convert_to_tensor(costs)
    _check_samples(log_probs, costs)
    fixed = ops.stop_gradient(costs)
    advantage = fixed - _baseline(fixed, baseline)
    # the bracket is zero and has the gradient of log_probs
    score = advantage * (log_probs - ops.stop_gradient(log_probs))
    return ops.mean(costs + score, axis=0)


def score_function_gradient(log_prob, cost, params, samples, baseline="none"):
    r"""Score-function (REINFORCE) estimate of :math:`\nabla_\theta \mathbb E[f(x)]`.

    Of a batch, ``(samples, ...)``, the gradient is that of the *sum* over the batch:
    give every element of the batch parameters of its own, and all their estimates
    come out at once.

    Args:
        log_prob: Function of ``(params, samples)`` that returns
            :math:`\log p_\theta(x_i)`, ``(samples, ...)``.
        cost: Function of ``samples`` that returns :math:`f(x_i)` of the same shape.
            It need not be differentiable.
        params: Float tensor, or structure of them, :math:`\theta`.
        samples: Tensor, or structure of them, drawn from :math:`p_\theta`, the samples
            on the first axis.
        baseline: As :func:`score_function_loss`.

    Returns:
        The gradient, of the structure of ``params``.

    Raises:
        ValueError: As :func:`score_function_loss`.

    Example:
        A coin that shows 1 with probability ``sigmoid(logit)``. The gradient of the
        mean number of ones is ``p (1 - p)``, a quarter here.

        >>> def log_prob(logit, x):
        ...     return x * ops.log_sigmoid(logit) + (1 - x) * ops.log_sigmoid(-logit)
        >>> x = np.array([0.0, 1.0, 1.0, 0.0], "float32")
        >>> g = score_function_gradient(log_prob, lambda x: x, np.zeros((), "f"), x)
        >>> float(g)
        0.25

    References:
        Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist
        Reinforcement Learning*, 1992. https://doi.org/10.1007/BF00992696
    """
    samples = keras.tree.map_structure(ops.convert_to_tensor, samples)
    costs = ops.stop_gradient(ops.convert_to_tensor(cost(samples)))

    def loss(params):
        each = score_function_loss(log_prob(params, samples), costs, baseline)
        return ops.sum(each)

    return autodiff.grad(loss)(params)


def pathwise_gradient(sampler, cost, params, noise):
    r"""Pathwise (reparameterization) estimate of the same gradient.

    If :math:`x = g_\theta(\varepsilon)` with noise that knows no parameters, the
    gradient moves inside the expectation and through the cost,

    .. math:: \nabla_\theta \, \mathbb E[f(x)] \approx \frac1n \sum_{i=1}^n
              \nabla_\theta \, f\bigl(g_\theta(\varepsilon_i)\bigr) .

    It sees the slope of the cost where the score function sees its value, hence the
    smaller variance; but it needs a differentiable cost of continuous samples.

    Args:
        sampler: Differentiable function of ``(params, noise)`` that returns samples.
        cost: Differentiable function of samples that returns ``(samples, ...)``.
        params: As :func:`score_function_gradient`.
        noise: Tensor, or structure of them, the samples on the first axis.

    Returns:
        The gradient, of the structure of ``params``; of a batch, that of the sum.

    Raises:
        ValueError: If the costs have no axis of samples or no floating-point dtype.

    Example:
        The mean of :math:`x^2` of a normal is :math:`\mu^2 + 1`.

        >>> noise = np.array([-1.0, 1.0], "float32")
        >>> float(pathwise_gradient(lambda m, e: m + e, ops.square, 3.0, noise))
        6.0

    References:
        Kingma & Welling, *Auto-Encoding Variational Bayes*, 2014, section 2.4.
        https://arxiv.org/abs/1312.6114
    """
    noise = keras.tree.map_structure(ops.convert_to_tensor, noise)

    def loss(params):
        costs = ops.convert_to_tensor(cost(sampler(params, noise)))
        _check_samples(costs, costs)
        return ops.sum(ops.mean(costs, axis=0))

    return autodiff.grad(loss)(params)


def _baseline(costs, baseline):
    count = costs.shape[0]
    if isinstance(baseline, str):
        if baseline == "none":
            return 0.0
        if baseline != "leave_one_out":
            raise ValueError(
                'baseline must be "none", "leave_one_out", a number or a tensor. '
                f"Received: baseline={baseline!r}"
            )
        if count is None:  # known only when the compiled step runs
            count = ops.cast(ops.shape(costs)[0], costs.dtype)
        elif count < 2:
            raise ValueError(
                "leave_one_out is the mean of the other samples and needs at least "
                f"two. Received: costs.shape={tuple(costs.shape)}"
            )
        return (ops.sum(costs, axis=0) - costs) / (count - 1)
    if isinstance(baseline, (int, float)) and not np.isfinite(baseline):
        raise ValueError(f"baseline must be finite. Received: baseline={baseline!r}")
    constant = ops.stop_gradient(ops.cast(ops.convert_to_tensor(baseline), costs.dtype))
    if len(constant.shape) >= len(costs.shape):
        raise ValueError(
            "baseline must be one constant for all samples, without their axis. "
            f"Received: baseline.shape={tuple(constant.shape)}, "
            f"costs.shape={tuple(costs.shape)}"
        )
    return constant


def _check_samples(log_probs, costs):
    shapes = tuple(log_probs.shape), tuple(costs.shape)
    if shapes[0] != shapes[1] or not shapes[0] or shapes[0][0] == 0:
        raise ValueError(
            "log_probs and costs must have one shape, (samples, ...), with at least "
            f"one sample. Received: log_probs.shape={shapes[0]}, "
            f"costs.shape={shapes[1]}"
        )
    dtypes = [keras.backend.standardize_dtype(x.dtype) for x in (log_probs, costs)]
    if not all(keras.backend.is_float_dtype(dtype) for dtype in dtypes):
        raise ValueError(
            "log_probs and costs must be floating point. "
            f"Received: dtypes={tuple(dtypes)}"
        )
