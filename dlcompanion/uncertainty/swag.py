"""SWAG: a Gaussian through the places that SGD visits."""

import keras
import numpy as np

from dlcompanion.checks import check_count, check_number, generator
from dlcompanion.optimization import SWA, refresh_batch_normalization


class SWAG(SWA):
    r"""Gaussian over weights, from the mean and the spread of SGD's iterates.

    :class:`~dlcompanion.optimization.SWA` keeps the mean :math:`\bar w` of the places
    that SGD visits with a large learning rate. They scatter around it more where the
    loss is flat, and SWAG takes that scatter for a posterior: with the variance
    :math:`\sigma^2` of every weight over all :math:`n` snapshots and the last
    :math:`K` deviations from the running mean, columns of :math:`D`,

    .. math::

       \sigma^2 = \frac1n \sum_i (w_i - \bar w)^2, \qquad
       D_i = w_i - \bar w_i, \qquad
       w \sim \mathcal N\Bigl(\bar w, \;
       \tfrac12 \operatorname{diag}(\sigma^2) + \tfrac{1}{2(K-1)} D D^\top\Bigr) .

    A prediction is the mean over draws of :math:`w`. When training ends the model has
    the weights :math:`\bar w`, as with SWA; :meth:`predict_samples` draws others, with
    the statistics of BatchNormalization measured anew for each
    (:func:`~dlcompanion.optimization.refresh_batch_normalization`).

    ``get_state`` and ``set_state`` are there for
    :class:`~dlcompanion.training.ResumableCheckpoint`, ``save`` and ``load`` for a
    model that is loaded later.

    Args:
        start: Non-negative integer, the first epoch of the first cycle.
        every: Positive integer, the epochs between two snapshots.
        rank: Integer :math:`K` of at least 2, how many deviations are kept.
        learning_rate: As for SWA.
        data: As for SWA, needed where the model has BatchNormalization.
        batch_size: As for SWA.

    Raises:
        ValueError: If an argument is out of its range, as SWA does in ``fit``, and in
            drawing, if there are fewer than two snapshots.

    Example:
        >>> x, y = np.ones((8, 3)), np.ones((8, 1))
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> swag = SWAG(start=2, rank=3, learning_rate=0.05)
        >>> history = model.fit(x, y, epochs=6, callbacks=[swag], verbose=0)
        >>> swag.predict_samples(x, samples=5).shape
        (5, 8, 1)

    References:
        Maddox, Garipov, Izmailov, Vetrov and Wilson, *A Simple Baseline for Bayesian
        Uncertainty in Deep Learning*, 2019, algorithm 1.
        https://arxiv.org/abs/1902.02476
    """

    def __init__(
        self, start, every=1, rank=20, learning_rate=None, data=None, batch_size=256
    ):
        super().__init__(start, every, learning_rate, data, batch_size)
        self.rank = check_count("rank", rank, least=2)
        self._squares, self._deviations = [], []

    @property
    def variance(self):
        """List of arrays, the variance of the snapshots, as the trainable weights."""
        return [s / self.count for s in self._squares]

    @property
    def deviations(self):
        """List of the last snapshots less the running mean, oldest first."""
        return [[d.copy() for d in deviation] for deviation in self._deviations]

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._squares, self._deviations = [], []

    def on_epoch_end(self, epoch, logs=None):
        before, count = [m.copy() for m in self._mean], self.count
        super().on_epoch_end(epoch, logs)
        if self.count == count:
            return
        weights = [
            keras.ops.convert_to_numpy(v).astype("float64")
            for v in self.model.trainable_variables
        ]
        deviation = [w - m for w, m in zip(weights, self._mean, strict=True)]
        if not count:
            self._squares = [np.zeros_like(w) for w in weights]
        else:  # Welford's sum of squares, which cannot become negative
            for s, w, b, d in zip(
                self._squares, weights, before, deviation, strict=True
            ):
                s += (w - b) * d
        self._deviations = [*self._deviations, deviation][-self.rank :]

    def sample(self, seed=0, scale=1.0):
        r"""One draw of the trainable weights.

        Args:
            seed: Integer of at least 0, or a ``numpy.random.Generator``.
            scale: Number of at least 0 by which the covariance is multiplied.

        Returns:
            List of float32 arrays, as ``model.trainable_weights``.
        """
        check_number("scale", scale)
        count = len(self._deviations)
        if count < 2:
            raise ValueError(
                "A spread takes at least two snapshots: train longer or start earlier. "
                f"Received: snapshots={count}"
            )
        rng = seed if isinstance(seed, np.random.Generator) else generator(seed)
        shared = rng.normal(size=count) / np.sqrt(count - 1)
        drawn = []
        for n, (mean, variance) in enumerate(
            zip(self._mean, self.variance, strict=True)
        ):
            low = sum(z * d[n] for z, d in zip(shared, self._deviations, strict=True))
            own = np.sqrt(variance) * rng.normal(size=mean.shape)
            move = np.sqrt(scale / 2) * (own + low)
            drawn.append((mean + move).astype("float32"))
        return drawn

    def predict_samples(self, x, samples=30, seed=0, scale=1.0, batch_size=256):
        """Predictions of the model with weights drawn from the Gaussian.

        The model itself is as before when this returns.

        Args:
            x: Array of inputs, or structure of arrays as the model takes them.
            samples: Positive integer, the number of draws.
            seed: Integer of at least 0.
            scale: As for :meth:`sample`.
            batch_size: Positive integer, examples at a time.

        Returns:
            NumPy array ``(samples, examples, ...)``: for probabilities its mean over
            the first axis is the prediction, and :func:`mutual_information` takes it.
            Of a model with several outputs, what it returns with such an array each.
        """
        check_count("samples", samples)
        check_count("batch_size", batch_size)
        rng = generator(seed)
        kept = [(v, keras.ops.copy(v)) for v in self.model.variables]
        predictions = []
        try:
            for _ in range(samples):
                drawn = self.sample(rng, scale)
                variables = self.model.trainable_variables
                for variable, value in zip(variables, drawn, strict=True):
                    variable.assign(value)
                if self.data is not None:
                    refresh_batch_normalization(self.model, self.data, self.batch_size)
                predictions.append(self._predict(x, batch_size))
        finally:
            for variable, value in kept:
                variable.assign(value)
        return _joined(np.stack, predictions)

    def _predict(self, x, batch_size):
        """As model.predict, without what it costs to start, once for each draw."""
        size = len(keras.tree.flatten(x)[0])
        parts = [
            self.model.predict_on_batch(
                keras.tree.map_structure(lambda a, n=n: a[n : n + batch_size], x)
            )
            for n in range(0, size, batch_size)
        ]
        return _joined(np.concatenate, parts)

    def save(self, path):
        """Write what was collected to a ``.npz`` file.

        Args:
            path: String or path of the file.
        """
        arrays = {"count": np.array(self.count)}
        for n, (mean, squares) in enumerate(
            zip(self._mean, self._squares, strict=True)
        ):
            arrays[f"mean_{n}"], arrays[f"squares_{n}"] = mean, squares
            arrays[f"deviations_{n}"] = np.stack([d[n] for d in self._deviations])
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    def load(self, path, model):
        """Read what :meth:`save` wrote, and attach a model of the same architecture.

        Args:
            path: String or path of the file.
            model: The :class:`keras.Model` whose weights are drawn.

        Returns:
            This object.
        """
        with np.load(path) as arrays:
            numbers = range(sum(name.startswith("mean_") for name in arrays.files))
            columns = [arrays[f"deviations_{n}"] for n in numbers]
            state = {
                "count": int(arrays["count"]),
                "mean": [arrays[f"mean_{n}"] for n in numbers],
                "squares": [arrays[f"squares_{n}"] for n in numbers],
                "deviations": [list(d) for d in zip(*columns, strict=True)],
            }
        shapes = [tuple(v.shape) for v in model.trainable_variables]
        found = [m.shape for m in state["mean"]]
        if shapes != found:
            raise ValueError(
                f"The file holds weights of the shapes {found}. Received: a model with "
                f"weights of the shapes {shapes}"
            )
        self.set_model(model)
        self.set_state(state)
        return self

    def get_state(self):
        return {
            **super().get_state(),
            "squares": self._squares,
            "deviations": self._deviations,
        }

    def set_state(self, state):
        super().set_state(state)
        self._squares = [np.array(s) for s in state["squares"]]
        self._deviations = [[np.array(d) for d in one] for one in state["deviations"]]


def _joined(join, structures):
    """One structure, of arrays that are joined from those of many."""
    return keras.tree.map_structure(lambda *arrays: join(arrays), *structures)
