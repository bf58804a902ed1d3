"""Stochastic weight averaging: the mean of the weights that SGD visits."""

import keras
import numpy as np

from dlcompanion import backend
from dlcompanion.checks import check_count


class SWA(keras.callbacks.Callback):
    r"""Train on, and take the mean of the weights at the ends of epochs.

    With a learning rate that stays large, SGD does not come to rest: it moves around a
    minimum, at points of higher loss. From epoch ``start`` on, at the end of every
    cycle of ``every`` epochs, the callback takes a snapshot :math:`w_i` of the
    trainable weights, and keeps their arithmetic mean,

    .. math::

       \bar w \leftarrow \bar w + \frac{w_n - \bar w}{n}
       \quad\Longrightarrow\quad \bar w = \frac1n \sum_{i=1}^n w_i ,

    which lies nearer to the minimum. When training ends, the model gets
    :math:`\bar w`. The running means and variances of its BatchNormalization layers
    belong to the last iterate, not to :math:`\bar w`, and are measured anew on
    ``data``, see
    :func:`refresh_batch_normalization`.

    Training itself is not changed: losses and validation during ``fit`` are those of
    the iterates, and the optimizer's own state still belongs to the last of them.
    Other weights than the trainable ones and BatchNormalization's are the last
    iterate's. The callback has ``get_state`` and ``set_state``, so that
    ``ResumableCheckpoint(path, carry=[swa])`` resumes it exactly.

    Args:
        start: Non-negative integer, the first epoch (counted from 0) of the first
            cycle.
        every: Positive integer, the epochs of a cycle. The paper averages once a
            cycle where the learning rate is cyclic, and every epoch where it is
            constant.
        learning_rate: Float, or function of the epoch that returns one, set at the
            beginning of each epoch from ``start`` on. None leaves the optimizer's.
        data: Array of inputs, or structure of arrays as the model takes them:
            what BatchNormalization is measured on, usually the training inputs.
            Needed where the model has such a layer.
        batch_size: Positive integer, the batches of that measurement.

    Raises:
        ValueError: If an argument is out of its range; and in ``fit``, if it ends
            before the first snapshot, if a BatchNormalization layer meets no
            ``data``, or if ``learning_rate`` is set over an optimizer's schedule.

    Example:
        >>> import numpy as np
        >>> x, y = np.ones((8, 3)), np.ones((8, 1))
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> swa = SWA(start=2, learning_rate=0.05)
        >>> history = model.fit(x, y, epochs=5, callbacks=[swa], verbose=0)
        >>> swa.count
        3

    References:
        Izmailov, Podoprikhin, Garipov, Vetrov and Wilson, *Averaging Weights Leads to
        Wider Optima and Better Generalization*, 2018, algorithm 1.
        https://arxiv.org/abs/1803.05407
    """

    def __init__(self, start, every=1, learning_rate=None, data=None, batch_size=256):
        super().__init__()
        check_count("start", start, least=0)
        for name, value in {"every": every, "batch_size": batch_size}.items():
            check_count(name, value)
        if learning_rate is not None and not callable(learning_rate):
            _check_rate(learning_rate)
        self.start = start
        self.every = every
        self.learning_rate = learning_rate
        self.data = data
        self.batch_size = batch_size
        self.count = 0
        self._mean = []

    @property
    def average(self):
        """List of arrays, the mean of the snapshots, as ``model.trainable_weights``."""
        return [mean.astype("float32") for mean in self._mean]

    def on_train_begin(self, logs=None):
        self.count, self._mean = 0, []
        if self.params["epochs"] < self.start + self.every:
            raise ValueError(
                "The first snapshot is taken at the end of epoch start + every. "
                f"Received: start={self.start}, every={self.every}, "
                f"epochs={self.params['epochs']}"
            )
        if self.data is None and _batch_normalizations(self.model):
            raise ValueError(
                "The running statistics of BatchNormalization do not fit averaged "
                "weights: pass the training inputs as data. Received: data=None"
            )

    def on_epoch_begin(self, epoch, logs=None):
        if self.learning_rate is None or epoch < self.start:
            return
        rate = self.learning_rate
        rate = _check_rate(rate(epoch) if callable(rate) else rate)
        try:
            self.model.optimizer.learning_rate = rate
        except TypeError as error:
            raise ValueError(
                "The optimizer has a schedule of its own: leave out learning_rate. "
                f"Received: learning_rate={self.learning_rate!r}"
            ) from error

    def on_epoch_end(self, epoch, logs=None):
        cycle = epoch - self.start + 1
        if cycle < 1 or cycle % self.every:
            return
        weights = [
            keras.ops.convert_to_numpy(v).astype("float64")
            for v in self.model.trainable_variables
        ]
        self.count += 1
        self._mean = self._mean or [np.zeros_like(w) for w in weights]
        for mean, weight in zip(self._mean, weights, strict=True):
            mean += (weight - mean) / self.count

    def on_train_end(self, logs=None):
        if not self.count:  # another callback ended training before the first cycle
            return
        variables = self.model.trainable_variables
        for variable, mean in zip(variables, self._mean, strict=True):
            variable.assign(mean)
        if self.data is not None:
            refresh_batch_normalization(self.model, self.data, self.batch_size)

    def get_state(self):
        return {"count": self.count, "mean": self._mean}

    def set_state(self, state):
        self.count = state["count"]
        self._mean = [np.array(mean) for mean in state["mean"]]


