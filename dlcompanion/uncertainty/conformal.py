r"""Conformal prediction: sets of classes that hold the truth as often as promised.

A held-out example is *exchangeable* with a new one: any order of them is as likely as
any other. So the new one's score has rank :math:`1 \ldots n + 1` among all with equal
probability, whatever the model is and whatever the data are. Take all classes whose
score is not too large, and the set holds the truth with probability
:math:`1 - \alpha` at least.

===============================  =====================================================
:class:`SplitConformal`           smallest sets on average
:class:`AdaptivePredictionSets`   sets that grow with the difficulty (APS)
:class:`RegularizedPredictionSets`  the same, without the long tail of classes (RAPS)
===============================  =====================================================

The promise is *marginal*: on average over calibration sets and inputs, not for each
class or kind of input. Guarantees by class or group are in
:mod:`~dlcompanion.uncertainty.prediction_sets.mondrian_conformal`, intervals in
:mod:`~dlcompanion.uncertainty.prediction_sets.conformal_regression`.
"""

import math

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import (
    check_boolean,
    check_count,
    check_labels,
    check_number,
    check_probabilities,
)
from dlcompanion.training import SavesSeeds

#: Scores that differ by less are one score: a model rounds otherwise in other batches.
TIES = 1e-5


def conformal_quantile(scores, alpha):
    r"""The score that a new example keeps with probability :math:`1 - \alpha`.

    Of :math:`n` scores it is the :math:`k`-th smallest, :math:`k = \lceil (n + 1)
    (1 - \alpha) \rceil`. If scores are exchangeable,

    .. math:: 1 - \alpha \le P(s_{n+1} \le \hat q) \le 1 - \alpha + \frac{1}{n + 1} ,

    the upper bound where no two scores are equal. *Given* the calibration scores, the
    coverage is not :math:`1 - \alpha` but a draw of a
    :math:`\mathrm{Beta}(k, n + 1 - k)`.

    Args:
        scores: Array ``(n,)`` of numbers, large where the model is wrong.
        alpha: Number between 0 and 1, the share of errors that is allowed.

    Returns:
        The quantile, as a float.

    Raises:
        ValueError: If a score is NaN, ``alpha`` is out of range, or there are fewer
            than :math:`1 / \alpha - 1` scores: then no finite number is enough.

    Example:
        >>> conformal_quantile(np.arange(1, 20), alpha=0.1)
        18.0

    References:
        Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*, 2005;
        Angelopoulos and Bates, *A Gentle Introduction to Conformal Prediction and
        Distribution-Free Uncertainty Quantification*, 2021.
        https://arxiv.org/abs/2107.07511
    """
    alpha = check_number("alpha", alpha, 0, 1, open_ends=True)
    scores = np.asarray(scores, "float64")
    if scores.ndim != 1 or np.isnan(scores).any():
        raise ValueError(
            "scores must be one row of numbers without NaN. Received: "
            f"shape={scores.shape}, NaN={int(np.isnan(scores).sum())}"
        )
    n = len(scores)
    rank = math.ceil((n + 1) * (1 - alpha) - 1e-9)  # 10 * 0.9 may be a little above 9
    if rank > n:
        raise ValueError(
            f"An alpha of {alpha:g} needs at least {math.ceil(1 / alpha - 1 - 1e-9)} "
            f"calibration examples. Received: {n}"
        )
    return float(np.partition(scores, rank - 1)[rank - 1])


def one_output(outputs, dtype):
    """NumPy outputs of a model that must have one.

    Args:
        outputs: What ``predict`` returned.
        dtype: String.

    Returns:
        NumPy array of that dtype.

    Raises:
        ValueError: If there are several.

    Example:
        >>> one_output({"a": np.ones(2), "b": np.ones(2)}, "float32")
        Traceback (most recent call last):
        ValueError: The model must give one output. Received: 2 outputs
    """
    if isinstance(outputs, dict | list | tuple):
        raise ValueError(
            f"The model must give one output. Received: {len(outputs)} outputs"
        )
    return np.asarray(outputs, dtype)


