"""Vectors of the Laplace approximation, from scikit-learn's BayesianRidge.

For linear regression the Laplace approximation is exact, and maximizing the evidence
is what BayesianRidge does: prior precision, noise, log-evidence and predictive
standard deviations have to agree.
"""

import json
from pathlib import Path

import numpy as np
import sklearn
from sklearn.linear_model import BayesianRidge

TINY = 1e-15  # of its hyperpriors, which have no counterpart


def main():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 3))
    y = x @ [1.0, -2.0, 0.3] + 0.7 * rng.normal(size=40)
    x_new = 3 * rng.normal(size=(9, 3))
    model = BayesianRidge(
        max_iter=10000,
        tol=1e-13,
        alpha_1=TINY,
        alpha_2=TINY,
        lambda_1=TINY,
        lambda_2=TINY,
        compute_score=True,
        fit_intercept=False,
    ).fit(x, y)
    mean, deviation = model.predict(x_new, return_std=True)
    np.savez_compressed(
        Path(__file__).with_name("laplace.npz"),
        **{
            "in/x": x,
            "in/y": y,
            "in/x_new": x_new,
            "weights/kernel": model.coef_[:, None],
            "out/prior": model.lambda_,
            "out/noise": model.alpha_**-0.5,
            "out/log_evidence": model.scores_[-1],
            "out/covariance": model.sigma_,
            "out/mean": mean,
            "out/deviation": deviation,
            "meta": json.dumps(
                {"scikit-learn": sklearn.__version__, "model": "BayesianRidge"}
            ),
        },
    )


if __name__ == "__main__":
    main()
