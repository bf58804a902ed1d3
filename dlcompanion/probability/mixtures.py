"""Specs of mixtures: any spec as component, and the usual ones by name."""

import keras
from keras import ops

from dlcompanion.checks import check_count
from dlcompanion.probability.door import tfd
from dlcompanion.probability.specs import (
    LogisticSpec,
    NormalSpec,
    OneHotCategoricalSpec,
    Spec,
)


@keras.saving.register_keras_serializable(package="dlcompanion")
class MixtureSameFamilySpec(Spec):
    r"""Mixture whose components are of one kind.

    .. math:: p(y) = \sum_k \pi_k \, p_k(y)

    The parameters are the logits of :math:`\pi`, then those of the first component,
    of the second, and so on, each in the order of its own spec.

    Args:
        components: Positive integer, the number of components.
        component: Spec of one component.

    Raises:
        ValueError: If ``components < 1`` or ``component`` is no spec.

    Example:
        >>> MixtureSameFamilySpec(3, LogisticSpec()).params_size
        9

    References:
        Bishop, *Mixture Density Networks*, 1994.
        https://publications.aston.ac.uk/id/eprint/373/
    """

    def __init__(self, components, component):
        if not isinstance(component, Spec):
            raise ValueError(
                "component must be a spec of dlcompanion.probability. "
                f"Received: component={component!r}"
            )
        self.components = check_count("components", components)
        self.component = component
        self.event_shape = component.event_shape
        self.params_size = self.components * (1 + component.params_size)
        self.support = component.support

    def distribution(self, params):
        k = self.components
        shape = (*ops.shape(params)[:-1], k, self.component.params_size)
        return tfd().MixtureSameFamily(
            tfd().Categorical(logits=params[..., :k]),
            self.component.distribution(ops.reshape(params[..., k:], shape)),
        )

    def contains(self, y):
        return self.component.contains(y)

    def get_config(self):
        component = keras.saving.serialize_keras_object(self.component)
        return {"components": self.components, "component": component}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if "component" in config:
            config["component"] = keras.saving.deserialize_keras_object(
                config["component"]
            )
        return cls(**config)

    def __repr__(self):
        if type(self) is not MixtureSameFamilySpec:
            return super().__repr__()
        sizes = f"components={self.components}, component={self.component!r}"
        return f"MixtureSameFamilySpec({sizes})"


class _NamedMixtureSpec(MixtureSameFamilySpec):
    """A mixture that is made from the event shape of its components."""

    component_class = None

    def __init__(self, components, event_shape=()):
        super().__init__(components, self.component_class(event_shape))

    def get_config(self):
        return {"components": self.components, "event_shape": self.event_shape}


@keras.saving.register_keras_serializable(package="dlcompanion")
class MixtureNormalSpec(_NamedMixtureSpec):
    r"""Mixture of normals with diagonal covariance.

    .. math:: p(y) = \sum_k \pi_k \prod_i \mathcal N(y_i; \mu_{ki}, \sigma_{ki}^2)

    The parameters are the logits of :math:`\pi`, then component by component those of
    :class:`NormalSpec`.

    Args:
        components: Positive integer, the number of normals.
        event_shape: As :class:`NormalSpec`.

    Example:
        >>> MixtureNormalSpec(components=5, event_shape=2).params_size
        25

    References:
        Bishop, *Mixture Density Networks*, 1994.
        https://publications.aston.ac.uk/id/eprint/373/
    """

    component_class = NormalSpec


@keras.saving.register_keras_serializable(package="dlcompanion")
class MixtureLogisticSpec(_NamedMixtureSpec):
    """Mixture of independent logistic variables.

    The parameters are the logits of the weights, then component by component those of
    :class:`LogisticSpec`.

    Args:
        components: Positive integer, the number of components.
        event_shape: As :class:`NormalSpec`.

    Example:
        >>> MixtureLogisticSpec(components=5).params_size
        15
    """

    component_class = LogisticSpec


@keras.saving.register_keras_serializable(package="dlcompanion")
class CategoricalMixtureOfOneHotCategoricalSpec(MixtureSameFamilySpec):
    """Mixture of one-hot classes.

    The mixture is again a distribution over classes, whose logarithm of the
    probabilities is a log-sum-exp of linear maps where one softmax has a linear map.

    Args:
        classes: Integer of at least 2 (``event_size`` in ``tfp.layers``).
        components: Positive integer (``num_components`` there).

    Example:
        >>> CategoricalMixtureOfOneHotCategoricalSpec(classes=4, components=2)
        CategoricalMixtureOfOneHotCategoricalSpec(classes=4, components=2)

    References:
        Yang et al., *Breaking the Softmax Bottleneck*, 2018, use such a mixture.
        https://arxiv.org/abs/1711.03953
    """

    def __init__(self, classes, components):
        super().__init__(components, OneHotCategoricalSpec(classes))

    def get_config(self):
        classes = self.component.classes
        return {"classes": classes, "components": self.components}
