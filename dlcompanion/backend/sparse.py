"""Sums over the edges of a graph, fast on each backend."""

import functools
import warnings

import keras
import numpy as np


def segment_sum(data, segment_ids, num_segments):
    """Sum the rows of ``data`` that have the same segment, on any backend.

    Keras's own op has a detour through float32 on PyTorch, and is slow there.

    Args:
        data: Float tensor of shape ``(rows, ...)``.
        segment_ids: Integer tensor of shape ``(rows,)``, in any order.
        num_segments: Integer.

    Returns:
        Tensor of shape ``(num_segments, ...)``; an empty segment sums to 0.

    Example:
        >>> sums = segment_sum(keras.ops.ones((3, 1)), np.array([0, 0, 2]), 3)
        >>> keras.ops.convert_to_numpy(sums)[:, 0]
        array([2., 0., 1.], dtype=float32)
    """
    if keras.backend.backend() != "torch":
        return keras.ops.segment_sum(data, segment_ids, num_segments=num_segments)
    sums = data.new_zeros((num_segments, *data.shape[1:]))
    return sums.index_add(0, keras.ops.convert_to_tensor(segment_ids), data)


class SparseMatrix:
    """A constant sparse matrix that multiplies dense tensors from the left, fast.

    The entries are sorted once. On TensorFlow and JAX a product gathers rows and sums
    them, which XLA compiles well; on PyTorch it is a product in compressed rows, with
    the compressed transpose kept for the gradient. The gradient is a product of the
    same kind, so that products are differentiable as often as one likes.

    Args:
        rows: Integer array of shape ``(entries,)``.
        columns: Integer array of shape ``(entries,)``.
        values: Float array of shape ``(entries,)``; entries of one place add up.
        shape: Tuple of two integers.

    Example:
        >>> matrix = SparseMatrix([0, 2], [1, 1], [2.0, 3.0], (3, 2))
        >>> keras.ops.convert_to_numpy(matrix @ keras.ops.ones((2, 1)))[:, 0]
        array([2., 0., 3.], dtype=float32)
    """

    def __init__(self, rows, columns, values, shape):
        order = np.lexsort((columns, rows))
        self.rows = np.asarray(rows, "int32")[order]
        self.columns = np.asarray(columns, "int32")[order]
        self.values = np.asarray(values, "float32")[order]
        self.shape = tuple(shape)
        self._compressed = {}  # PyTorch: the matrix and its transpose, by device, dtype

    def __matmul__(self, dense):
        """Product with a tensor of shape ``(columns, ...)``."""
        if keras.backend.backend() == "torch":
            return self._torch_matmul(dense)
        values = keras.ops.cast(self.values, dense.dtype)
        values = keras.ops.reshape(values, (-1,) + (1,) * (len(dense.shape) - 1))
        messages = keras.ops.take(dense, self.columns, axis=0) * values
        return keras.ops.segment_sum(messages, self.rows, num_segments=self.shape[0])

    def _torch_matmul(self, dense):
        trailing = tuple(dense.shape[1:])
        if dense.device.type == "meta":  # Keras asks for the shape only
            return dense.new_empty((self.shape[0], *trailing))
        key = (dense.device, dense.dtype)
        if key not in self._compressed:
            matrix = _torch_csr(self.rows, self.columns, self.values, self.shape, key)
            order = np.lexsort((self.rows, self.columns))
            transposed = (self.columns, self.rows, self.values)
            transposed = [entries[order] for entries in transposed]
            transpose = _torch_csr(*transposed, self.shape[::-1], key)
            self._compressed[key] = matrix, transpose
        flat = dense.reshape(dense.shape[0], -1)
        product = _torch_product()(flat, *self._compressed[key])
        return product.reshape(self.shape[0], *trailing)


def _torch_csr(rows, columns, values, shape, key):
    import torch

    starts = np.searchsorted(rows, np.arange(shape[0] + 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)  # "is in beta state"
        return torch.sparse_csr_tensor(
            torch.as_tensor(starts),
            torch.as_tensor(columns, dtype=torch.int64),
            torch.as_tensor(values),
            shape,
            device=key[0],
            dtype=key[1],
        )


@functools.cache
def _torch_product():
    import torch

    class Product(torch.autograd.Function):
        """``matrix @ dense``, whose gradient is such a product again."""

        @staticmethod
        def forward(ctx, dense, matrix, transpose):
            ctx.matrix, ctx.transpose = matrix, transpose
            return matrix @ dense

        @staticmethod
        def backward(ctx, gradient):
            product = Product.apply(gradient, ctx.transpose, ctx.matrix)
            return product, None, None

    return Product.apply
