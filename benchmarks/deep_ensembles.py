"""Eight members as one DeepEnsemble against the same eight trained in sequence.

    python -m benchmarks.deep_ensembles [--jax PYTHON] [--repeats 7]

The members are networks 64-128-128-10 on all 1,797 digits, batches of 32, Adam. Each
contender trains all eight for ``EPOCHS`` epochs a call; the table has CPU milliseconds
for one epoch of all eight, after compilation. Run it on TensorFlow; ``--jax`` is an
interpreter with Keras on JAX.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # also as the script of a peer, outside of the package
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import common, record

common.one_thread()

MEMBERS, EPOCHS, BATCH = 8, 4, 32
SOURCES = ["benchmarks.deep_ensembles"]
KINDS = {
    "fit": "eight, Keras fit",
    "in_memory": "eight, fit_in_memory",
    "ensemble_fit": "DeepEnsemble, Keras fit",
    "ensemble": "DeepEnsemble, fit_in_memory",
}


def contender(kind):
    """A function that trains eight members once."""
    import keras
    from sklearn.datasets import load_digits

    from dlcompanion.training import fit_in_memory
    from dlcompanion.uncertainty import DeepEnsemble

    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = (x / 16.0).astype("float32")

    def build():
        return keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(128, "relu"),
                keras.layers.Dense(128, "relu"),
                keras.layers.Dense(10, "softmax"),
            ]
        )

    if kind.startswith("ensemble"):
        models = [DeepEnsemble(build, MEMBERS)]
    else:
        models = [build() for _ in range(MEMBERS)]
    for model in models:
        model.compile("adam", "sparse_categorical_crossentropy")

    def train():
        for model in models:
            if kind.endswith("fit"):
                model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0)
            else:
                fit_in_memory(model, x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0)

    return train


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jax")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    pythons = {"tensorflow": sys.executable, "jax": options.jax}
    candidates = {
        f"{name}, {backend}": common.Peer(
            python, Path(__file__).resolve(), "serve", kind, KERAS_BACKEND=backend
        )
        for backend, python in pythons.items()
        if python
        for kind, name in KINDS.items()
    }
    seconds = common.alternate(candidates, repeats=options.repeats, warm_up=2)
    rows = []
    for name, values in seconds.items():
        backend = name.rsplit(", ", 1)[-1]
        milliseconds = common.summary([1e3 * v / EPOCHS for v in values])
        row = {"contender": name}
        row["CPU ms an epoch of all"] = round(milliseconds["median"], 2)
        row["spread"] = round(milliseconds["spread"], 2)
        for kind in ("fit", "in_memory"):
            peer = seconds[f"{KINDS[kind]}, {backend}"]
            found = common.ratio(values, peer)
            text = f"{found['median']:.3f} ({found['min']:.3f}-{found['max']:.3f})"
            row[f"to {KINDS[kind]}"] = text
        rows.append(row)
    common.table(rows)
    peers = {name: peer.versions for name, peer in candidates.items()}
    for peer in candidates.values():
        peer.close()
    record.save("deep_ensembles", rows, SOURCES, peers)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        common.serve(contender(sys.argv[2]))
    else:
        main()
