r"""Control variates for discrete samples: REBAR and RELAX.

The score function is unbiased and noisy, a relaxation such as
:class:`~dlcompanion.generative.GumbelSoftmax` quiet and biased. Used as a control
variate, whose mean is known, the relaxation takes noise away and leaves no bias.
"""

import numpy as np
from keras import ops

from dlcompanion import autodiff
from dlcompanion.generative.reparameterization import in_dtype_of


def relaxed_samples(logits, noise):
    r"""A categorical draw and two relaxed ones that it belongs to.

    With :math:`u, v \sim U(0, 1)` and the log-probabilities :math:`\ell`,

    .. math::

        z_k &= \ell_k - \log(-\log u_k), \qquad b = \mathrm{onehot}(\arg\max_k z_k),

        \tilde z_k &= \begin{cases} -\log(-\log v_k) & b_k = 1 \\
        -\log\bigl(-e^{-\ell_k} \log v_k - \log v_b\bigr) & b_k = 0 .\end{cases}

    :math:`\tilde z` is distributed as :math:`z` given :math:`b`: its largest entry is
    that of :math:`b` as well, and the rest is drawn anew.

    Args:
        logits: Float tensor ``(..., classes)``.
        noise: Tensor ``(2, samples, ..., classes)``, :math:`u` and :math:`v`, uniform
            between 0 and 1, both excluded.

    Returns:
        Tuple of :math:`b`, :math:`z` and :math:`\tilde z`, each
        ``(samples, ..., classes)``. :math:`z` and, for fixed :math:`b`,
        :math:`\tilde z` are differentiable by the logits.

    Raises:
        ValueError: If the shapes do not fit, or NumPy noise lies outside (0, 1).

    Example:
        >>> noise = np.random.default_rng(0).uniform(0.001, 1, (2, 5, 3)).astype("f")
        >>> b, z, z_given_b = relaxed_samples(ops.zeros(3), noise)
        >>> bool(ops.all(ops.argmax(z_given_b, -1) == ops.argmax(b, -1)))
        True

    References:
        Grathwohl et al., *Backpropagation through the Void*, 2018, appendix B.
        https://arxiv.org/abs/1711.00123
    """
    if isinstance(noise, np.ndarray) and not (0 < noise.min() <= noise.max() < 1):
        raise ValueError(
            "noise must lie between 0 and 1, both excluded. Received: values from "
            f"{noise.min()} to {noise.max()}"
        )
    logits = ops.convert_to_tensor(logits)
    noise = in_dtype_of(logits, noise)
    shape, given = tuple(logits.shape), tuple(noise.shape)
    if not shape or len(given) < 2 or given[0] != 2 or given[2:] != shape:
        raise ValueError(
            "noise must be (2, samples, ...) before the shape of the logits. "
            f"Received: logits.shape={shape}, noise.shape={given}"
        )
    log_p = ops.log_softmax(logits, axis=-1)
    u, v = noise[0], noise[1]
    z = log_p - ops.log(-ops.log(u))
    b = ops.one_hot(ops.argmax(z, axis=-1), shape[-1], dtype=z.dtype)
    log_v = ops.log(v)
    top = ops.sum(b * log_v, axis=-1, keepdims=True)
    below = -ops.log(-ops.exp(-log_p) * log_v - top)
    return b, z, ops.where(b > 0, -ops.log(-log_v), below)


def relax_gradient(cost, control, logits, noise):
    r"""RELAX estimate of the gradient of a mean cost by the logits of categoricals.

    .. math:: \hat g = \bigl(f(b) - c_\phi(\tilde z)\bigr)
              \nabla_\theta \log p_\theta(b) + \nabla_\theta\, c_\phi(z)
              - \nabla_\theta\, c_\phi(\tilde z),

    averaged over the samples, is unbiased for *every* differentiable control
    :math:`c_\phi`, and quiet if :math:`c_\phi(\tilde z)` tells :math:`f(b)`.
    :func:`rebar_control` is the relaxed cost itself (REBAR). A network can be added to
    it and trained, by descent on :math:`\lVert \hat g \rVert^2`: since the mean of
    :math:`\hat g` does not depend on :math:`\phi`, that is descent on the variance. The
    estimate is differentiable by the weights of the control for this purpose.

    Args:
        cost: Function of one-hot samples ``(samples, ..., classes)`` that returns
            ``(samples, ...)``, with or without the axes that it sums over. It need not
            be differentiable.
        control: Differentiable function of relaxed samples of the same shape, that
            returns what ``cost`` does.
        logits: Float tensor ``(..., classes)``. Of a batch the gradient is that of the
            sum over the batch: give every element logits of its own.
        noise: As ``relaxed_samples``.

    Returns:
        Tensor of the shape of ``logits``.

    Raises:
        ValueError: As ``relaxed_samples``; or if cost and control do not both
            return ``(samples, ...)`` with the leading axes of the samples.

    Example:
        With a control of zero it is the score function of the same samples.

        >>> noise = np.array([[[0.5, 0.4]], [[0.5, 0.5]]], "float32")  # draws class 0
        >>> zero = lambda z: 0 * z[:, 0]
        >>> g = relax_gradient(lambda b: b[:, 0], zero, ops.zeros(2), noise)
        >>> ops.convert_to_numpy(g).tolist()
        [0.5, -0.5]

    References:
        Grathwohl et al., *Backpropagation through the Void: Optimizing Control Variates
        for Black-Box Gradient Estimation*, 2018. https://arxiv.org/abs/1711.00123
    """
    logits = ops.convert_to_tensor(logits)
    b, _, z_given_b = relaxed_samples(logits, noise)
    b = ops.stop_gradient(b)
    costs = ops.stop_gradient(ops.convert_to_tensor(cost(b)))
    controls = ops.convert_to_tensor(control(ops.stop_gradient(z_given_b)))
    axes, given = len(costs.shape), tuple(costs.shape)
    if axes < 1 or given != tuple(b.shape[:axes]) or given != tuple(controls.shape):
        raise ValueError(
            "cost and control must return (samples, ...), the leading axes of the "
            f"samples. Received: {given} and {tuple(controls.shape)} for samples of "
            f"shape {tuple(b.shape)}"
        )
    advantage = costs - controls
    score = b - ops.softmax(logits, axis=-1)  # of logits, by hand: differentiable again
    weight = ops.reshape(
        advantage, (*advantage.shape, *[1] * (len(b.shape) - len(advantage.shape)))
    )

    def difference(logits):
        _, z, z_given_b = relaxed_samples(logits, noise)
        return ops.sum(ops.mean(control(z) - control(z_given_b), axis=0))

    return ops.mean(weight * score, axis=0) + autodiff.grad(difference)(logits)


def rebar_control(cost, temperature=0.5, scale=1.0):
    r"""The cost of a relaxed sample, as a control: REBAR.

    .. math:: c(z) = \eta \, f\bigl(\mathrm{softmax}(z / \tau)\bigr)

    Args:
        cost: Function that :func:`relax_gradient` gets, differentiable here.
        temperature: Positive number or scalar tensor :math:`\tau`.
        scale: Number or scalar tensor :math:`\eta`.

    Returns:
        A function of relaxed samples.

    Example:
        >>> c = rebar_control(lambda b: b[..., 0], temperature=1.0)
        >>> float(c(ops.zeros((1, 2)))[0])
        0.5

    References:
        Tucker et al., *REBAR: Low-variance, unbiased gradient estimates for discrete
        latent variable models*, 2017. https://arxiv.org/abs/1703.07370
    """

    def control(z):
        return scale * cost(ops.softmax(z / temperature, axis=-1))

    return control
