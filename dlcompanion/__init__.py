"""The deep-learning textbook that one can pip install."""

__version__ = "0.1.0"

from dlcompanion import (
    generative,
    graphs,
    losses,
    optimization,
    regularization,
    reinforcement,
)

__all__ = [
    "generative",
    "graphs",
    "losses",
    "optimization",
    "regularization",
    "reinforcement",
]
