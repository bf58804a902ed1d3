"""Sphinx inventories of the libraries that the book links to, from what is installed.

keras.io has no inventory, and a build must not need a network. So the names come
from the installed packages and the addresses from each site's own rule. An inventory
is made anew when the version of its package changes. What is written is Sphinx's
plain-text inventory, version 1.
"""

import builtins
import importlib
import importlib.metadata
import inspect
import sys

HEAD = "# Sphinx inventory version 1\n"
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
EXCEPTION_PAGE = "library/exceptions.html"


def write(folder):
    """Write all inventories into `folder`; returns Sphinx's intersphinx_mapping."""
    folder.mkdir(exist_ok=True)
    mapping = {}
    for package, (site, make) in LIBRARIES.items():
        file = folder / f"{package}.inv"
        mapping[package] = (site, f"_inv/{package}.inv")
        if package == "python":
            version = sys.version.split()[0]
        else:
            version = importlib.metadata.version(DISTRIBUTIONS.get(package, package))
        head = f"{HEAD}# Project: {package}\n# Version: {version}\n"
        if file.exists() and file.read_text().startswith(head):
            continue
        lines = (f"{name} {role} {page}\n" for name, role, page in sorted(set(make())))
        file.write_text(head + "".join(lines))
    return mapping


def public(module, depth=0):
    """Yield (full name, object) of what a module shows, `depth` levels down."""
    for name in dir(module):
        if name.startswith("_") or name == "src":
            continue
        try:
            value = getattr(module, name)
        except (AttributeError, ImportError):
            continue
        full = f"{module.__name__}.{name}"
        if inspect.ismodule(value):
            if depth and value.__name__.startswith(module.__name__ + "."):
                yield full, value
                yield from public(value, depth - 1)
        else:
            yield full, value


def role(value):
    if inspect.ismodule(value):
        return "mod"
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if callable(value) else "data"


def _python():
    for name, value in vars(builtins).items():
        if inspect.isclass(value) and issubclass(value, BaseException):
            yield name, "exception", EXCEPTION_PAGE
        elif inspect.isclass(value):
            yield name, "class", "library/functions.html"
        elif callable(value) and not name.startswith("_"):
            yield name, "function", "library/functions.html"
    for name in ("pathlib", "collections.abc", "typing"):
        for full, value in public(importlib.import_module(name)):
            yield full, role(value), f"library/{name}.html"


def _keras():
    import keras

    yield "keras", "mod", "keras"
    for full, value in public(keras, depth=3):
        page = full.removeprefix("keras.").replace(".", "/")
        yield full, role(value), f"keras/{page}"
        if inspect.isclass(value):
            for name, _ in inspect.getmembers(value, callable):
                if not name.startswith("_"):
                    yield f"{full}.{name}", "method", f"keras/{page}"


def _numpy():
    import numpy

    for full, value in public(numpy):
        yield full, role(value), f"reference/generated/{full}.html"
    for full, value in public(numpy.linalg):
        yield full, role(value), f"reference/generated/{full}.html"
    yield "numpy.random.default_rng", "function", "reference/random/generator.html"
    yield "numpy.random.Generator", "class", "reference/random/generator.html"


def _matplotlib():
    for name in ("matplotlib.pyplot", "matplotlib.animation"):
        for full, value in public(importlib.import_module(name)):
            if getattr(value, "__module__", "").startswith("matplotlib"):
                yield full, role(value), f"api/_as_gen/{full}.html"


def _sklearn():
    for name in ("cluster", "datasets", "decomposition", "linear_model", "manifold"):
        module = importlib.import_module(f"sklearn.{name}")
        for full, value in public(module):
            yield full, role(value), f"modules/generated/{full}.html"
    for name in ("metrics", "model_selection", "neighbors"):
        module = importlib.import_module(f"sklearn.{name}")
        for full, value in public(module):
            yield full, role(value), f"modules/generated/{full}.html"


def _networkx():
    import networkx

    for full, value in public(networkx):
        if inspect.isfunction(value):
            home = f"{value.__module__}.{value.__name__}"
            yield full, "function", f"reference/generated/{home}.html"


def _gymnasium():
    yield "gymnasium.make", "function", "api/registry/"
    yield "gymnasium.make_vec", "function", "api/registry/"
    yield "gymnasium.Env", "class", "api/env/"
    yield "gymnasium.Wrapper", "class", "api/wrappers/"
    yield "gymnasium.spaces.Box", "class", "api/spaces/fundamental/"
    yield "gymnasium.spaces.Discrete", "class", "api/spaces/fundamental/"


LIBRARIES = {
    "python": ("https://docs.python.org/3/", _python),
    "keras": ("https://www.tensorflow.org/api_docs/python/tf/", _keras),
    "numpy": ("https://numpy.org/doc/stable/", _numpy),
    "matplotlib": ("https://matplotlib.org/stable/", _matplotlib),
    "sklearn": ("https://scikit-learn.org/stable/", _sklearn),
    "networkx": ("https://networkx.org/documentation/stable/", _networkx),
    "gymnasium": ("https://gymnasium.farama.org/", _gymnasium),
}
