r"""Gradients of expectations from values of the cost alone: the score function.

They estimate :math:`\nabla_\theta \, \mathbb E_{x \sim p_\theta}[f(x)]`, where the
parameters sit in the distribution and not in the cost. They take functions, not
distributions: whatever has a log-probability.

=====================================  =============================================
:func:`score_function_gradient`        for any cost, any distribution
``score_function_loss``            the same as a loss, for ``fit``
:class:`LearnedBaseline`               a network that predicts the cost
=====================================  =============================================

What the slope of the cost can give, where it has one, is in
:mod:`~dlcompanion.generative.reparameterization`.
"""

import keras
import numpy as np
from keras import ops

from dlcompanion import autodiff
from dlcompanion.generative.reparameterization import in_dtype_of


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
            against one sample, ``(...)``, for a constant or for what a
            :class:`LearnedBaseline` says; or ``"leave_one_out"``, the mean cost
            of the *other* samples, :math:`b_i = \frac{1}{n-1} \sum_{j \ne i} f(x_j)`,
            which needs at least two.

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
    costs = ops.cast(costs, log_probs.dtype)
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
            on the first axis. Floats are taken in the dtype of the parameters.
        baseline: As ``score_function_loss``.

    Returns:
        The gradient, of the structure of ``params``.

    Raises:
        ValueError: As ``score_function_loss``.

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
    samples = in_dtype_of(params, samples)
    costs = ops.stop_gradient(ops.convert_to_tensor(cost(samples)))

    def loss(params):
        each = score_function_loss(log_prob(params, samples), costs, baseline)
        return ops.sum(each)

    return autodiff.grad(loss)(params)


@keras.saving.register_keras_serializable(package="dlcompanion")
class LearnedBaseline(keras.layers.Layer):
    r"""A network that learns which cost to expect, as a baseline.

    Where every example comes with a context :math:`c`, the level of its cost can be
    learned from the costs of other examples. No second sample is needed then, which
    leave-one-out cannot do without. The layer predicts :math:`b_\psi(c)` and, whenever
    it is given costs, adds to the losses of the model

    .. math:: \frac{1}{n} \sum_i \bigl(b_\psi(c) - f(x_i)\bigr)^2 ,

    averaged over the batch, through which it learns beside the parameters. The
    prediction carries no gradient: the baseline is not trained to make the loss small.
    The estimate stays unbiased as long as the context does not tell the sample.

    Args:
        network: Keras layer or model from ``(batch, ...)`` to ``(batch, 1)``.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Call arguments:
        inputs: Tensor ``(batch, ...)``, the contexts.
        costs: Tensor ``(batch,)`` or ``(samples, batch)``, what was found. Without it
            nothing is learned.

    Returns:
        Tensor of shape ``(batch,)``, the argument ``baseline`` of
        ``score_function_loss``.

    Raises:
        ValueError: If ``network`` is not a Keras layer or does not give ``(batch, 1)``.

    Example:
        >>> baseline = LearnedBaseline(keras.layers.Dense(1, kernel_initializer="ones"))
        >>> context = np.array([[1.0], [4.0]], "float32")
        >>> b = baseline(context, costs=np.array([3.0, 4.0], "float32"))
        >>> ops.convert_to_numpy(b).tolist(), ops.convert_to_numpy(baseline.losses[0])
        ([1.0, 4.0], array(2., dtype=float32))

    References:
        Mnih and Gregor, *Neural Variational Inference and Learning in Belief Networks*,
        2014, section 2.3. https://arxiv.org/abs/1402.0030
    """

    def __init__(self, network, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(network, keras.layers.Layer):
            raise ValueError(
                f"network must be a Keras layer. Received: network={network!r}"
            )
        self.network = network

    def build(self, inputs_shape, costs_shape=None):
        if not self.network.built:
            self.network.build(inputs_shape)
        given = tuple(self.network.compute_output_shape(inputs_shape))
        if len(given) != 2 or given[1] != 1:
            raise ValueError(
                "network must give one number an example, (batch, 1). "
                f"Received: output of shape {given}"
            )

    def call(self, inputs, costs=None):
        expected = self.network(ops.stop_gradient(inputs))[:, 0]
        if costs is not None:
            found = ops.stop_gradient(ops.cast(costs, "float32"))
            error = ops.cast(expected, "float32") - found
            self.add_loss(ops.mean(ops.square(error)))
        return ops.stop_gradient(ops.cast(expected, self.compute_dtype))

    def compute_output_shape(self, inputs_shape, costs_shape=None):
        return tuple(inputs_shape[:1])

    def get_config(self):
        network = keras.saving.serialize_keras_object(self.network)
        return {**super().get_config(), "network": network}

    @classmethod
    def from_config(cls, config):
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


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
