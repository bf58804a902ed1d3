"""The deep-learning textbook that one can pip install."""

__version__ = "0.1.0"

import importlib
import sys
from importlib.machinery import PathFinder

from dlcompanion import paths, startup

if not startup.is_command_line():
    startup.import_keras()
    # every chapter: Keras's load_model finds a class when its module was imported
    from dlcompanion import (
        generative,
        graphs,
        losses,
        optimization,
        regularization,
        reinforcement,
        uncertainty,
    )

__all__ = [
    "generative",
    "graphs",
    "losses",
    "optimization",
    "regularization",
    "reinforcement",
    "uncertainty",
]

sys.meta_path.append(paths.WrongPathFinder(__all__))


def __getattr__(name):
    """Import a module that was not imported yet; a wrong path tells the right one."""
    if not name.startswith("_"):
        if PathFinder.find_spec(f"dlcompanion.{name}", __path__):
            return importlib.import_module(f"dlcompanion.{name}")
        message = paths.explain(name, __all__)
        if message:
            raise AttributeError(message)
    raise AttributeError(f"module 'dlcompanion' has no attribute {name!r}")
