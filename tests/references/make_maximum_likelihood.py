"""Values and gradients of likelihood losses from PyTorch and scikit-learn."""

import json
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.metrics import mean_pinball_loss
from torch import distributions as D

generator = torch.Generator().manual_seed(0)
y = torch.randn(6, 2, generator=generator)
two = torch.randn(6, 4, generator=generator)
mixture = torch.randn(6, 3 * 5, generator=generator)
arrays = {"in/y": y.numpy(), "in/two": two.numpy(), "in/mixture": mixture.numpy()}


def split(params):
    mean, rho = params.chunk(2, dim=-1)
    return mean, torch.nn.functional.softplus(rho) + 1e-5


def gaussian(params):
    mean, scale = split(params)
    loss = torch.nn.GaussianNLLLoss(full=True, eps=1e-12, reduction="none")
    return loss(mean, y, scale**2).sum(-1)


def student(params):
    mean, scale = split(params)
    return -D.StudentT(3.0, mean, scale).log_prob(y).sum(-1)


def beta(params):  # as in the code of Seitzer et al., and the constant
    mean, scale = split(params)
    variance = scale**2
    loss = 0.5 * ((y - mean) ** 2 / variance + variance.log() + np.log(2 * np.pi))
    return (loss * variance.detach() ** 0.5).sum(-1)


def mixed(params):
    mean, scale = split(params[:, 3:].reshape(6, 3, 4))
    each = D.Independent(D.Normal(mean, scale), 1)
    weights = D.Categorical(logits=params[:, :3])
    return -D.MixtureSameFamily(weights, each).log_prob(y)


cases = {"gaussian": gaussian, "student": student, "beta": beta, "mixture": mixed}
for name, f in cases.items():
    leaf = (mixture if name == "mixture" else two).clone().requires_grad_(True)
    values = f(leaf)
    values.sum().backward()
    arrays[f"out/{name}"] = values.detach().numpy()
    arrays[f"g/{name}"] = leaf.grad.numpy()
levels = [0.1, 0.5, 0.95]
arrays["out/quantile"] = np.array(
    [
        mean_pinball_loss(y.numpy()[:, 0], two.numpy()[:, i], alpha=level)
        for i, level in enumerate(levels)
    ]
)
versions = {"torch": torch.__version__, "scikit-learn": sklearn.__version__}
arrays["meta"] = np.array(json.dumps({"libraries": versions, "quantiles": levels}))
path = Path(__file__).with_name("maximum_likelihood.npz")
np.savez_compressed(path, **arrays)
print(path.name, path.stat().st_size, "bytes")
