"""Numbers that need the range and the digits of float32, under every dtype policy."""

import keras
from keras import ops


def at_least_float32(dtype):
    """The dtype itself, but float32 in place of a narrower one.

    Args:
        dtype: String or dtype of a backend.

    Returns:
        String.

    Example:
        >>> at_least_float32("bfloat16"), at_least_float32("float64")
        ('float32', 'float64')
    """
    # not keras.backend.result_type, which makes float32 of float64 on PyTorch
    wide = keras.backend.standardize_dtype(dtype) == "float64"
    return "float64" if wide else "float32"


def widen(x):
    """A tensor in float32, or in the wider dtype that it has.

    Sums, squares and densities lose their digits in half precision. And TensorFlow
    adds no float32 to a float64: what is computed under ``floatx`` float64 must be of
    one dtype, and float64 everywhere.

    Args:
        x: Tensor.

    Returns:
        Tensor.

    Example:
        >>> widen(ops.ones(2, "float16")).dtype == ops.ones(2, "float32").dtype
        True
    """
    return ops.cast(x, at_least_float32(x.dtype))
