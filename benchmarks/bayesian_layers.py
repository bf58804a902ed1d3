"""Training step of DenseFlipout against that of tfp.layers on Keras 2.

    python -m benchmarks.bayesian_layers [--tfp PYTHON] [--jax PYTHON] [--repeats 9]

One layer of 256 units on 256 features and one of 10, both flipout, batches of 128,
Adam, mean squared error plus the divergence by the number of examples. Every contender
runs ``STEPS`` compiled training steps a call on the same batch; the table has CPU
milliseconds for one. ``--tfp`` is an interpreter with TensorFlow Probability and
tf_keras (by default this one), ``--jax`` one with Keras on JAX; without it that row is
left out.
"""

import argparse
import sys

from benchmarks import common, record

common.one_thread()

STEPS, BATCH, FEATURES, UNITS, EXAMPLES = 100, 128, 256, 256, 10_000
SOURCES = ["benchmarks.bayesian_layers", "benchmarks.bayesian_layers_peer"]


def batch():
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, FEATURES)).astype("float32")
    return x, rng.normal(size=(BATCH, 10)).astype("float32")


def ours(jit_compile=False):
    import keras

    from dlcompanion.uncertainty import DenseFlipout

    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            DenseFlipout(UNITS, "relu", training_examples=EXAMPLES, seed=1),
            DenseFlipout(10, training_examples=EXAMPLES, seed=2),
        ]
    )
    model.compile("adam", "mse", jit_compile=jit_compile)
    if keras.backend.backend() == "tensorflow":
        return _steps(model, jit_compile)
    from dlcompanion.training import fit_in_memory

    x, y = (keras.ops.convert_to_numpy(keras.ops.tile(a, (STEPS, 1))) for a in batch())

    def run():
        fit_in_memory(model, x, y, batch_size=BATCH, shuffle=False, verbose=0)

    return run


def _steps(model, jit_compile):
    """The model's own training step on one batch, compiled, STEPS times."""
    import tensorflow as tf

    x, y = (tf.constant(a) for a in batch())
    model.train_on_batch(x, y)  # builds the optimizer

    @tf.function(jit_compile=jit_compile or None, autograph=False)
    def step():
        return model.train_step((x, y))["loss"]

    def run():
        for _ in range(STEPS):
            loss = step()
        return float(loss)

    return run


def tfp_layers(jit_compile=False):
    """The same in tfp.layers; needs TF_USE_LEGACY_KERAS=1 before the imports."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    def divergence(q, p, _):
        return tfp.distributions.kl_divergence(q, p) / EXAMPLES

    model = tf.keras.Sequential(
        [
            tf.keras.Input((FEATURES,)),
            tfp.layers.DenseFlipout(
                UNITS, activation="relu", kernel_divergence_fn=divergence
            ),
            tfp.layers.DenseFlipout(10, kernel_divergence_fn=divergence),
        ]
    )
    model.compile(tf.keras.optimizers.Adam(), "mse", jit_compile=jit_compile)
    return _steps(model, jit_compile)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tfp", default=sys.executable)
    parser.add_argument("--jax")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()

    def peer(python, kind, **environment):
        script = common.ROOT / "benchmarks/bayesian_layers_peer.py"
        return common.Peer(python, script, kind, **environment)

    legacy = {"TF_USE_LEGACY_KERAS": "1"}
    candidates = {
        "DenseFlipout, TensorFlow": ours(),
        "DenseFlipout, TensorFlow, XLA": ours(jit_compile=True),
        "tfp.layers": peer(options.tfp, "tfp", **legacy),
        "tfp.layers, XLA": peer(options.tfp, "tfp_xla", **legacy),
    }
    if options.jax:
        candidates["DenseFlipout, JAX"] = peer(options.jax, "ours", KERAS_BACKEND="jax")
    seconds = common.alternate(candidates, repeats=options.repeats, warm_up=2)
    rows = []
    for name, values in seconds.items():
        step = common.summary([1e3 * v / STEPS for v in values])
        row = {
            "contender": name,
            "CPU ms a step": round(step["median"], 3),
            "spread": round(step["spread"], 3),
        }
        for other in ("tfp.layers", "tfp.layers, XLA"):
            found = common.ratio(values, seconds[other])
            text = f"{found['median']:.3f} ({found['min']:.3f}-{found['max']:.3f})"
            row[f"to {other}"] = text
        rows.append(row)
    common.table(rows)
    peers = {n: c.versions for n, c in candidates.items() if hasattr(c, "versions")}
    for candidate in candidates.values():
        if isinstance(candidate, common.Peer):
            candidate.close()
    record.save("bayesian_layers", rows, SOURCES, peers)


if __name__ == "__main__":
    main()
