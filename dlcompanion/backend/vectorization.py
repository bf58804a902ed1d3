"""One function for a whole stack of arguments."""

import keras


def vectorize(fn, unroll=False):
    """Map ``fn`` over the leading axis of everything that it is given.

    This is ``jax.vmap``, ``tf.vectorized_map`` and ``torch.func.vmap``. What ``fn``
    takes from around it is the same for every entry. It must not assign variables.

    Args:
        fn: Function of structures of tensors that returns a structure of tensors.
        unroll: Boolean, whether to write the calls one after another instead.

    Returns:
        A function of the same structures, each tensor with one more axis in front.

    Example:
        >>> total = vectorize(lambda a, b: keras.ops.sum(a * b))
        >>> ones = keras.ops.ones((2, 3))
        >>> keras.ops.convert_to_numpy(total(ones, ones))
        array([3., 3.], dtype=float32)
    """

    def one_by_one(*args):
        count = keras.tree.flatten(args)[0].shape[0]
        results = [
            fn(*keras.tree.map_structure(lambda a, n=n: a[n], args))
            for n in range(count)
        ]
        return keras.tree.map_structure(lambda *a: keras.ops.stack(a), *results)

    if unroll:
        return one_by_one
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return lambda *args: tf.vectorized_map(lambda packed: fn(*packed), args)
    if name == "jax":
        import jax

        return jax.vmap(fn)
    import torch

    return torch.func.vmap(fn)
