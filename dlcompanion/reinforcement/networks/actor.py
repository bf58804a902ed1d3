"""Actor: networks that learn in Keras and act in NumPy, never with old weights."""

import contextlib

import numpy as np

from dlcompanion.reinforcement.networks.numpy_network import in_numpy


class Actor:
    """The networks of a learner, called on NumPy arrays.

    What a call needs of the weights is copied, and copied anew as soon as an optimizer
    of the learner has made a step since, which its ``iterations`` tell. That question
    costs as much as a small network itself; while nothing learns, :meth:`held` asks it
    once.

    Args:
        learner: Compiled :class:`keras.Model` whose networks are attributes.
        padded: Boolean, for batches of ever other sizes, as of ``in_numpy``.

    Example:
        >>> import keras
        >>> learner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> learner.compile("sgd", "mse")
        >>> learner.policy = learner
        >>> actor, ones = Actor(learner), np.ones((3, 2), "float32")
        >>> before = actor("policy", ones)
        >>> history = learner.fit(ones, ones[:, :1] + 5, verbose=0)
        >>> bool((actor("policy", ones) > before).all())
        True
    """

    def __init__(self, learner, padded=False):
        self.learner, self.padded = learner, padded
        self._networks, self._copied_at, self._held = {}, None, False

    def __call__(self, name, observations):
        """Outputs of a network without a memory.

        Args:
            name: String, the attribute of the learner that the network is.
            observations: Float32 array ``(batch, ...)``.

        Returns:
            Float32 array, or a list of them, as the network gives it.
        """
        return self._current(name)(observations)

    def step(self, name, observations, states=None):
        """Outputs of any network, and the states of its memory after them.

        Args:
            name: String, the attribute of the learner that the network is.
            observations: Float32 array ``(batch, ...)``.
            states: Float32 array ``(batch, units)``, or None where episodes begin.

        Returns:
            ``(outputs, states)``; the states are None if there is no memory.
        """
        network = self._current(name)
        if network.units is None:
            return network(observations), None
        if states is None:
            states = self.zeros(name, len(observations))
        return network(observations, states)

    def zeros(self, name, count):
        """The states in which episodes begin.

        Args:
            name: String, the attribute of the learner that the network is.
            count: Integer, how many.

        Returns:
            Float32 array ``(count, units)``.
        """
        return np.zeros((count, self._current(name).units), "float32")

    @contextlib.contextmanager
    def held(self):
        """While nothing learns: copy the weights now, whoever set them, and keep them.

        Returns:
            Context manager.
        """
        before, self._held, self._copied_at = self._held, True, None
        try:
            self._copy()
            yield
        finally:
            self._held = before

    def _current(self, name):
        if not self._held:
            self._copy()
        if name not in self._networks:
            self._networks[name] = in_numpy(getattr(self.learner, name), self.padded)
        return self._networks[name]

    def _copy(self):
        """Copy the weights anew if they have learned, or were never copied."""
        optimizer = self.learner.optimizer
        parts = getattr(optimizer, "optimizers", None) or [optimizer]
        now = [(part, int(part.iterations.value)) for part in parts]
        if now != self._copied_at:
            for network in self._networks.values():
                network.refresh()
            self._copied_at = now
