"""Dense and convolutional layers of tfp.layers on Keras 2, with posteriors of noise.

DenseReparameterization, DenseLocalReparameterization, DenseFlipout of 3 units with a
posterior over the bias too; Convolution1D, 2D and 3D in the kinds Reparameterization
and Flipout with 2 filters of width 2. The prior is N(0, 1), the scale of the posterior
is softplus(rho) plus the machine epsilon. Writes bayesian_layers.npz beside this file:

<layer>/x                       inputs
<layer>/loc, <layer>/rho        posterior of the kernel; bias_loc, bias_rho that of the
                                bias of the dense layers
<layer>/bias                    the bias of the convolutions
<layer>/kl                      sum of layer.losses
<layer>/kl_loc, <layer>/kl_rho  its gradients
<layer>/mean, <layer>/std       of DRAWS outputs
"""

import json
import os
from importlib import metadata
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

DRAWS = 4000
tf.random.set_seed(0)
rng = np.random.default_rng(0)
shapes = {"Dense": (6, 4), "Convolution1D": (4, 5, 3), "Convolution2D": (4, 4, 3, 2)}
shapes["Convolution3D"] = (3, 3, 3, 3, 2)
arrays = {}
for stem, shape in shapes.items():
    kinds = ["Reparameterization", "Flipout"]
    kinds += ["LocalReparameterization"] if stem == "Dense" else []
    for kind in kinds:
        make = getattr(tfp.layers, stem + kind)
        if stem == "Dense":
            posterior = tfp.layers.default_mean_field_normal_fn()
            prior = tfp.layers.default_multivariate_normal_fn
            layer = make(3, bias_posterior_fn=posterior, bias_prior_fn=prior)
        else:
            layer = make(2, 2)
        x = rng.normal(size=shape).astype("float32")
        layer(x)
        names = {}
        for variable in layer.trainable_weights:
            short = variable.name.split("/")[-1].split(":")[0]
            short = short.replace("kernel_posterior_", "").replace("_posterior", "")
            short = short.replace("untransformed_scale", "rho")
            names["bias" if short == "bias_loc" and stem != "Dense" else short] = (
                variable
            )
            variable.assign(0.5 * rng.normal(size=variable.shape))
        key = stem.replace("olution", "") + kind
        arrays |= {f"{key}/{n}": v.numpy() for n, v in names.items()}
        with tf.GradientTape() as tape:
            layer(x)
            kl = tf.add_n(layer.losses)
        by = tape.gradient(kl, [names["loc"], names["rho"]])
        draw = tf.function(lambda layer=layer, x=x: layer(x))
        y = np.stack([draw().numpy() for _ in range(DRAWS)])
        arrays |= {
            f"{key}/x": x,
            f"{key}/kl": kl.numpy(),
            f"{key}/kl_loc": by[0].numpy(),
            f"{key}/kl_rho": by[1].numpy(),
            f"{key}/mean": y.mean(axis=0),
            f"{key}/std": y.std(axis=0),
        }
meta = {"draws": DRAWS, "prior": "N(0, 1)", "scale": "softplus(rho) + epsilon"}
for package in ("tensorflow", "tensorflow-probability", "tf_keras"):
    meta[package] = metadata.version(package)
target = Path(__file__).with_name("bayesian_layers.npz")
np.savez_compressed(target, meta=json.dumps(meta), **arrays)
