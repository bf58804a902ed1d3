r"""The Laplace approximation of the last layer: a Gaussian around trained weights.

==========================================  ========================================
:class:`LastLayerLaplace`                   the full covariance of the weights
:class:`KroneckerLaplace`                   a product of inputs' and outputs' factors
==========================================  ========================================
"""

import math

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import (
    check_choice,
    check_count,
    check_finite,
    check_labels,
    check_number,
    generator,
)


def evidence(log_likelihood, squared, values, prior):
    r"""Logarithm of the evidence in the Laplace approximation.

    .. math:: \log p(D \mid \hat\theta) - \tfrac\alpha2 \|\hat\theta\|^2
        + \tfrac12 \sum_i \log \frac{\alpha}{\alpha + \lambda_i}

    Args:
        log_likelihood: Number, of the data at :math:`\hat\theta`.
        squared: Number :math:`\|\hat\theta\|^2`.
        values: Array of the eigenvalues :math:`\lambda_i` of the data's precision.
        prior: Number :math:`\alpha`, the precision of the prior.

    Returns:
        Float.

    Example:
        >>> round(evidence(-1.0, 1.0, np.array([1.0]), 1.0), 3)  # -1 - 1/2 - log(2)/2
        -1.847
    """
    fit = log_likelihood - 0.5 * prior * squared
    return float(fit - 0.5 * np.log1p(np.asarray(values) / prior).sum())


def tuned(values, squared, count, error=None, prior=None, noise=None):
    r"""Prior and noise at which the evidence is stationary, by MacKay's iteration.

    With :math:`\gamma = \sum_i \lambda_i / (\lambda_i + \alpha)`, the number of weights
    that the data determine, and the first equation solved for :math:`\alpha` in each
    step (its left side rises, its right side falls),

    .. math:: \alpha = \frac{\gamma}{\|\hat\theta\|^2}, \qquad
        \sigma^2 \leftarrow \frac{\sum_n \|y_n - f_n\|^2}{N - \gamma} .

    Args:
        values: Array of the eigenvalues of the data's precision for noise 1.
        squared: Positive number :math:`\|\hat\theta\|^2`.
        count: Integer :math:`N`, the number of target values.
        error: Number, the sum of squared errors. Needed where ``noise`` is None.
        prior: Number that fixes :math:`\alpha`, or None.
        noise: Number that fixes :math:`\sigma`, or None.

    Returns:
        ``(prior, noise, values)``, the eigenvalues now for that noise.

    Raises:
        ValueError: If there is no maximum: all weights are zero, the data determine
            none of them, or the targets are met exactly.

    Example:
        >>> prior, noise, _ = tuned(np.array([9.0]), 0.5, 10, noise=1.0)
        >>> round(prior, 4)  # a = g / 0.5 with g = 9 / (9 + a)
        1.6847
    """
    if prior is None and not squared > 0:
        raise ValueError(f"All weights of the last layer are 0. Received: {squared=}")
    if noise is None and not error > 1e-12 * count:
        raise ValueError(
            "No noise can be found where the targets are met exactly; give noise. "
            f"Received: squared error={error}"
        )
    if prior is None and not values.max() > 0:
        raise ValueError(
            "The data determine no weight: all predictions are certain. Give "
            f"prior_precision. Received: largest eigenvalue={values.max()}"
        )
    alpha = prior or 1.0
    variance = noise**2 if noise else error / count
    for _ in range(10000):
        new = prior or _stationary(values / variance, squared)
        determined = (values / (values + new * variance)).sum()
        new_variance = variance
        if noise is None:
            new_variance = error / max(count - determined, 1e-3 * count)
        change = max(abs(np.log(new / alpha)), abs(np.log(new_variance / variance)))
        alpha, variance = new, new_variance
        if change < 1e-10:
            return float(alpha), float(np.sqrt(variance)), values / variance
    raise ValueError(
        "The evidence has no maximum that can be found: give prior_precision or noise. "
        f"Received: prior={alpha:.3g}, variance={variance:.3g}, still changing"
    )


