"""Target networks: older copies of networks, which give their targets."""

import keras

from dlcompanion.training import StepModel


def frozen_copy(network):
    """Another network with the same weights, which does not learn.

    Args:
        network: Built :class:`keras.Model`.

    Returns:
        :class:`keras.Model`.

    Example:
        >>> network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> len(frozen_copy(network).trainable_variables)
        0
    """
    config = keras.saving.serialize_keras_object(network)
    copy = keras.saving.deserialize_keras_object(config)
    copy.set_weights(network.get_weights())
    freeze(copy)
    return copy


def freeze(network):
    """Keep a network from learning, with what its layers make in their layers.

    Args:
        network: :class:`keras.Model`.

    Example:
        >>> network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> freeze(network)
        >>> network.trainable_variables
        []
    """
    network.trainable = False
    for weight in network.weights:
        weight.trainable = False


class TargetedModel(StepModel):
    """A model with target networks: thawing the model leaves them frozen.

    A subclass has a property ``target_networks``, the list of them.

    Example:
        >>> from dlcompanion.reinforcement.dqn import DeepQ
        >>> network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> learner = DeepQ(network)
        >>> learner.trainable = True
        >>> len(learner.trainable_variables), len(learner.non_trainable_variables)
        (2, 2)
    """

    @property
    def trainable(self):
        """Whether the networks learn; the target networks never do."""
        return keras.Model.trainable.fget(self)

    @trainable.setter
    def trainable(self, value):
        keras.Model.trainable.fset(self, value)
        for target in getattr(self, "target_networks", ()):
            freeze(target)
