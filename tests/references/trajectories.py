"""What the scripts of optimizers share: a walk on given gradients, and its file.

The gradients are fixed, independent of the parameters, so that a trajectory tests the
update rule alone. A file has

in/p0, in/p1, ...      first parameters
in/g0, in/g1, ...      a gradient of each at every step
out/<case>/0, 1, ...   parameters after every step
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np


def with_optax(optimizer, start, gradients, give=None, take=np.array):
    """The parameters after each step of an optimizer of optax.

    Args:
        optimizer: What optax made.
        start: List of arrays, the first parameters.
        gradients: List of arrays, one for each parameter, with the steps first.
        give: Function from an array to what the optimizer gets; ``jnp.array``.
        take: Function from what the optimizer gave back to an array.

    Returns:
        List over the steps of lists of arrays.
    """
    import jax.numpy as jnp
    import optax

    give = give or jnp.array
    params = [give(p) for p in start]
    state, path = optimizer.init(params), []
    for grads in zip(*gradients, strict=True):
        updates, state = optimizer.update([give(g) for g in grads], state, params)
        params = optax.apply_updates(params, updates)
        path.append([take(p) for p in params])
    return path


def with_torch(make, start, gradients, give=np.array):
    """The parameters after each step of an optimizer of PyTorch.

    Args:
        make: Function from the list of parameters to the optimizer.
        start: List of arrays, the first parameters.
        gradients: List of arrays, one for each parameter, with the steps first.
        give: Function from an array to a copy as the optimizer wants it, which is its
            own inverse, such as the transpose.

    Returns:
        List over the steps of lists of arrays.
    """
    import torch

    params = [torch.nn.Parameter(torch.tensor(give(p))) for p in start]
    optimizer, path = make(params), []
    for grads in zip(*gradients, strict=True):
        for p, g in zip(params, grads, strict=True):
            p.grad = torch.tensor(give(g))
        optimizer.step()
        path.append([give(p.detach().numpy()) for p in params])
    return path


def write(script, libraries, start, gradients, cases, **meta):
    """Write the file of a script ``make_<topic>.py``, beside it.

    Args:
        script: ``__file__`` of the script.
        libraries: Names of the distributions whose versions go into the file.
        start: List of arrays.
        gradients: List of arrays.
        cases: Dict from the name of a case to its path.
        **meta: Numbers that tests read.
    """
    arrays = {f"in/p{i}": p for i, p in enumerate(start)}
    arrays |= {f"in/g{i}": g for i, g in enumerate(gradients)}
    for case, path in cases.items():
        for i in range(len(start)):
            arrays[f"out/{case}/{i}"] = np.stack([step[i] for step in path])
    meta["libraries"] = {name: version(name) for name in libraries}
    script = Path(script)
    file = script.with_name(script.stem.removeprefix("make_") + ".npz")
    np.savez_compressed(file, meta=json.dumps(meta), **arrays)
