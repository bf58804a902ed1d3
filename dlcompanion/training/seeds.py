"""SavesSeeds: random layers that continue their sequence after loading."""

import keras
import numpy as np


class SavesSeeds:
    """Mixin that saves the seed generators of a layer or model with its weights.

    Keras does not save the state of a :class:`keras.random.SeedGenerator`, so that a
    reloaded layer draws other numbers than the one that was saved would have drawn.
    Written before the Keras class, this mixin stores the state of each seed generator
    that is an attribute of this object (those of sub-layers are stored by the
    sub-layers).

    Files without seeds, from before the mixin was added, load as they did.

    Example:
        >>> class Shaken(SavesSeeds, keras.layers.Layer):
        ...     def __init__(self, **kwargs):
        ...         super().__init__(**kwargs)
        ...         self.seed_generator = keras.random.SeedGenerator(1)
        ...
        ...     def call(self, inputs):
        ...         return inputs + keras.random.normal(
        ...             keras.ops.shape(inputs), seed=self.seed_generator
        ...         )
        >>> store = {}
        >>> Shaken().save_own_variables(store)
        >>> list(store)
        ['seed_generator_0']
    """

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for n, generator in enumerate(_generators(self)):
            store[f"seed_generator_{n}"] = keras.ops.convert_to_numpy(generator.state)

    def load_own_variables(self, store):
        seeds = {k: store[k] for k in store.keys() if k.startswith("seed_generator_")}
        super().load_own_variables(
            {k: store[k] for k in store.keys() if k not in seeds}
        )
        if not seeds:
            return
        generators = _generators(self)
        if len(seeds) != len(generators):
            raise ValueError(
                f"{self.name} must have as many seed generators as were saved. "
                f"Received: saved={len(seeds)}, present={len(generators)}"
            )
        for n, generator in enumerate(generators):
            state = np.asarray(seeds[f"seed_generator_{n}"])
            generator.state.assign(state.astype(generator.state.dtype))


def _generators(layer):
    """The seed generators that are attributes of this object, by name."""
    found = {
        id(value): value
        for _, value in sorted(vars(layer).items(), key=lambda item: item[0])
        if isinstance(value, keras.random.SeedGenerator)
    }
    return list(found.values())