def refresh_batch_normalization(model, x, batch_size=256):
    r"""Measure the statistics of all BatchNormalization layers on ``x``.

    The model runs over ``x`` in training mode, batch by batch. From the mean
    :math:`\mu_b` and variance :math:`\sigma_b^2` of each batch of :math:`n_b`
    examples, every layer gets the mean and variance of all :math:`N` together,

    .. math::

       \mu = \frac1N \sum_b n_b\, \mu_b, \qquad
       \sigma^2 = \frac1N \sum_b n_b \bigl(\sigma_b^2 + \mu_b^2\bigr) - \mu^2 .

    Nothing else of the model changes, its seed generators included. Layers that are
    frozen keep their statistics. Dropout is active, as it was in training.

    Args:
        model: A built :class:`keras.Model`, compiled or not.
        x: Array of inputs, or structure of arrays as the model takes them.
        batch_size: Positive integer; the larger, the closer are the statistics of a
            deeper layer to those in inference.

    Raises:
        ValueError: If ``x`` holds no example or ``batch_size < 1``.

    Example:
        >>> import numpy as np
        >>> norm = keras.layers.BatchNormalization()
        >>> model = keras.Sequential([keras.Input((1,)), norm])
        >>> refresh_batch_normalization(model, np.array([[1.0], [3.0]]))
        >>> float(norm.moving_mean[0]), float(norm.moving_variance[0])
        (2.0, 1.0)
    """
    x = keras.tree.map_structure(keras.ops.convert_to_numpy, x)
    size = len(keras.tree.flatten(x)[0])
    if size == 0 or batch_size < 1:
        raise ValueError(
            "Statistics need at least one example, and batch_size >= 1. "
            f"Received: {size} examples, batch_size={batch_size}"
        )
    layers = _batch_normalizations(model)
    if not layers:
        return
    others = [(v, keras.ops.copy(v)) for v in model.non_trainable_variables]
    momenta = [layer.momentum for layer in layers]
    means = [0.0] * len(layers)
    squares = [0.0] * len(layers)
    try:
        for layer in layers:
            layer.momentum = 0.0  # the running statistics are those of the last batch
            layer.moving_mean.assign(np.zeros(layer.moving_mean.shape))
            layer.moving_variance.assign(np.ones(layer.moving_variance.shape))
        for start in range(0, size, batch_size):
            batch = keras.tree.map_structure(
                lambda a, start=start: a[start : start + batch_size], x
            )
            model(batch, training=True)
            share = min(batch_size, size - start) / size
            for n, layer in enumerate(layers):
                mean, variance = _statistics(layer)
                means[n] += share * mean
                squares[n] += share * (variance + mean**2)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for variable, value in others:
            variable.assign(value)
    for layer, mean, square in zip(layers, means, squares, strict=True):
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(np.maximum(square - mean**2, 0.0))


def _batch_normalizations(model):
    return [
        layer
        for layer in [model, *backend.flatten_layers(model)]
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


def _statistics(layer):
    pair = layer.moving_mean, layer.moving_variance
    return [keras.ops.convert_to_numpy(v).astype("float64") for v in pair]


def _check_rate(rate):
    rate = float(rate)
    if not 0.0 <= rate < float("inf"):
        raise ValueError(
            "learning_rate must be a finite number of at least 0, or a function of "
            f"the epoch that returns one. Received: learning_rate={rate}"
        )
    return rate