def _stationary(values, squared):
    """The precision a with a |theta|^2 = sum of l / (l + a), by halving of log a."""
    high = math.log(np.count_nonzero(values) / squared)
    low = high - 700.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        alpha = math.exp(middle)
        if alpha * squared < (values / (values + alpha)).sum():
            low = middle
        else:
            high = middle
    return math.exp(0.5 * (low + high))


def classification_data(logits, labels):
    """Log-likelihood of labels, and the curvature of the loss in the logits.

    Args:
        logits: Array ``(n, classes)``, or ``(n, 1)`` for class 1 against class 0.
        labels: Array of class indices, ``(n,)`` or ``(n, 1)``.

    Returns:
        The sum of log-probabilities, and an array ``(n, k, k)`` for ``k`` columns.

    Raises:
        ValueError: If the labels are not a class index for each example.

    Example:
        >>> total, curvature = classification_data(np.zeros((1, 1)), [1])
        >>> round(total, 3), curvature.tolist()
        (-0.693, [[[0.25]]])
    """
    n, columns = logits.shape
    given = check_labels("y", labels, max(columns, 2), n)
    if columns == 1:
        sign = np.where(given == 1, 1.0, -1.0)
        z = logits[:, 0]
        total = -np.logaddexp(0.0, -sign * z).sum()
        # p (1 - p), without the rounding of 1 - p
        curvature = np.exp(-np.logaddexp(0.0, -z) - np.logaddexp(0.0, z))
        return float(total), curvature[:, None, None]
    logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    p = np.exp(logs)
    curvature = p[:, :, None] * np.eye(columns) - p[:, :, None] * p[:, None, :]
    return float(logs[np.arange(n), given].sum()), curvature


