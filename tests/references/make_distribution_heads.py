"""Log-densities of the layers of tfp.layers, on Keras 2, for the same parameters.

Run in an environment of its own with tensorflow, tensorflow-probability and tf_keras:
``tfp.layers`` needs ``TF_USE_LEGACY_KERAS=1``.
"""

import json
import os
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tfpl = tfp.layers
logistic = tfpl.IndependentLogistic((2,))
layers = {  # name: (layer, size of its parameters, kind of values, event shape)
    "normal": (tfpl.IndependentNormal((2, 2)), 8, "real", (2, 2)),
    "logistic": (tfpl.IndependentLogistic((3,)), 6, "real", (3,)),
    "bernoulli": (tfpl.IndependentBernoulli((3,)), 3, "binary", (3,)),
    "poisson": (tfpl.IndependentPoisson((3,)), 3, "count", (3,)),
    "one_hot": (tfpl.OneHotCategorical(4), 4, "one_hot", (4,)),
    "tril": (tfpl.MultivariateNormalTriL(3), 9, "real", (3,)),
    "mixture_normal": (tfpl.MixtureNormal(3, (2,)), 15, "real", (2,)),
    "mixture_logistic": (tfpl.MixtureLogistic(3, ()), 9, "real", ()),
    "same_family": (tfpl.MixtureSameFamily(2, logistic), 10, "real", (2,)),
    "one_hot_mixture": (
        tfpl.CategoricalMixtureOfOneHotCategorical(4, 3), 15, "one_hot", (4,),
    ),
}  # fmt: skip

rng = np.random.default_rng(0)
draw = {
    "real": lambda shape: 2 * rng.normal(size=shape),
    "binary": lambda shape: rng.integers(2, size=shape),
    "count": lambda shape: rng.poisson(2.0, size=shape),
    "one_hot": lambda shape: np.eye(shape[-1])[rng.integers(shape[-1], size=shape[0])],
}
arrays = {}
for name, (layer, size, kind, event) in layers.items():
    params = rng.normal(size=(6, size)).astype("float32")
    y = draw[kind]((6, *event)).astype("float32")
    with tf.GradientTape() as tape:
        given = tf.constant(params)
        tape.watch(given)
        # Keras 2 hands out a tensor that is a distribution
        log_prob = layer(given).log_prob(y)
        total = tf.reduce_sum(log_prob)
    arrays[f"in/{name}/params"], arrays[f"in/{name}/y"] = params, y
    arrays[f"out/{name}"] = log_prob.numpy()
    arrays[f"g/{name}"] = tape.gradient(total, given).numpy()

arrays["meta"] = np.array(
    json.dumps(
        {
            "library": "tensorflow-probability, tfp.layers",
            "version": tfp.__version__,
            "tensorflow": tf.__version__,
            "gradient": "of the sum of the log-densities by the parameters",
        }
    )
)
path = Path(__file__).with_name("distribution_heads.npz")
np.savez_compressed(path, **arrays)
print(path.name, path.stat().st_size, "bytes")
