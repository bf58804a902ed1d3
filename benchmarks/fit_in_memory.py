"""fit_in_memory against Keras's fit and plain PyTorch: a small VAE on the digits.

    python -m benchmarks.fit_in_memory [--torch PYTHON] [--jax PYTHON] [--repeats 9]

The model is a VAE 64-128-64-8 with a mirrored decoder, all 1,797 digits, batches of
128 (the last one of 5), Adam. Every contender trains ``EPOCHS`` epochs a call; the
table has CPU milliseconds for one epoch. ``--torch`` and ``--jax`` are interpreters
with PyTorch, and with Keras on JAX; without them those rows are left out.
"""

import argparse
import sys

from benchmarks import common, record

common.one_thread()

EPOCHS, BATCH = 20, 128
SOURCES = ["benchmarks.fit_in_memory", "benchmarks.fit_in_memory_peer"]


def digits():
    from sklearn.datasets import load_digits

    return (load_digits().data / 16.0).astype("float32")


def small_vae(jit_compile="auto"):
    import keras
    from keras import layers, ops

    class SmallVAE(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder = keras.Sequential(
                [
                    layers.Dense(128, "relu"),
                    layers.Dense(64, "relu"),
                    layers.Dense(2 * 8),
                ]
            )
            self.decoder = keras.Sequential(
                [
                    layers.Dense(64, "relu"),
                    layers.Dense(128, "relu"),
                    layers.Dense(64),
                ]
            )
            self.noise = keras.random.SeedGenerator(0)

        def call(self, x):
            mean, log_variance = ops.split(self.encoder(x), 2, axis=-1)
            noise = keras.random.normal(ops.shape(mean), seed=self.noise)
            kl = ops.exp(log_variance) + mean**2 - 1.0 - log_variance
            self.add_loss(0.5 * ops.mean(ops.sum(kl, axis=-1)))
            return self.decoder(mean + ops.exp(0.5 * log_variance) * noise)

    def reconstruction(x, logits):
        bits = ops.softplus(logits) - x * logits
        return ops.sum(bits, axis=-1)

    keras.utils.set_random_seed(0)
    model = SmallVAE()
    model.compile("adam", reconstruction, jit_compile=jit_compile)
    return model


def keras_fit(**compile_arguments):
    x, model = digits(), small_vae(**compile_arguments)
    return lambda: model.fit(x, x, batch_size=BATCH, epochs=EPOCHS, verbose=0)


def in_memory(**compile_arguments):
    from dlcompanion.training import fit_in_memory

    x, model = digits(), small_vae(**compile_arguments)
    return lambda: fit_in_memory(
        model, x, x, batch_size=BATCH, epochs=EPOCHS, verbose=0
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch", default=sys.executable)
    parser.add_argument("--jax")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()

    def peer(python, kind, backend):
        script = common.ROOT / "benchmarks/fit_in_memory_peer.py"
        return common.Peer(python, script, kind, KERAS_BACKEND=backend)

    candidates = {
        "Keras fit, TensorFlow": keras_fit(),
        "fit_in_memory, TensorFlow": in_memory(),
        "fit_in_memory, TensorFlow, XLA": in_memory(jit_compile=True),
        "plain PyTorch loop": peer(options.torch, "loop", "torch"),
        "Keras fit, PyTorch": peer(options.torch, "fit", "torch"),
        "fit_in_memory, PyTorch": peer(options.torch, "in_memory", "torch"),
    }
    if options.jax:
        candidates["Keras fit, JAX"] = peer(options.jax, "fit", "jax")
        candidates["fit_in_memory, JAX"] = peer(options.jax, "in_memory", "jax")
    seconds = common.alternate(candidates, repeats=options.repeats, warm_up=2)
    rows = []
    for name, values in seconds.items():
        own = name.split(", ", 1)[-1].removesuffix(", XLA")
        fit = seconds.get(f"Keras fit, {own}")
        row = {"contender": name}
        per_epoch = common.summary([1e3 * v / EPOCHS for v in values])
        row["CPU ms an epoch"] = round(per_epoch["median"], 3)
        row["spread"] = round(per_epoch["spread"], 3)
        row["to Keras fit"] = _ratio(values, fit)
        row["to PyTorch loop"] = _ratio(values, seconds["plain PyTorch loop"])
        rows.append(row)
    common.table(rows)
    peers = {n: c.versions for n, c in candidates.items() if hasattr(c, "versions")}
    for candidate in candidates.values():
        if isinstance(candidate, common.Peer):
            candidate.close()
    record.save("fit_in_memory", rows, SOURCES, peers)


def _ratio(values, reference):
    if reference is None:
        return "-"
    found = common.ratio(values, reference)
    return f"{found['median']:.3f} ({found['min']:.3f}-{found['max']:.3f})"


if __name__ == "__main__":
    main()
