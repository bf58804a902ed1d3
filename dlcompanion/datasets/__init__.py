"""Small data for experiments: NumPy arrays, seeded, without a network.

Every function takes a ``seed``, returns NumPy arrays of fixed dtypes (``float32``
for measurements, ``int32`` for labels and indices) and gives the same arrays for the
same arguments every time.
"""

from dlcompanion.datasets.digits import digits
from dlcompanion.datasets.graphs import Graph, karate_club, stochastic_block_model
from dlcompanion.datasets.sequences import adding, copy_sequence, reverse_sequence
from dlcompanion.datasets.shapes import Shapes, shapes
from dlcompanion.datasets.toy import blobs, rings, spirals, two_moons

__all__ = [
    "Graph",
    "Shapes",
    "adding",
    "blobs",
    "copy_sequence",
    "digits",
    "karate_club",
    "reverse_sequence",
    "rings",
    "shapes",
    "spirals",
    "stochastic_block_model",
    "two_moons",
]
