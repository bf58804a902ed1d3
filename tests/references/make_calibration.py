"""Vectors of calibration: netcal, scikit-learn, betacal, torchmetrics, relplot, SciPy.

Each library fits or measures the same logits. netcal's ``temperature`` is 1 / T.
"""

import contextlib
import io
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import relplot
import torch
import torchmetrics.functional.classification as tm
from betacal import BetaCalibration
from netcal.metrics import ACE, ECE, MCE
from netcal.scaling import TemperatureScaling
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss

rng = np.random.default_rng(3)
n, classes = 400, 4
logits = rng.normal(0, 2, (n, classes)).astype("float32")
tilt = np.array([0.6, 0.3, 0.4, 0.5]) * logits + [0.0, 0.4, -0.2, 0.1]
labels = (tilt + rng.gumbel(size=logits.shape)).argmax(axis=1)
z = logits.astype("float64")
p = softmax(z, axis=1)
out = {}


def optimum(to_logits, size, start, penalty=lambda theta: 0.0):
    """SciPy's minimum of the negative log-likelihood."""

    def loss(theta):
        log_p = log_softmax(to_logits(theta), axis=1)
        return -log_p[np.arange(n), labels].mean() + penalty(theta)

    best = minimize(loss, start, method="BFGS", options={"gtol": 1e-7})
    return softmax(to_logits(best.x), axis=1), best.x


out["temperature"], theta = optimum(lambda t: z / t[0], 1, [1.0])
out["T"] = theta[0]
out["vector"], _ = optimum(
    lambda t: z * t[:classes] + t[classes:],
    2 * classes,
    np.concatenate([np.ones(classes), np.zeros(classes)]),
)
off = ~np.eye(classes, dtype=bool)


def odir(theta):
    w, b = theta[:-classes].reshape(classes, classes), theta[-classes:]
    return 0.01 * ((w[off] ** 2).mean() + (b**2).mean())


out["matrix"], _ = optimum(
    lambda t: z @ t[:-classes].reshape(classes, classes).T + t[-classes:],
    classes * (classes + 1),
    np.concatenate([np.eye(classes).reshape(-1), np.zeros(classes)]),
    odir,
)
netcal = TemperatureScaling()
with contextlib.redirect_stderr(io.StringIO()):
    netcal.fit(p, labels)
out["netcal/T"] = 1 / np.ravel(netcal.temperature)[0]

others = [logsumexp(np.delete(z, k, axis=1), axis=1) for k in range(classes)]
scores = z - np.stack(others, axis=1)  # log-odds of each class
platt, isotonic, beta = [], [], []
for k in range(classes):
    truth = (labels == k).astype("float64")
    platt.append(_SigmoidCalibration().fit(scores[:, k], truth).predict(scores[:, k]))
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    isotonic.append(fitted.fit(scores[:, k], truth).predict(scores[:, k]))
    beta.append(BetaCalibration("abm").fit(p[:, k], truth).predict(p[:, k]))
for name, columns in {"platt": platt, "isotonic": isotonic, "beta": beta}.items():
    columns = np.stack(columns, axis=1)
    out[name] = columns / columns.sum(axis=1, keepdims=True)

# one class against the rest, as a column: the binary metrics
column, hit = p[:, 1], (labels == 1).astype("int64")
for norm in ("l1", "max"):
    out[f"torchmetrics/{norm}"] = tm.multiclass_calibration_error(
        torch.tensor(p), torch.tensor(labels), classes, n_bins=15, norm=norm
    )
    out[f"torchmetrics/binary/{norm}"] = tm.binary_calibration_error(
        torch.tensor(column), torch.tensor(hit), n_bins=10, norm=norm
    )
out["netcal/ece"] = ECE(15).measure(p, labels)
out["netcal/mce"] = MCE(15).measure(p, labels)
out["netcal/ace"] = ACE(15).measure(p, labels)
out["smooth"] = relplot.smECE(column, hit, eps=1e-4)
out["smooth/top"] = relplot.smECE(
    p.max(1), (p.argmax(1) == labels).astype("float64"), eps=1e-4
)
out["brier"] = np.sum((p - np.eye(classes)[labels]) ** 2, axis=1).mean()
out["brier/binary"] = brier_score_loss(hit, column)

packages = ("netcal", "torchmetrics", "scikit-learn", "betacal", "relplot", "scipy")
arrays = {"in/logits": logits, "in/labels": labels}
arrays |= {f"out/{name}": np.asarray(value) for name, value in out.items()}
arrays["meta"] = np.array(json.dumps({k: version(k) for k in packages}))
path = Path(__file__).with_name("calibration.npz")
np.savez_compressed(path, **arrays)
print(path.name, path.stat().st_size, "bytes")
for name, value in out.items():
    print(f"{name:22s}", np.round(np.ravel(value)[:4], 6))
