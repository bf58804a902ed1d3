"""Distributions over the weights of a layer, and their divergence from a prior."""

import math

import keras
from keras import ops

from dlcompanion.checks import check_number
from dlcompanion.probability import tfd, tfp_seed
from dlcompanion.probability.values import SCALE_FLOOR, check_params, positive


@keras.saving.register_keras_serializable(package="dlcompanion")
class NormalPrior:
    r"""The same normal distribution for every weight, needs no TFP.

    .. math:: p(w) = \prod_i \mathcal N(w_i; m, s^2)

    Args:
        scale: Positive number, the standard deviation :math:`s`.
        loc: Number, the mean :math:`m`.

    Raises:
        ValueError: If ``scale`` is not positive or one of them is not finite.

    Example:
        >>> NormalPrior(0.5)
        NormalPrior(scale=0.5, loc=0.0)
    """

    def __init__(self, scale=1.0, loc=0.0):
        self.scale = check_number("scale", scale, 0.0, open_ends=True)
        self.loc = check_number("loc", loc, -math.inf)

    def distribution(self, event_shape):
        """The prior of a group of weights, as a ``tfd`` distribution."""
        loc = ops.full(event_shape, self.loc, dtype="float32")
        return _normals(
            loc, ops.full(event_shape, self.scale, dtype="float32"), event_shape
        )

    def get_config(self):
        return {"scale": self.scale, "loc": self.loc}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        return f"NormalPrior(scale={self.scale}, loc={self.loc})"


@keras.saving.register_keras_serializable(package="dlcompanion")
class SpecPrior:
    """Any distribution of TFP as prior, by way of a spec.

    The spec's ``event_shape`` says how many weights it speaks about at once: with
    ``()`` every weight has this prior by itself; with more, the weights are taken in
    groups of so many, in the order of the flattened kernel.

    Args:
        spec: A spec of :mod:`dlcompanion.probability`, of one weight or of several.
        params: ``spec.params_size`` numbers, the parameters. They are not trained.

    Raises:
        ValueError: If ``spec`` is none, or the parameters are not as many finite
            numbers as it needs.

    Example:
        >>> from dlcompanion.probability import MixtureNormalSpec
        >>> mixture = MixtureNormalSpec(2)  # a logit, mean and rho for each component
        >>> prior = SpecPrior(mixture, [0, 0, 0, 0.5, 0, -4])
        >>> prior.event_shape
        ()
    """

    def __init__(self, spec, params):
        self.spec = _checked_spec(spec)
        self.event_shape = tuple(self.spec.event_shape)
        self.params = check_params("params", params, self.spec)

    def distribution(self, event_shape):
        """The prior of a group of weights, as a ``tfd`` distribution."""
        if tuple(event_shape) != self.event_shape:
            raise ValueError(
                "Posterior and prior must speak about equally many weights at once. "
                f"Received: events of shape {self.event_shape} in the prior, "
                f"{tuple(event_shape)} in the posterior"
            )
        return self.spec(ops.convert_to_tensor(self.params, "float32"))

    def get_config(self):
        spec = keras.saving.serialize_keras_object(self.spec)
        return {"spec": spec, "params": self.params}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class _BuiltByItsLayer(keras.layers.Layer):
    """A layer that only owns weights, in the name of the layer that it belongs to."""

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def get_build_config(self):
        return None  # loading must leave it to that layer: paths of variables differ


