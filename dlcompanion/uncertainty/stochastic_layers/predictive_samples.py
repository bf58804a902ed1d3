"""Draws from the predictions of a random model, and what they say together."""

import contextlib
import random

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count


def predictive_samples(model, x, samples=32, batch_size=256, seed=None):
    """Predictions of a model whose weights or dropout are random in inference.

    For Bayesian layers, such as :class:`DenseFlipout`, and for
    :class:`MonteCarloDropout`. All the draws of a batch are one compiled program on
    TensorFlow and JAX, which is kept with the model. The k-th draw begins with the same
    random state in every batch of ``x``: a layer that draws one kernel a call, as the
    Reparameterization layers do, thus draws one *function*, evaluated at all of ``x``.

    Args:
        model: A built :class:`keras.Model` with one output, called with
            ``training=False``.
        x: NumPy array, or a structure of them, examples along the first axis.
        samples: Positive integer, the number of draws.
        batch_size: Positive integer, examples at a time.
        seed: Integer that decides the draws and leaves the model's own random state
            as it is. By default that state is used, and advances.

    Returns:
        NumPy array of shape ``(samples, examples, ...)``.

    Raises:
        ValueError: If a number is no positive integer, ``x`` is empty or no array, or
            nothing in the model is random in inference.

    Example:
        >>> from dlcompanion.uncertainty import DenseReparameterization
        >>> model = keras.Sequential(
        ...     [keras.Input((1,)), DenseReparameterization(1, seed=0)]
        ... )
        >>> x = np.linspace(-1, 1, 5, dtype="float32")[:, None]
        >>> draws = predictive_samples(model, x, samples=7, seed=1)
        >>> draws.shape
        (7, 5, 1)
        >>> mean, deviation = draws.mean(axis=0), draws.std(axis=0)
    """
    check_count("samples", samples)
    check_count("batch_size", batch_size)
    if not (hasattr(x, "__array__") or isinstance(x, list | tuple | dict)):
        raise ValueError(
            "x must be arrays, examples along the first axis; of a dataset give what "
            f"its batches are made of. Received: x={type(x).__name__}"
        )
    x = keras.tree.map_structure(np.asarray, x)
    examples = len(keras.tree.flatten(x)[0])
    if examples == 0:
        raise ValueError("x must hold an example. Received: 0 examples")
    batch_size = min(batch_size, examples)
    program, seeds = _program(model, _rows(x, np.arange(batch_size)), samples)
    kept = [ops.convert_to_numpy(s).copy() for s in seeds]
    start = kept if seed is None else _seeded(seed, kept)
    parts = []
    try:
        with _seeded_outside(seed):
            for first in range(0, examples, batch_size):
                for variable, value in zip(seeds, start, strict=True):
                    variable.assign(value)
                # the last batch is filled up, so that one program does for all
                rows = np.arange(first, first + batch_size) % examples
                drawn = ops.convert_to_numpy(program(_rows(x, rows)))
                if not first and samples > 1:
                    _check_drawn(model, drawn, seeds, start)
                parts.append(drawn[:, : examples - first])
    finally:
        if seed is not None:
            for variable, value in zip(seeds, kept, strict=True):
                variable.assign(value)
    return np.concatenate(parts, axis=1)


def predictive_entropy(samples, from_logits=False):
    r"""Entropy of the mean of drawn class probabilities: all the doubt there is.

    .. math:: H\left[\tfrac1S \textstyle\sum_s p_s\right], \qquad
        H[p] = -\sum_c p_c \log p_c .

    Args:
        samples: Array of shape ``(samples, examples, classes)``.
        from_logits: Boolean, whether ``samples`` are logits and not probabilities.

    Returns:
        NumPy array of shape ``(examples,)``, in nats.

    Raises:
        ValueError: If the array has another rank or does not hold probabilities.

    Example:
        >>> certain, split = [[1.0, 0.0]] * 2, [[1.0, 0.0], [0.0, 1.0]]
        >>> draws = np.stack([certain, split], axis=1)
        >>> predictive_entropy(draws).round(3).tolist()
        [0.0, 0.693]
    """
    return _entropy(_probabilities(samples, from_logits).mean(axis=0))


