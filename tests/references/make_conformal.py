"""Vectors of conformal prediction, from MAPIE.

Estimators whose features are their outputs, so that only the conformal part is left.
MAPIE's adaptive sets are not used: their scores are made less by a random share of the
last label (``mapie/conformity_scores/sets/aps.py``), where ours are not randomized.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from mapie.classification import SplitConformalClassifier
from mapie.regression import ConformalizedQuantileRegressor, SplitConformalRegressor
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

rng = np.random.default_rng(5)
classes, n = 5, 203


class Column(RegressorMixin, BaseEstimator):
    """Predicts one of the features."""

    def __init__(self, column=0):
        self.column = column
        self.n_features_in_ = 3
        self.fitted_ = True

    def fit(self, x, y):
        return self

    def predict(self, x):
        return np.asarray(x)[:, self.column]


class Features(ClassifierMixin, BaseEstimator):
    """Predicts its features as probabilities."""

    def __init__(self):
        self.classes_ = np.arange(classes)
        self.n_features_in_ = classes
        self.fitted_ = True

    def fit(self, x, y):
        return self

    def predict_proba(self, x):
        return np.asarray(x)

    def predict(self, x):
        return np.asarray(x).argmax(axis=1)


p = softmax(rng.normal(0, 1.5, (n, classes)), axis=1)
labels = (np.log(p) + rng.gumbel(size=p.shape)).argmax(axis=1)
new = softmax(rng.normal(0, 1.5, (40, classes)), axis=1)
out = {}
mapie = SplitConformalClassifier(
    Features(), confidence_level=0.8, prefit=True, conformity_score="lac"
)
mapie.conformalize(p, labels)
out["lac"] = mapie.predict_set(new)[1][:, :, 0]

middle = rng.normal(size=n)
noise = rng.normal(size=n) * (1 + np.abs(middle))
columns = np.stack([middle, middle - 0.5, middle + 0.7], axis=1)
y = middle + noise
new_columns = np.stack([middle, middle - 0.3, middle + 0.9], axis=1)[:40]
mapie = SplitConformalRegressor(Column(), confidence_level=0.9, prefit=True)
mapie.conformalize(columns, y)
out["absolute"] = mapie.predict_interval(new_columns)[1][:, :, 0]
mapie = ConformalizedQuantileRegressor(
    [Column(1), Column(2), Column(0)], confidence_level=0.9, prefit=True
)
mapie.conformalize(columns, y)
out["cqr"] = mapie.predict_interval(new_columns, symmetric_correction=True)[1][:, :, 0]

arrays = {"in/p": p, "in/labels": labels, "in/new": new}
arrays |= {"in/columns": columns, "in/y": y, "in/new_columns": new_columns}
arrays |= {f"out/{name}": value for name, value in out.items()}
arrays["meta"] = np.array(json.dumps({"MAPIE": version("mapie"), "alpha": [0.2, 0.1]}))
path = Path(__file__).with_name("conformal.npz")
np.savez_compressed(path, **arrays)
print(path.name, path.stat().st_size, "bytes")
for name, value in out.items():
    print(name, value[:2].tolist(), value.mean())