@keras.saving.register_keras_serializable(package="dlcompanion")
class ConformalPredictor(SavesSeeds, keras.Model):
    """A model with a threshold behind it, for the conformal predictors.

    Wrap a trained model, calibrate on held-out examples, predict:
    ``SplitConformal(model).calibrate(x, y).predict(x_new)``. It is a Keras model, saved
    in one file with the one inside, and comes back calibrated. It has nothing to train;
    compiled with metrics alone, such as :class:`SetCoverage`, it takes ``evaluate``.

    A predictor of one's own defines ``conformity(outputs, y)``, the NumPy scores of
    calibration examples, and ``call``.

    Args:
        model: A trained Keras model.
        alpha: Number between 0 and 1, the share of errors that is allowed.
        **kwargs: Passed on to :class:`keras.Model`.

    Raises:
        ValueError: If ``model`` is not a Keras layer or ``alpha`` is out of range; in
            ``calibrate``, for bad data or too few of them; in ``predict``, if the
            predictor was not calibrated. (Called inside another model it then gives
            empty sets, or intervals of NaN.)

    Example:
        >>> inside = keras.Sequential([keras.Input((2,)), keras.layers.Softmax()])
        >>> issubclass(SplitConformal, ConformalPredictor)
        True
        >>> SplitConformal(inside, alpha=0.2).alpha
        0.2
    """

    def __init__(self, model, alpha=0.1, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(model, keras.Model):
            raise ValueError(f"model must be a Keras model. Received: model={model!r}")
        self.model = model
        self.alpha = check_number("alpha", alpha, 0, 1, open_ends=True)
        self.make_threshold(())

    def make_threshold(self, shape):
        """The weight that ``calibrate`` sets; NaN before."""
        self.threshold = self.add_weight(
            name="threshold",
            shape=shape,
            initializer=keras.initializers.Constant(float("nan")),
            trainable=False,
            autocast=False,
            dtype="float32",
        )

    def build(self, input_shape):
        if not self.model.built:
            self.model.build(input_shape)

    def calibrate(self, x, y, batch_size=256):
        """Set the threshold on held-out examples, and return the predictor itself."""
        outputs = self.model.predict(x, batch_size=batch_size, verbose=0)
        found = conformal_quantile(self.conformity(outputs, y), self.alpha)
        self.set_threshold(x, found)
        return self

    def set_threshold(self, x, value):
        """Build for inputs like ``x`` and set the threshold."""
        if not self.built:
            shape = keras.tree.map_structure(lambda a: (None, *np.shape(a)[1:]), x)
            self.build(shape)
        self.threshold.assign(value)

    def check_calibrated(self):
        """Refuse a predictor without a threshold by a ValueError."""
        if np.isnan(ops.convert_to_numpy(self.threshold)).any():
            raise ValueError(
                "Call calibrate on held-out examples before predict. "
                "Received: threshold=NaN"
            )

    def predict(self, *args, **kwargs):
        self.check_calibrated()
        return super().predict(*args, **{"verbose": 0, **kwargs})

    def evaluate(self, *args, **kwargs):
        self.check_calibrated()
        return super().evaluate(*args, **kwargs)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        if not training and self.loss is None:  # evaluate measures metrics alone
            return ops.zeros(())
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def get_config(self):
        model = keras.saving.serialize_keras_object(self.model)
        return {**super().get_config(), "model": model, "alpha": self.alpha}

    @classmethod
    def from_config(cls, config):
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(**{**config, "model": model})


@keras.saving.register_keras_serializable(package="dlcompanion")
class SplitConformal(ConformalPredictor):
    r"""All classes that are probable enough: the smallest sets.

    .. math:: s(x, k) = 1 - \hat p_k(x), \qquad
              C(x) = \{k : s(x, k) \le \hat q\}

    with the ``conformal_quantile`` :math:`\hat q` of the scores of the true classes
    of held-out examples. (Scores that exceed it by no more than 1e-5, the rounding of
    a network in another batch, count as equal.) Were :math:`\hat p` right, no sets of
    that coverage were smaller on average. The price: sets are too small, or empty, for
    hard inputs, and larger than needed for easy ones.

    ``predict`` returns a boolean array: which classes are in the set.

    Args:
        model: Trained Keras model from inputs to ``(batch, classes)``.
        alpha: Number between 0 and 1, the share of errors that is allowed.
        from_logits: Boolean, whether the outputs of the model are logits.
        **kwargs: Passed on to :class:`keras.Model`.

    Input shape:
        That of ``model``.

    Output shape:
        ``(batch, classes)``, boolean.

    Raises:
        ValueError: As :class:`ConformalPredictor`; in ``calibrate``, if outputs are no
            probabilities of at least two classes or a label is not a class.

    Example:
        >>> inside = keras.Sequential([keras.Input((2,)), keras.layers.Softmax()])
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> sets = SplitConformal(inside).calibrate(x, x.argmax(axis=1)).predict(x)
        >>> bool(sets[np.arange(200), x.argmax(axis=1)].mean() >= 0.9)
        True

    References:
        Sadinle, Lei and Wasserman, *Least Ambiguous Set-Valued Classifiers with Bounded
        Error Levels*, 2019. https://arxiv.org/abs/1609.00451
    """

    def __init__(self, model, alpha=0.1, from_logits=False, **kwargs):
        super().__init__(model, alpha, **kwargs)
        self.from_logits = check_boolean("from_logits", from_logits)

    def probabilities(self, outputs):
        """Probabilities in float32."""
        p = ops.cast(outputs, "float32")
        return ops.softmax(p) if self.from_logits else p

    def scores(self, p):
        """Scores ``(batch, classes)`` of probabilities."""
        return 1.0 - p

    def all_scores(self, outputs):
        """Scores of all classes of NumPy outputs, which are checked."""
        outputs = one_output(outputs, "float32")
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise ValueError(
                "The model must give (batch, classes), with at least two classes. "
                f"Received: outputs of shape {outputs.shape}"
            )
        p = ops.convert_to_numpy(self.probabilities(outputs))
        check_probabilities("outputs of the model", p)
        return ops.convert_to_numpy(self.scores(ops.convert_to_tensor(p)))

    def conformity(self, outputs, y):
        scores = self.all_scores(outputs)
        labels = check_labels("labels", y, scores.shape[1], len(scores))
        return scores[np.arange(len(scores)), labels]

    def call(self, inputs):
        p = self.probabilities(self.model(inputs, training=False))
        return self.scores(p) <= self.threshold + TIES

    def get_config(self):
        return {**super().get_config(), "from_logits": self.from_logits}


@keras.saving.register_keras_serializable(package="dlcompanion")
class AdaptivePredictionSets(SplitConformal):
    r"""Classes in falling order until their probabilities sum to enough (APS).

    .. math:: s(x, k) = \sum_{j : \hat p_j > \hat p_k} \hat p_j + u\, \hat p_k,
              \qquad u \sim U(0, 1) ,

    is the mass that stands before class :math:`k`, and a random part of its own. Easy
    inputs get small sets and hard ones large sets, so that the coverage varies less
    with the input than that of :class:`SplitConformal`. The draw :math:`u`, one for
    each example, makes the coverage exact; without it sets are larger than needed.

    Args:
        model: Trained Keras model from inputs to ``(batch, classes)``.
        alpha: Number between 0 and 1, the share of errors that is allowed.
        from_logits: Boolean, whether the outputs of the model are logits.
        randomize: Boolean, whether :math:`u` is drawn; otherwise it is 1.
        seed: Integer, fixes the draws.
        **kwargs: Passed on to :class:`keras.Model`.

    Input shape:
        That of ``model``.

    Output shape:
        ``(batch, classes)``, boolean.

    Raises:
        ValueError: As :class:`SplitConformal`, or if ``randomize`` is not a boolean.

    Example:
        >>> inside = keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])
        >>> x = np.random.default_rng(0).normal(size=(500, 3))
        >>> labels = (x + np.random.default_rng(1).gumbel(size=x.shape)).argmax(axis=1)
        >>> sets = AdaptivePredictionSets(inside).calibrate(x, labels).predict(x)
        >>> bool(0.85 < sets[np.arange(500), labels].mean() < 0.95)
        True

    References:
        Romano, Sesia and Candes, *Classification with Valid and Adaptive Coverage*,
        2020. https://arxiv.org/abs/2006.02544
    """

    def __init__(
        self, model, alpha=0.1, from_logits=False, randomize=True, seed=None, **kwargs
    ):
        super().__init__(model, alpha, from_logits, **kwargs)
        self.randomize = check_boolean("randomize", randomize)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def scores(self, p):
        order = ops.argsort(-p, axis=-1)
        before = ops.cumsum(ops.take_along_axis(p, order, axis=-1), axis=-1)
        rank = ops.argsort(order, axis=-1)  # 0 for the largest
        until = ops.take_along_axis(before, rank, axis=-1)
        u = 1.0
        if self.randomize:
            shape = (ops.shape(p)[0], 1)
            u = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return until - (1.0 - u) * p + self.extra(ops.cast(rank + 1, "float32"))

    def extra(self, rank):
        """What is added for a class of rank 1, 2, ..."""
        return 0.0

    def get_config(self):
        config = {"randomize": self.randomize, "seed": self.seed}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="dlcompanion")