@keras.saving.register_keras_serializable(package="dlcompanion")
class NormalPosterior(_BuiltByItsLayer):
    r"""A mean and a standard deviation for every entry of a weight.

    .. math:: q(w) = \prod_i \mathcal N(w_i; \mu_i, \sigma_i^2), \qquad
        \sigma_i = \log(1 + e^{\rho_i}) + 10^{-5} .

    :math:`\mu` and :math:`\rho` are trained, and float32 under every dtype policy.
    The divergence from a :class:`NormalPrior` with mean :math:`m` and deviation
    :math:`s` has the closed form

    .. math:: \mathrm{KL}(q \,\|\, p) = \sum_i \log \frac{s}{\sigma_i}
        + \frac{\sigma_i^2 + (\mu_i - m)^2}{2 s^2} - \frac12 .

    It is a Keras layer only to own its weights: hand it to a Bayesian layer.

    Args:
        initializer: Initializer of the means.
        initial_scale: Number above 1e-5, the standard deviation to begin with.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        None: it is built with the shape of the weight and never called.

    Output shape:
        ``sample(seed)`` has the shape of the weight.

    Raises:
        ValueError: If ``initial_scale`` is too small or not finite.

    Example:
        >>> posterior = NormalPosterior(initial_scale=0.1)
        >>> posterior.build((3, 2))
        >>> scale = keras.ops.convert_to_numpy(posterior.stddev())
        >>> round(float(scale[1, 0]), 4)
        0.1
    """

    def __init__(self, initializer="glorot_uniform", initial_scale=0.05, **kwargs):
        super().__init__(**kwargs)
        self.initializer = keras.initializers.get(initializer)
        self.initial_scale = check_number(
            "initial_scale", initial_scale, SCALE_FLOOR, math.inf, open_ends=True
        )

    def build(self, shape):
        """Make the parameters of a weight of this shape."""
        rho = math.log(math.expm1(self.initial_scale - SCALE_FLOOR))
        settings = {"shape": tuple(shape), "dtype": "float32", "autocast": False}
        self.loc = self.add_weight(name="loc", initializer=self.initializer, **settings)
        self.rho = self.add_weight(
            name="rho", initializer=keras.initializers.Constant(rho), **settings
        )

    def mean(self):
        """Means, a float32 tensor of the shape of the weight."""
        return ops.convert_to_tensor(self.loc)

    def stddev(self):
        """Standard deviations, a float32 tensor of the shape of the weight."""
        return positive(ops.convert_to_tensor(self.rho))

    def noise(self, seed):
        """A draw less the mean."""
        scale = self.stddev()
        return scale * keras.random.normal(scale.shape, dtype="float32", seed=seed)

    def sample(self, seed):
        """One draw of the weight, differentiable by its parameters."""
        return self.mean() + self.noise(seed)

    def divergence(self, prior, seed):
        """KL divergence from the prior, a float32 scalar.

        Args:
            prior: :class:`NormalPrior` or :class:`SpecPrior`.
            seed: A :class:`keras.random.SeedGenerator`, for what has no closed form.

        Returns:
            The divergence, or where TFP knows no closed form, an unbiased estimate
            from one draw.
        """
        loc, scale = self.mean(), self.stddev()
        if isinstance(prior, NormalPrior):
            ratio = scale / prior.scale
            distance = (loc - prior.loc) / prior.scale
            return ops.sum(
                0.5 * (ratio * ratio + distance * distance - 1) - ops.log(ratio)
            )
        event_shape = prior.event_shape
        groups = (_groups(loc.shape, event_shape), *event_shape)
        p = prior.distribution(event_shape)
        q = _normals(ops.reshape(loc, groups), ops.reshape(scale, groups), event_shape)
        return _divergence(q, p, seed)

    def get_config(self):
        return {
            **super().get_config(),
            "initializer": keras.initializers.serialize(self.initializer),
            "initial_scale": self.initial_scale,
        }