@keras.saving.register_keras_serializable(package="dlcompanion")
class LastLayerLaplace(keras.Model):
    r"""A trained model whose last weights get a Gaussian posterior.

    At the trained weights :math:`\hat\theta` of the last layer (kernel and bias) the
    logarithm of the posterior is expanded to second order. With features
    :math:`\phi_n`, which end in a 1 for the bias, and outputs
    :math:`f_n = \hat\theta^\top \phi_n`,

    .. math::

       p(\theta \mid D) \approx \mathcal N(\hat\theta, \Sigma), \qquad
       \Sigma^{-1} = \alpha I + \sum_n \phi_n \phi_n^\top \otimes \Lambda_n,

    where :math:`\Lambda_n` is the curvature of the loss in the outputs:
    :math:`\sigma^{-2} I` for regression, :math:`\operatorname{diag}(p_n) - p_n
    p_n^\top` for classification (generalized Gauss-Newton, for a last layer the
    Hessian itself). An input gets outputs of covariance

    .. math:: S(x) = (\phi \otimes I)^\top\, \Sigma\, (\phi \otimes I),

    which grows where the features leave the data. Regression predicts mean
    :math:`f` and variance :math:`\operatorname{diag} S + \sigma^2`; classification the
    softmax (for one output the sigmoid) of :math:`f_k / \sqrt{1 + \pi S_{kk} / 8}`,
    the probit approximation. For a linear model with Gaussian noise, trained to its
    optimum, all of this is exact.

    The precision :math:`\alpha` of the prior, and the noise :math:`\sigma`, are those
    that maximize the approximate log-evidence

    .. math:: \log p(D \mid \hat\theta) - \tfrac\alpha2 \|\hat\theta\|^2
        + \tfrac P2 \log\alpha + \tfrac12 \log\det\Sigma ,

    unless they are given. The evidence is that of the expansion, with the other layers
    taken as fixed: its posterior may be so wide that the likelihood of new data falls
    below that of the trained model. Then give a larger ``prior_precision``, found on
    held-out data. ``fit`` is one pass over the training data and changes no
    weight of the model. The attributes ``prior``, ``noise_scale`` and
    ``log_evidence`` are weights that hold what was found.

    Args:
        model: Trained functional or Sequential model whose last layer is a Dense on
            inputs ``(batch, features)``. Its activation (none, softmax or sigmoid) is
            not used; the Laplace approximation starts from the logits.
        likelihood: ``"classification"`` or ``"regression"``.
        prior_precision: Positive number, or None to maximize the evidence.
        noise: Positive number, the standard deviation of targets in regression, or
            None to maximize the evidence.
        **kwargs: Passed on to :class:`keras.Model`.

    Input shape:
        That of ``model``.

    Output shape:
        Classification: probabilities ``(batch, classes)``, or ``(batch, 1)`` for one
        logit. Regression with ``n`` outputs: ``(batch, 2 n)``, means, then variances.

    Raises:
        ValueError: If the model does not end in such a Dense layer, or a number or
            name is out of range; in ``fit``, if the targets do not fit; in
            ``predict``, before ``fit``. (Called inside another model it gives NaN
            before ``fit``.)

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(50, 2)).astype("float32")
        >>> y = (x[:, 0] > 0).astype(int)
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        >>> laplace = LastLayerLaplace(model).fit(x, y)
        >>> laplace.predict(x).shape
        (50, 2)

    References:
        MacKay, *A Practical Bayesian Framework for Backpropagation Networks*, 1992.
        https://doi.org/10.1162/neco.1992.4.3.448

        Daxberger et al., *Laplace Redux: Effortless Bayesian Deep Learning*, 2021.
        https://arxiv.org/abs/2106.14806
    """

    def __init__(
        self,
        model,
        likelihood="classification",
        prior_precision=None,
        noise=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, value in {"prior_precision": prior_precision, "noise": noise}.items():
            if value is not None and check_number(name, value) == 0:
                raise ValueError(f"{name} must be positive. Received: {name}={value}")
        last = _last_dense(model)
        self.model = model
        self.likelihood = check_choice(
            "likelihood", likelihood, ("classification", "regression")
        )
        self.prior_precision = prior_precision
        self.noise = noise
        # shares the layers of model, and is left out of what is saved
        sequential = isinstance(model, keras.Sequential)
        inputs = model.inputs[0] if sequential else model.input
        trunk = keras.Model(inputs, last.input)
        object.__setattr__(self, "_trunk", trunk)
        object.__setattr__(self, "_last", last)
        rows = last.kernel.shape[0] + last.use_bias
        for name in ("prior", "noise_scale", "log_evidence"):
            setattr(self, name, self._add(name, ()))
        self.add_posterior(rows, last.units)
        self.build(model.input_shape)

    def _add(self, name, shape):
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=keras.initializers.Constant(float("nan")),
            trainable=False,
            autocast=False,
            dtype="float32",
        )

    def build(self, input_shape=None):
        self.built = True

    def add_posterior(self, rows, columns):
        """Make the weights that hold the posterior."""
        self.covariance = self._add("covariance", (rows, columns, rows, columns))

    def decompose(self, phi, curvature):
        """Eigenvalues of the data's precision, and what :meth:`keep` needs."""
        n, rows = phi.shape
        columns = curvature.shape[-1]
        precision = np.zeros((rows, columns, rows, columns))
        for begin in range(0, n, 256):
            a, c = phi[begin : begin + 256], curvature[begin : begin + 256]
            half = np.einsum("ni,nkl->nikl", a, c).reshape(len(a), -1)
            block = (a.T @ half).reshape(rows, rows, columns, columns)
            precision += block.transpose(0, 2, 1, 3)  # (rows, columns, rows, columns)
        size = rows * columns
        values, vectors = np.linalg.eigh(precision.reshape(size, size))
        return np.maximum(values, 0.0), vectors

    def keep(self, variances, vectors):
        """Store a posterior with these variances along the eigenvectors."""
        covariance = (vectors * variances) @ vectors.T
        self.covariance.assign(covariance.reshape(self.covariance.shape))

    def covariance_of(self, phi):
        """Covariance of the outputs, ``(batch, columns, columns)``."""
        rows, columns = self.covariance.shape[:2]
        covariance = ops.reshape(self.covariance, (rows, -1))
        half = ops.reshape(ops.matmul(phi, covariance), (-1, columns, rows, columns))
        return ops.einsum("nkjl,nj->nkl", half, phi)

    def fit(self, x, y, batch_size=256):
        """Find the posterior on training data, and return this model.

        Args:
            x: Inputs, as the model takes them: those that it was trained on.
            y: Class indices, or targets ``(n,)`` or ``(n, outputs)``.
            batch_size: Positive integer, examples at a time.
        """
        check_count("batch_size", batch_size)
        if isinstance(x, np.ndarray) and len(x) <= batch_size:
            features = self._trunk.predict_on_batch(x)
        else:
            features = self._trunk.predict(x, batch_size=batch_size, verbose=0)
        phi, theta = self._numpy(features)
        f = phi @ theta
        squared = float((theta**2).sum())
        if self.likelihood == "classification":
            log_likelihood, curvature = classification_data(f, y)
            error, noise = None, 1.0
        else:
            y = np.asarray(y, "float64").reshape(len(y), -1)
            if y.shape != f.shape:
                raise ValueError(
                    f"y must hold targets of shape {f.shape}. "
                    f"Received: y.shape={y.shape}"
                )
            check_finite("y", y)
            curvature = np.broadcast_to(np.eye(f.shape[1]), f.shape + f.shape[1:])
            error, noise = float(((y - f) ** 2).sum()), self.noise
        values, vectors = self.decompose(phi, curvature)
        prior, noise, values = tuned(
            values, squared, f.size, error, self.prior_precision, noise
        )
        if error is not None:
            log_likelihood = -0.5 * f.size * math.log(2 * math.pi * noise**2)
            log_likelihood -= error / (2 * noise**2)
        self.keep(1 / (values + prior), vectors)
        self.prior.assign(prior)
        self.noise_scale.assign(noise)
        self.log_evidence.assign(evidence(log_likelihood, squared, values, prior))
        return self

    def _numpy(self, features):
        """Features with their 1, and kernel over bias, in float64."""
        phi = np.asarray(features, "float64")
        theta = [ops.convert_to_numpy(w).astype("float64") for w in self._last.weights]
        if self._last.use_bias:
            phi = np.concatenate([phi, np.ones((len(phi), 1))], axis=1)
        return phi, np.vstack(theta)

    def latent(self, inputs):
        """Mean ``(batch, n)`` and covariance ``(batch, n, n)`` of the outputs.

        Args:
            inputs: Tensor of inputs.

        Returns:
            Two float32 tensors: of the logits, or of the means in regression.
        """
        phi = ops.cast(self._trunk(inputs, training=False), "float32")
        mean = ops.matmul(
            phi, ops.cast(ops.convert_to_tensor(self._last.kernel), "float32")
        )
        if self._last.use_bias:
            mean = mean + ops.cast(ops.convert_to_tensor(self._last.bias), "float32")
            phi = ops.concatenate([phi, ops.ones_like(phi[:, :1])], axis=-1)
        return mean, self.covariance_of(phi)

    def call(self, inputs):
        mean, covariance = self.latent(inputs)
        variance = ops.diagonal(covariance, axis1=1, axis2=2)
        if self.likelihood == "regression":
            variance = variance + self.noise_scale**2
            return ops.concatenate([mean, variance], axis=-1)
        logits = mean / ops.sqrt(1.0 + math.pi / 8.0 * variance)
        one = self._last.units == 1
        return ops.sigmoid(logits) if one else ops.softmax(logits, axis=-1)

    def predict(self, *args, **kwargs):
        if np.isnan(ops.convert_to_numpy(self.prior)):
            raise ValueError(
                "Call fit on the training data before predict. Received: prior=NaN"
            )
        return super().predict(*args, **{"verbose": 0, **kwargs})

    def predict_samples(self, x, samples=32, seed=0):
        """Predictions of weights drawn from the posterior.

        Args:
            x: Array of inputs.
            samples: Positive integer, the number of draws.
            seed: Integer of at least 0.

        Returns:
            NumPy array ``(samples, examples, n)`` of probabilities, or of means in
            regression, for :func:`mutual_information` and such. The draws of one
            example are right; between examples they are not correlated.
        """
        check_count("samples", samples)
        mean, covariance = map(ops.convert_to_numpy, self.latent(x))
        values, vectors = np.linalg.eigh(covariance.astype("float64"))
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
        noise = generator(seed).normal(size=(samples, *mean.shape))
        drawn = mean + np.einsum("nkl,snl->snk", root, noise)
        if self.likelihood == "regression":
            return drawn
        if self._last.units == 1:
            return np.exp(-np.logaddexp(0.0, -drawn))
        drawn = np.exp(drawn - drawn.max(axis=-1, keepdims=True))
        return drawn / drawn.sum(axis=-1, keepdims=True)

    def get_config(self):
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "likelihood": self.likelihood,
            "prior_precision": self.prior_precision,
            "noise": self.noise,
        }

    @classmethod
    def from_config(cls, config):
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(**{**config, "model": model})