class RegularizedPredictionSets(AdaptivePredictionSets):
    r"""Adaptive sets with a penalty for each class beyond the first few (RAPS).

    .. math:: s(x, k) = \sum_{j : \hat p_j > \hat p_k} \hat p_j + u\, \hat p_k
              + \lambda \max(0, o(x, k) - k_0)

    with the rank :math:`o` of class :math:`k`, 1 for the most probable. The small
    probabilities in the tail of a softmax are the least reliable, and sets of
    :class:`AdaptivePredictionSets` fill up with them; the penalty cuts them off.

    Args:
        model: Trained Keras model from inputs to ``(batch, classes)``.
        alpha: Number between 0 and 1, the share of errors that is allowed.
        penalty: Number of at least 0, :math:`\lambda`.
        free: Integer of at least 0, :math:`k_0`, the ranks that cost nothing.
        from_logits: Boolean, whether the outputs of the model are logits.
        randomize: Boolean, whether :math:`u` is drawn; otherwise it is 1.
        seed: Integer, fixes the draws.
        **kwargs: Passed on to :class:`keras.Model`.

    Input shape:
        That of ``model``.

    Output shape:
        ``(batch, classes)``, boolean.

    Raises:
        ValueError: As :class:`AdaptivePredictionSets`, or if ``penalty`` is negative or
            ``free`` is no count.

    Example:
        >>> inside = keras.Sequential([keras.Input((9,)), keras.layers.Softmax()])
        >>> x = np.random.default_rng(0).normal(size=(500, 9))
        >>> labels = (x + np.random.default_rng(1).gumbel(size=x.shape)).argmax(axis=1)
        >>> sets = RegularizedPredictionSets(inside).calibrate(x, labels).predict(x)
        >>> bool(0.85 < sets[np.arange(500), labels].mean() < 0.95)
        True

    References:
        Angelopoulos, Bates, Malik and Jordan, *Uncertainty Sets for Image Classifiers
        using Conformal Prediction*, 2021. https://arxiv.org/abs/2009.14193
    """

    def __init__(
        self,
        model,
        alpha=0.1,
        penalty=0.1,
        free=1,
        from_logits=False,
        randomize=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(model, alpha, from_logits, randomize, seed, **kwargs)
        self.penalty = check_number("penalty", penalty)
        self.free = check_count("free", free, least=0)

    def extra(self, rank):
        return self.penalty * ops.maximum(rank - self.free, 0.0)

    def get_config(self):
        config = {"penalty": self.penalty, "free": self.free}
        return {**super().get_config(), **config}
