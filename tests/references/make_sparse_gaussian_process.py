"""A sparse variational Gaussian process of TFP, and an exact one of scikit-learn.

Run in an environment with tensorflow, tensorflow-probability and scikit-learn.
"""

import json
from pathlib import Path

import numpy as np
import sklearn
import tensorflow_probability as tfp
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

rng = np.random.default_rng(0)
x, x_new = rng.normal(size=(12, 2)), rng.normal(size=(5, 2))
y = np.sin(2 * x[:, 0]) + 0.1 * rng.normal(size=12)
z = rng.normal(size=(4, 2))
mean = rng.normal(size=4)
factor = np.tril(0.5 * rng.normal(size=(4, 4)), -1) + np.diag([0.5, 1.0, 0.7, 0.3])
lengths, amplitude, noise, constant, jitter = [0.8, 1.5], 1.3, 0.2, 0.4, 1e-5

kernel = tfp.math.psd_kernels.FeatureScaled(
    tfp.math.psd_kernels.ExponentiatedQuadratic(np.float64(amplitude)),
    scale_diag=np.array(lengths),
)
k_zz = kernel.matrix(z, z).numpy() + amplitude**2 * jitter * np.eye(4)
lower = np.linalg.cholesky(k_zz)
process = tfp.distributions.VariationalGaussianProcess(
    kernel,
    x,
    inducing_index_points=z,
    variational_inducing_observations_loc=constant + lower @ mean,
    variational_inducing_observations_scale=lower @ factor,
    mean_fn=lambda points: np.float64(constant),
    observation_noise_variance=np.float64(noise**2),
    predictive_noise_variance=np.float64(0.0),
    jitter=amplitude**2 * jitter,
)
loss = process.variational_loss(y, kl_weight=1.0)

exact = GaussianProcessRegressor(
    ConstantKernel(amplitude**2) * RBF(lengths) + WhiteKernel(noise**2),
    optimizer=None,
    alpha=0.0,
).fit(x, y)
exact_mean, exact_std = exact.predict(x_new, return_std=True)

arrays = {
    "in/x": x, "in/y": y, "in/x_new": x_new, "in/z": z, "in/mean": mean,
    "in/factor": factor,
    "out/mean": process.mean().numpy(), "out/variance": process.variance().numpy(),
    "out/loss": loss.numpy(),
    "out/evidence": np.array(exact.log_marginal_likelihood_value_),
    "out/exact_mean": exact_mean, "out/exact_std": exact_std,
}  # fmt: skip
arrays = {name: np.asarray(value, "float32") for name, value in arrays.items()}
arrays["meta"] = np.array(
    json.dumps(
        {
            "libraries": {"tfp": tfp.__version__, "scikit-learn": sklearn.__version__},
            "lengths": lengths,
            "amplitude": amplitude,
            "noise": noise,
            "constant": constant,
            "jitter": jitter,
        }
    )
)
path = Path(__file__).with_name("sparse_gaussian_process.npz")
np.savez_compressed(path, **arrays)
print(path.name, path.stat().st_size, "bytes")
print({k: v for k, v in arrays.items() if v.ndim == 0})