@keras.saving.register_keras_serializable(package="dlcompanion")
class SpecPosterior(_BuiltByItsLayer):
    """Any reparameterized distribution of TFP over the entries of a weight.

    With a spec of ``event_shape`` ``()`` every entry has its own distribution. With
    more, entries are taken in groups of so many, in the order of the flattened weight,
    and may be correlated within a group:
    ``SpecPosterior(MultivariateNormalTriLSpec(6))`` gives a kernel of six entries a
    full covariance. Works where TFP does, on TensorFlow and JAX.

    Args:
        spec: A spec of :mod:`dlcompanion.probability`, of one weight or of several.
        initializer: Initializer of the parameters, of shape
            ``(groups, spec.params_size)``.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        None: it is built with the shape of the weight and never called.

    Output shape:
        ``sample(seed)`` has the shape of the weight.

    Raises:
        ValueError: If ``spec`` is none, the number of entries is no multiple of the
            size of its event, or draws cannot be differentiated (a mixture, a discrete
            distribution).

    Example:
        >>> from dlcompanion.probability import MultivariateNormalTriLSpec
        >>> posterior = SpecPosterior(MultivariateNormalTriLSpec(6))
        >>> posterior.build((3, 2))
        >>> tuple(posterior.params.shape)
        (1, 27)
    """

    def __init__(self, spec, initializer="random_normal", **kwargs):
        super().__init__(**kwargs)
        self.spec = _checked_spec(spec)
        self.initializer = keras.initializers.get(initializer)

    def build(self, shape):
        """Make the parameters of a weight of this shape."""
        self.weight_shape = tuple(shape)
        groups = _groups(self.weight_shape, self.spec.event_shape)
        self.params = self.add_weight(
            name="params",
            shape=(groups, self.spec.params_size),
            initializer=self.initializer,
            dtype="float32",
            autocast=False,
        )

    def distribution(self):
        """The posterior, a ``tfd`` distribution whose batch are the groups."""
        q = self.spec(ops.convert_to_tensor(self.params))
        if q.reparameterization_type != tfd().FULLY_REPARAMETERIZED:
            raise ValueError(
                "A posterior must be fully reparameterized: draws that can be "
                f"differentiated by its parameters. Received: spec={self.spec}"
            )
        return q

    def sample(self, seed):
        """One draw of the weight, differentiable by its parameters."""
        draw = self.distribution().sample(seed=tfp_seed(seed))
        return ops.reshape(draw, self.weight_shape)

    def divergence(self, prior, seed):
        """KL divergence from the prior, as :meth:`NormalPosterior.divergence`."""
        p = prior.distribution(self.spec.event_shape)
        return _divergence(self.distribution(), p, seed)

    def get_config(self):
        return {
            **super().get_config(),
            "spec": keras.saving.serialize_keras_object(self.spec),
            "initializer": keras.initializers.serialize(self.initializer),
        }


def _checked_spec(spec):
    if isinstance(spec, dict):
        spec = keras.saving.deserialize_keras_object(spec)
    if not hasattr(spec, "params_size") or not hasattr(spec, "event_shape"):
        raise ValueError(
            "spec must be a spec of dlcompanion.probability, such as NormalSpec(). "
            f"Received: spec={spec!r}"
        )
    return spec


def _groups(shape, event_shape):
    """How many groups of the size of an event a weight has."""
    size, event = math.prod(shape), math.prod(event_shape)
    if size % event:
        raise ValueError(
            "The number of weights must be a multiple of the size of the spec's event. "
            f"Received: {size} weights, event_shape={tuple(event_shape)}"
        )
    return size // event


def _normals(loc, scale, event_shape):
    """Independent normals whose last axes are one event."""
    return tfd().Independent(tfd().Normal(loc, scale), len(event_shape))


def _divergence(q, p, seed):
    """Sum over the batch of KL(q, p), by TFP's formula or from one draw."""
    distributions = tfd()
    for form in (lambda d: d, _unwrapped):
        try:
            return ops.sum(distributions.kl_divergence(form(q), form(p)))
        except NotImplementedError:
            continue
    draw = q.sample(seed=tfp_seed(seed))
    return ops.sum(q.log_prob(draw) - p.log_prob(draw))


def _unwrapped(d):
    """The same distribution under the name that TFP may have a formula for."""
    if not isinstance(d, tfd().Independent):
        return d
    if len(d.event_shape) == 0:
        return d.distribution
    if len(d.event_shape) == 1 and isinstance(d.distribution, tfd().Normal):
        return tfd().MultivariateNormalDiag(d.distribution.loc, d.distribution.scale)
    return d