def mutual_information(samples, from_logits=False):
    r"""What the draws disagree about: the doubt that more data could remove.

    .. math:: I = H\left[\tfrac1S \textstyle\sum_s p_s\right]
        - \tfrac1S \sum_s H[p_s],

    the mutual information of label and weights, also called BALD. The other part of
    the entropy, the second term, is noise of the data.

    Args:
        samples: Array of shape ``(samples, examples, classes)``.
        from_logits: Boolean, whether ``samples`` are logits and not probabilities.

    Returns:
        NumPy array of shape ``(examples,)``, in nats, at least 0.

    Raises:
        ValueError: If the array has another rank or does not hold probabilities.

    Example:
        >>> unsure, split = [[0.5, 0.5]] * 2, [[1.0, 0.0], [0.0, 1.0]]
        >>> draws = np.stack([unsure, split], axis=1)
        >>> mutual_information(draws).round(3).tolist()
        [0.0, 0.693]

    References:
        Houlsby et al., *Bayesian Active Learning for Classification and Preference
        Learning*, 2011. https://arxiv.org/abs/1112.5745
    """
    p = _probabilities(samples, from_logits)
    return np.maximum(_entropy(p.mean(axis=0)) - _entropy(p).mean(axis=0), 0.0)


def _probabilities(samples, from_logits):
    p = np.asarray(samples, "float64")
    if p.ndim != 3:
        raise ValueError(
            f"samples must be (samples, examples, classes). Received: shape={p.shape}"
        )
    if from_logits:
        p = np.exp(p - p.max(axis=-1, keepdims=True))
        return p / p.sum(axis=-1, keepdims=True)
    if np.any(p < -1e-6) or np.any(np.abs(p.sum(axis=-1) - 1) > 1e-2):
        raise ValueError(
            "Probabilities must be at least 0 and sum to 1; say from_logits=True for "
            f"logits. Received: values from {p.min():g} to {p.max():g}"
        )
    return p


def _entropy(p):
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p == 0, 0.0, p * np.log(p))  # NaN stays NaN
    return 0.0 - terms.sum(axis=-1)


def _rows(x, rows):
    return keras.tree.map_structure(lambda a: a[rows], x)


def _seeded(seed, states):
    """States of the seed generators for one seed, all different."""
    check_count("seed", seed, least=0)
    words = [np.random.SeedSequence([seed, n]) for n in range(len(states))]
    return [
        (w.generate_state(2) & 0x3FFFFFFF).astype(s.dtype)
        for w, s in zip(words, states, strict=True)
    ]


@contextlib.contextmanager
def _seeded_outside(seed):
    """Seed PyTorch's own generator, from which Keras's Dropout without a seed draws."""
    if seed is None or keras.backend.backend() != "torch":
        yield
        return
    states = random.getstate(), np.random.get_state(), backend.random_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        backend.set_random_state(states[2])


def seed_states(layer):
    """State variables of all seed generators inside a layer or model.

    Args:
        layer: A built layer or model.

    Returns:
        List of Keras variables, without repetition.

    Example:
        >>> len(seed_states(keras.layers.Dropout(0.5)))
        1
    """
    found = {
        id(v): v
        for v in layer.non_trainable_variables
        if v.path.endswith("seed_generator_state")
    }
    return list(found.values())


def _program(model, batch, samples):
    """The compiled program for these shapes, and the seeds that it uses."""
    if not model.built:
        model(batch)
    seeds = seed_states(model)
    if not seeds:
        raise ValueError(
            "Every draw would be the same: the model needs a Bayesian layer, or to be "
            f"wrapped in MonteCarloDropout. Received: model={model.name}"
        )
    shapes = repr(keras.tree.map_structure(lambda a: (a.shape, a.dtype), batch))
    program = backend.kept_program(
        model,
        ("draws", samples, shapes),
        lambda: backend.compile(_draw(model, seeds, samples), jit=False),
    )
    return program, seeds


def _check_drawn(model, drawn, seeds, start):
    """Refuse a model that has generators and asks none of them in inference."""
    still = [
        np.array_equal(ops.convert_to_numpy(seed), state)
        for seed, state in zip(seeds, start, strict=True)
    ]
    if all(still) and (drawn == drawn[:1]).all():
        raise ValueError(
            "Every draw is the same: no layer of the model is random when it is called "
            "with training=False, as Dropout is not; wrap it in MonteCarloDropout. "
            f"Received: model={model.name}"
        )


def _draw(model, seeds, samples):
    def draw(x):
        x = keras.tree.map_structure(ops.convert_to_tensor, x)

        def once(states):
            mapping = zip(seeds, states, strict=True)
            with backend.RecordingScope(mapping) as scope:
                y = model(x, training=False)
            return y, [scope.get_current_value(s) for s in seeds]

        def nth(n):  # a generator counts its draws, and each call makes as many
            moved = [
                a + ops.cast(n, a.dtype) * (b - a)
                for a, b in zip(first, second, strict=True)
            ]
            return once(moved)[0]

        first = [ops.convert_to_tensor(s) for s in seeds]
        y, second = once(first)
        y = y[None]
        if samples > 1:
            y = ops.concatenate([y, ops.map(nth, ops.arange(1, samples))])
        for seed, a, b in zip(seeds, first, second, strict=True):
            seed.assign(a + samples * (b - a))
        return y

    return draw