@keras.saving.register_keras_serializable(package="dlcompanion")
class KroneckerLaplace(LastLayerLaplace):
    r"""Laplace approximation of the last layer with a Kronecker-factored curvature.

    The sum over examples of products is replaced by the product of sums,

    .. math::

       \sum_n \phi_n \phi_n^\top \otimes \Lambda_n \;\approx\;
       \frac1N \Bigl(\sum_n \phi_n \phi_n^\top\Bigr) \otimes
       \Bigl(\sum_n \Lambda_n\Bigr),

    whose eigenvectors are products of those of the two factors, so that
    :math:`\alpha I` can be added exactly. It holds two small matrices where
    :class:`LastLayerLaplace` holds a square of all weights, and is the same where all
    examples have the same :math:`\Lambda_n`, as in regression.

    Arguments, shapes and errors are those of :class:`LastLayerLaplace`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(50, 2)).astype("float32")
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> laplace = KroneckerLaplace(model, "regression").fit(x, x[:, 0])
        >>> laplace.predict(x).shape
        (50, 2)

    References:
        Ritter, Botev and Barber, *A Scalable Laplace Approximation for Neural
        Networks*, 2018. https://openreview.net/forum?id=Skdvd2xAZ
    """

    def add_posterior(self, rows, columns):
        self.row_vectors = self._add("row_vectors", (rows, rows))
        self.column_vectors = self._add("column_vectors", (columns, columns))
        self.variances = self._add("variances", (rows, columns))

    def decompose(self, phi, curvature):
        a, row_vectors = np.linalg.eigh(phi.T @ phi)
        b, column_vectors = np.linalg.eigh(curvature.mean(axis=0))
        values = np.maximum(a, 0.0)[:, None] * np.maximum(b, 0.0)
        return values.ravel(), (row_vectors, column_vectors)

    def keep(self, variances, vectors):
        self.row_vectors.assign(vectors[0])
        self.column_vectors.assign(vectors[1])
        self.variances.assign(variances.reshape(self.variances.shape))

    def covariance_of(self, phi):
        weights = ops.matmul(ops.matmul(phi, self.row_vectors) ** 2, self.variances)
        q = ops.convert_to_tensor(self.column_vectors)
        return ops.matmul(weights[:, None, :] * q, ops.transpose(q))


def _last_dense(model):
    last = model.layers[-1] if getattr(model, "inputs", None) else None
    dense = isinstance(last, keras.layers.Dense) and len(last.input.shape) == 2
    if not dense or len(model.outputs) != 1:
        raise ValueError(
            "model must be functional or Sequential, with its Input and one output, "
            "and end in a Dense layer on inputs (batch, features). "
            f"Received: model={model!r}, last layer={last!r}"
        )
    return last
