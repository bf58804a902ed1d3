"""Wrong import paths tell the right one.

There is one path to a component: its chapter. ``dlcompanion.DropBlock2D``, ``from
dlcompanion import DropBlock2D``, ``from dlcompanion.losses import DropBlock2D`` and
``dlcompanion.layers`` fail with a message that names it. An ``import`` statement
swallows the text of an AttributeError and then looks for a module of that name, so its
message comes from a finder at the end of ``sys.meta_path``, which is asked for nothing
but names that no file provides.
"""

import importlib

#: Other libraries sort by kind; for each kind, the Keras class that makes it one.
KINDS = {
    "layers": "layers.Layer",
    "models": "Model",
    "optimizers": "optimizers.Optimizer",
    "schedules": "optimizers.schedules.LearningRateSchedule",
    "callbacks": "callbacks.Callback",
    "metrics": "metrics.Metric",
    "initializers": "initializers.Initializer",
    "regularizers": "regularizers.Regularizer",
    "constraints": "constraints.Constraint",
}


def explain(name, chapters):
    """Say where a public name is that was looked for in the wrong place.

    Args:
        name: String, for example ``"DropBlock2D"`` or ``"layers"``.
        chapters: Strings, the chapters of the package.

    Returns:
        String, or ``None`` if nothing public has this name or one near it.

    Example:
        >>> print(explain("TripletAll", ["losses"]))
        TripletAll is in dlcompanion.losses: from dlcompanion.losses import TripletAll
    """
    if name.startswith("_"):
        return None
    modules = {c: importlib.import_module(f"dlcompanion.{c}") for c in chapters}
    where = {n: c for c, m in modules.items() for n in getattr(m, "__all__", ())}
    if name in where:
        path = f"dlcompanion.{where[name]}"
        return f"{name} is in {path}: from {path} import {name}"
    if name in KINDS:
        lines = [f"There is no dlcompanion.{name}: every component is in its chapter."]
        for chapter, module in modules.items():
            here = [n for n in getattr(module, "__all__", ()) if _is(name, module, n)]
            if here:
                lines.append(f"from dlcompanion.{chapter} import {', '.join(here)}")
        return "\n  ".join(lines)
    import difflib

    near = difflib.get_close_matches(name, [*chapters, *where], n=1, cutoff=0.75)
    if not near:
        return None
    path = f"dlcompanion.{near[0]}"
    if near[0] in where:
        path = f"dlcompanion.{where[near[0]]}.{near[0]}"
    return f"dlcompanion has no {name!r}. Did you mean {path}?"


def _is(kind, module, name):
    """Whether a public name of a chapter is a class of a kind."""
    keras = base = importlib.import_module("keras")
    for part in KINDS[kind].split("."):
        base = getattr(base, part)
    thing = getattr(module, name, None)
    if not isinstance(thing, type) or not issubclass(thing, base):
        return False
    # a model is a layer to Keras, and not what somebody who says "layers" wants
    return kind != "layers" or not issubclass(thing, keras.Model)


class WrongPathFinder:
    """Finder of ``sys.meta_path`` that finds nothing, and says where to look.

    Args:
        chapters: Strings, the chapters of the package.

    Example:
        >>> WrongPathFinder(["losses"]).find_spec("numpy.nothing") is None
        True
    """

    def __init__(self, chapters):
        self.chapters = tuple(chapters)

    def find_spec(self, fullname, path=None, target=None):
        """Raise where the right path is known, and otherwise leave it to Python.

        Args:
            fullname: String, the module that no other finder found.
            path: Not used.
            target: Not used.

        Returns:
            ``None``.

        Raises:
            ModuleNotFoundError: With the right path.
        """
        if not fullname.startswith("dlcompanion."):
            return None
        package, *parents, name = fullname.split(".")
        if package == "dlcompanion" and (not parents or parents[0] in self.chapters):
            message = explain(name, self.chapters)
            if message:
                # without name=: Python would swallow it again
                raise ModuleNotFoundError(message)
        return None
