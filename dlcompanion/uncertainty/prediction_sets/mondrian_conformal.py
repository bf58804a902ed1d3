"""Conformal sets whose promise holds within each class, or within each group."""

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count, check_labels
from dlcompanion.uncertainty.conformal import (
    TIES,
    ConformalPredictor,
    SplitConformal,
    conformal_quantile,
)


class _Mondrian(ConformalPredictor):
    """A threshold for each category, on the scores of another predictor."""

    def __init__(self, predictor, **kwargs):
        if not isinstance(predictor, SplitConformal):
            raise ValueError(
                "predictor must be a SplitConformal, or one of its adaptive kinds. "
                f"Received: predictor={predictor!r}"
            )
        super().__init__(predictor.model, predictor.alpha, **kwargs)
        self.predictor = predictor

    def quantiles(self, scores, category, count):
        """The threshold of each category."""
        found = []
        for k in range(count):
            try:
                mine = scores[category == k]
                found.append(conformal_quantile(mine, self.alpha))
            except ValueError as error:
                raise ValueError(f"Category {k}: {error}") from error
        return np.array(found)

    def get_config(self):
        base = keras.Model.get_config(self)
        predictor = keras.saving.serialize_keras_object(self.predictor)
        return {**base, "predictor": predictor}

    @classmethod
    def from_config(cls, config):
        predictor = keras.saving.deserialize_keras_object(config["predictor"])
        return cls(**{**config, "predictor": predictor})


@keras.saving.register_keras_serializable(package="dlcompanion")
class ClassConditionalConformal(_Mondrian):
    r"""Sets that hold the truth as often as promised *for each class*.

    .. math:: C(x) = \{k : s(x, k) \le \hat q_k\}, \qquad
              P\bigl(y \in C(x) \mid y = k\bigr) \ge 1 - \alpha ,

    with the ``conformal_quantile`` :math:`\hat q_k` of the
    held-out examples of class :math:`k` alone. A class that the model confuses gets a
    larger threshold. Each class needs :math:`1 / \alpha - 1` examples at least, and
    a few times as many for a threshold that is not the largest score of all.

    Args:
        predictor: A :class:`~dlcompanion.uncertainty.SplitConformal` or adaptive one,
            whose model, scores and ``alpha`` are used. Its own threshold is not.
        **kwargs: Passed on to :class:`keras.Model`.

    Input shape:
        That of the model inside.

    Output shape:
        ``(batch, classes)``, boolean.

    Raises:
        ValueError: If ``predictor`` is none; in ``calibrate``, as ``predictor``, and if
            a class has too few examples.

    Example:
        >>> inside = keras.Sequential([keras.Input((2,)), keras.layers.Softmax()])
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> predictor = ClassConditionalConformal(SplitConformal(inside))
        >>> predictor.calibrate(x, x.argmax(axis=1)).predict(x).shape
        (200, 2)

    References:
        Vovk, *Conditional Validity of Inductive Conformal Predictors*, 2012.
        https://arxiv.org/abs/1209.2673
    """

    def make_threshold(self, shape):
        """As many as classes: not before the model is built."""

    def build(self, input_shape):
        super().build(input_shape)
        outputs = self.model.compute_output_shape(input_shape)
        super().make_threshold((outputs[-1],))

    def calibrate(self, x, y, batch_size=256):
        """Set a threshold for each class, and return the predictor itself."""
        outputs = self.model.predict(x, batch_size=batch_size, verbose=0)
        scores = self.predictor.all_scores(outputs)
        count = scores.shape[1]
        labels = check_labels("labels", y, count, len(scores))
        found = self.quantiles(scores[np.arange(len(scores)), labels], labels, count)
        self.set_threshold(x, found)
        return self

    def check_calibrated(self):
        if not self.built:
            raise ValueError(
                "Call calibrate on held-out examples before predict. "
                "Received: no threshold"
            )
        super().check_calibrated()

    def call(self, inputs):
        p = self.predictor.probabilities(self.model(inputs, training=False))
        return self.predictor.scores(p) <= self.threshold + TIES


@keras.saving.register_keras_serializable(package="dlcompanion")
class GroupConditionalConformal(_Mondrian):
    r"""Sets that hold the truth as often as promised *for each group of inputs*.

    .. math:: C(x, g) = \{k : s(x, k) \le \hat q_g\}, \qquad
              P\bigl(y \in C(x, g) \mid g\bigr) \ge 1 - \alpha ,

    with the ``conformal_quantile`` :math:`\hat q_g` of the
    held-out examples of group :math:`g`. Groups are what one knows beforehand: the
    hospital, the sensor, the writer. Inputs are pairs, ``calibrate([x, groups], y)``
    and ``predict([x, groups])``.

    Args:
        predictor: A :class:`~dlcompanion.uncertainty.SplitConformal` or adaptive one,
            whose model, scores and ``alpha`` are used. Its own threshold is not.
        groups: Positive integer, how many there are.
        **kwargs: Passed on to :class:`keras.Model`.

    Input shape:
        Pair of that of the model inside, and integers ``(batch,)`` or ``(batch, 1)``.

    Output shape:
        ``(batch, classes)``, boolean.

    Raises:
        ValueError: If ``predictor`` is none or ``groups`` is no count; in
            ``calibrate``, as ``predictor``, if a group is not a number from 0 to
            ``groups - 1`` or has too few examples. A group that is out of range in
            ``predict`` gives an empty set.

    Example:
        >>> inside = keras.Sequential([keras.Input((2,)), keras.layers.Softmax()])
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> group = np.arange(200) % 2
        >>> predictor = GroupConditionalConformal(SplitConformal(inside), groups=2)
        >>> predictor.calibrate([x, group], x.argmax(axis=1)).predict([x, group]).shape
        (200, 2)

    References:
        Vovk, *Conditional Validity of Inductive Conformal Predictors*, 2012.
        https://arxiv.org/abs/1209.2673
    """

    def __init__(self, predictor, groups, **kwargs):
        self._group_count = check_count("groups", groups)
        super().__init__(predictor, **kwargs)
        self.groups = groups

    def make_threshold(self, shape):
        super().make_threshold((self._group_count,))

    def build(self, input_shape):
        super().build(input_shape[0])

    def calibrate(self, x, y, batch_size=256):
        """Set a threshold for each group, and return the predictor itself."""
        inputs, group = x
        outputs = self.model.predict(inputs, batch_size=batch_size, verbose=0)
        scores = self.predictor.conformity(outputs, y)
        group = check_labels("Groups", group, self.groups, len(scores))
        self.set_threshold(x, self.quantiles(scores, group, self.groups))
        return self

    def call(self, inputs):
        x, group = inputs
        p = self.predictor.probabilities(self.model(x, training=False))
        group = ops.cast(ops.reshape(group, (-1, 1)), "int32")
        mine = group == ops.arange(self.groups, dtype="int32")  # (batch, groups)
        # the threshold of the group, and below every score where there is none
        limits = ops.where(mine, ops.convert_to_tensor(self.threshold), 0.0)
        limit = ops.sum(limits, axis=-1, keepdims=True)
        known = ops.any(mine, axis=-1, keepdims=True)
        return (self.predictor.scores(p) <= limit + TIES) & known

    def get_config(self):
        return {**super().get_config(), "groups": self.groups}
