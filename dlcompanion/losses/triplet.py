"""Triplet losses: draw the same together, push the different apart, by a margin."""

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_choice


def pairwise_distances(embeddings, distance="euclidean"):
    r"""Distance of every embedding to every other.

    .. math:: D_{ij} = \lVert x_i - x_j \rVert_2
        \quad\text{or}\quad D_{ij} = \lVert x_i - x_j \rVert_2^2

    The differences are formed first, never
    :math:`\lVert x_i\rVert^2 - 2 x_i^\top x_j + \lVert x_j\rVert^2`, which loses
    all digits where embeddings are close together. That takes memory for
    ``batch * batch * features`` numbers. The root has no derivative at distance
    zero; zero, one of its subgradients, is used there.

    Args:
        embeddings: Tensor of shape ``(batch, features)``.
        distance: ``"euclidean"`` or ``"squared"``.

    Returns:
        Tensor of shape ``(batch, batch)``.

    Example:
        >>> d = pairwise_distances(keras.ops.array([[0.0, 0.0], [3.0, 4.0]]))
        >>> float(d[0, 1])
        5.0
    """
    differences = embeddings[:, None, :] - embeddings[None, :, :]
    squares = ops.sum(ops.square(differences), axis=-1)  # (batch, batch)
    if distance == "squared":
        return squares
    apart = ops.not_equal(squares, 0)  # also where it is NaN, so that NaN stays
    roots = ops.sqrt(ops.where(apart, squares, 1.0))
    return ops.where(apart, roots, 0.0)


def positives_and_negatives(labels):
    """Masks of the positives and of the negatives of each anchor.

    Args:
        labels: Tensor of shape ``(batch,)``.

    Returns:
        Two boolean tensors of shape ``(batch, batch)``, the anchor in the row. An
        example is no positive of itself.

    Example:
        >>> positive, negative = positives_and_negatives(keras.ops.array([7, 7, 2]))
        >>> keras.ops.convert_to_numpy(positive).astype(int).tolist()
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    same = ops.equal(labels[:, None], labels[None, :])
    itself = ops.eye(ops.shape(labels)[0], dtype="bool")
    return ops.logical_and(same, ops.logical_not(itself)), ops.logical_not(same)


class _Triplet(keras.losses.Loss):
    """What the minings share: arguments, checks, and the mean."""

    def __init__(
        self,
        margin=1.0,
        distance="euclidean",
        reduction="sum_over_batch_size",
        **kwargs,
    ):
        super().__init__(reduction=reduction, **kwargs)
        number = isinstance(margin, (int, float)) and not isinstance(margin, bool)
        if margin != "soft" and not (number and 0 <= margin < np.inf):
            raise ValueError(
                'margin must be "soft" or a finite number of at least 0. '
                f"Received: margin={margin!r}"
            )
        self.margin = margin
        self.distance = check_choice("distance", distance, ("euclidean", "squared"))

    def __call__(self, y_true, y_pred, sample_weight=None):
        # Keras casts labels to the dtype of the loss, and float32 cannot tell large
        # integers apart. An example's first equal in the batch names its class as well.
        _check_shapes(y_true, y_pred)
        labels = ops.reshape(ops.convert_to_tensor(y_true), (-1,))
        same = ops.equal(labels[:, None], labels[None, :])
        first = ops.argmax(ops.cast(same, "int32"), axis=1)
        return super().__call__(first, y_pred, sample_weight)

    def hinge(self, gap):
        """The price of a positive farther than a negative by ``gap``."""
        if self.margin == "soft":
            return ops.softplus(gap)
        return ops.relu(gap + self.margin)

    def get_config(self):
        return {
            **super().get_config(),
            "margin": self.margin,
            "distance": self.distance,
        }


def _check_shapes(y_true, y_pred):
    shape, labels = tuple(np.shape(y_pred)), tuple(np.shape(y_true))
    if len(shape) != 2 or (len(labels) != 1 and labels[1:] != (1,)):
        raise ValueError(
            "A triplet loss takes labels (batch,) and embeddings (batch, features). "
            f"Received: y_true.shape={labels}, y_pred.shape={shape}"
        )
    if None not in (labels[0], shape[0]) and labels[0] != shape[0]:
        raise ValueError(
            "Labels and embeddings must be equally many. "
            f"Received: y_true.shape={labels}, y_pred.shape={shape}"
        )
    concrete = isinstance(y_true, (np.ndarray, list, tuple))
    dtype = np.asarray(y_true).dtype if concrete else y_true.dtype
    dtype = keras.backend.standardize_dtype(dtype)
    # MirroredStrategy builds a model on the mean of the labels of all replicas
    averaged = not concrete and dtype == "float64"
    if "int" not in dtype and dtype != "bool" and not averaged:
        raise ValueError(f"Labels must be integers. Received: y_true.dtype={dtype}")
    if not concrete:
        return
    if labels[0] < 2:
        raise ValueError(
            "A triplet needs a batch of at least two examples. "
            f"Received: y_true.shape={labels}"
        )
    values = np.asarray(y_true)
    if values.min() < 0 or values.max() > np.iinfo("int32").max:
        raise ValueError(
            "Labels must lie between 0 and 2**31 - 1. "
            f"Received: y_true from {values.min()} to {values.max()}"
        )


def _shares(totals, counts):
    """Scale ``totals`` so that their mean over the batch is the mean over what counts.

    Args:
        totals: Tensor ``(batch,)``, the sum of each anchor's losses.
        counts: Tensor ``(batch,)``, of how many losses.

    Returns:
        Tensor of shape ``(batch,)``; zeros where nothing counts at all.
    """
    batch = ops.cast(ops.shape(totals)[0], totals.dtype)
    number = ops.sum(ops.cast(counts, totals.dtype))
    return totals * batch / ops.maximum(number, 1.0)


@keras.saving.register_keras_serializable(package="dlcompanion")
class TripletBatchHard(_Triplet):
    r"""Triplet loss of each anchor's farthest positive and nearest negative.

    Most triplets of a batch are satisfied soon and have no gradient. This loss takes
    one triplet an anchor, the hardest of the batch:

    .. math:: \ell_a = \Bigl[\, m + \max_{p:\, y_p = y_a,\, p \neq a} D_{ap}
        - \min_{n:\, y_n \neq y_a} D_{an} \Bigr]_+

    with :math:`D` from ``pairwise_distances``. An anchor without a positive or
    without a negative forms no triplet: its entry is 0, and it does not count in
    the mean. A batch without any triplet has loss 0. Sample batches of several
    classes with several examples each (the paper's P times K).

    The embeddings are used as they come. For the cosine geometry of FaceNet end the
    network in :class:`keras.layers.UnitNormalization`.

    Args:
        margin: Number :math:`m \ge 0`, or ``"soft"`` for
            :math:`\log(1 + e^{D_{ap} - D_{an}})` in place of the hinge.
        distance: ``"euclidean"`` (as in this paper) or ``"squared"`` (as in FaceNet).
        reduction: As in every Keras loss. ``None`` gives one entry an anchor, scaled
            such that the mean over the batch is the mean over the anchors with a
            triplet.
        **kwargs: Passed on to :class:`keras.losses.Loss`.

    Call arguments:
        y_true: Integer labels, ``(batch,)`` or ``(batch, 1)``.
        y_pred: Embeddings, ``(batch, features)``.
        sample_weight: Optional, ``(batch,)``. Weighs each *anchor's* entry. An
            example of weight 0 is still a positive and a negative of the others,
            and the weights do not enter the count in the mean.

    Raises:
        ValueError: If ``margin`` is negative or no number, ``distance`` is unknown,
            the ranks are not 1 and 2, or the labels are not of an integer dtype.
            If labels come as NumPy array or list, also if they are fewer than two,
            negative, or exceed int32. Inside ``fit`` values cannot be checked:
            there a batch of one has loss 0. NaN in the embeddings gives NaN.

    Example:
        >>> loss = TripletBatchHard(margin=1.0)
        >>> float(loss(np.array([0, 0, 1]), np.array([[0.0], [2.0], [5.0]])))
        0.0
        >>> float(loss(np.array([0, 0, 1]), np.array([[0.0], [2.0], [3.0]])))
        1.0

    References:
        Hermans, Beyer and Leibe, *In Defense of the Triplet Loss for Person
        Re-Identification*, 2017, section 2. https://arxiv.org/abs/1703.07737
    """

    def call(self, y_true, y_pred):
        distances = pairwise_distances(y_pred, self.distance)
        positive, negative = positives_and_negatives(y_true)
        farthest = ops.max(ops.where(positive, distances, 0.0), axis=1)
        nearest = ops.min(ops.where(negative, distances, np.inf), axis=1)
        triplet = ops.logical_and(ops.any(positive, axis=1), ops.any(negative, axis=1))
        gap = ops.where(triplet, farthest - nearest, 0.0)  # (batch,)
        return _shares(ops.where(triplet, self.hinge(gap), 0.0), triplet)


@keras.saving.register_keras_serializable(package="dlcompanion")
class TripletSemiHard(_Triplet):
    r"""Triplet loss of each positive pair with its nearest farther negative.

    The hardest negatives of a fresh network are often mislabeled or odd, and
    learning from them alone can collapse all embeddings to a point. FaceNet
    therefore takes, for every pair of anchor and positive, the *semi-hard* negative:
    the nearest of those that are farther than the positive,

    .. math:: \ell_{ap} = \bigl[\, m + D_{ap} - D_{an(a,p)} \bigr]_+ , \qquad
        n(a, p) = \arg\min_{n:\; y_n \neq y_a,\; D_{an} > D_{ap}} D_{an},

    and the negative farthest from the anchor where none is farther than the positive
    (the choice of TensorFlow Addons' ``TripletSemiHardLoss``; the paper leaves it
    open). An anchor's entry is the sum over its positives, scaled such that the mean
    over the batch is the mean over all positive pairs. An anchor without positive has
    entry 0; where the batch has one class only, all entries are 0. Needs memory for
    ``batch ** 3`` numbers, unless the compiler fuses them away.

    The embeddings are used as they come. FaceNet puts them on the unit sphere, with
    ``distance="squared"`` and ``margin=0.2``: end the network in
    :class:`keras.layers.UnitNormalization`.

    Args:
        margin: Number :math:`m \ge 0`, or ``"soft"`` for
            :math:`\log(1 + e^{D_{ap} - D_{an}})` in place of the hinge.
        distance: ``"euclidean"`` or ``"squared"`` (as in the paper).
        reduction: As in every Keras loss. ``None`` gives one entry an anchor.
        **kwargs: Passed on to :class:`keras.losses.Loss`.

    Call arguments:
        y_true: Integer labels, ``(batch,)`` or ``(batch, 1)``.
        y_pred: Embeddings, ``(batch, features)``.
        sample_weight: Optional, ``(batch,)``. Weighs each *anchor's* entry. An
            example of weight 0 is still a positive and a negative of the others,
            and the weights do not enter the count in the mean.

    Raises:
        ValueError: As :class:`~dlcompanion.losses.TripletBatchHard`.

    Example:
        >>> loss = TripletSemiHard(margin=1.0)
        >>> x = np.array([[0.0], [2.0], [1.0], [2.5]])
        >>> float(loss(np.array([0, 0, 1, 1]), x))  # pairs: 0.5, 2, 1.5, 0
        1.0

    References:
        Schroff, Kalenichenko and Philbin, *FaceNet: A Unified Embedding for Face
        Recognition and Clustering*, 2015, section 3.2.
        https://arxiv.org/abs/1503.03832
    """

    def call(self, y_true, y_pred):
        distances = pairwise_distances(y_pred, self.distance)
        positive, negative = positives_and_negatives(y_true)
        to_positive = distances[:, :, None]  # (anchor, positive, 1)
        to_negative = distances[:, None, :]  # (anchor, 1, negative)
        semi = ops.logical_and(negative[:, None, :], to_negative > to_positive)
        nearest = ops.min(ops.where(semi, to_negative, np.inf), axis=2)
        farthest = ops.max(ops.where(negative, distances, 0.0), axis=1, keepdims=True)
        chosen = ops.where(ops.any(semi, axis=2), nearest, farthest)
        triplet = ops.logical_and(positive, ops.any(negative, axis=1, keepdims=True))
        gap = ops.where(triplet, distances - chosen, 0.0)  # (anchor, positive)
        losses = ops.where(triplet, self.hinge(gap), 0.0)
        return _shares(ops.sum(losses, axis=1), triplet)


@keras.saving.register_keras_serializable(package="dlcompanion")
class TripletAll(_Triplet):
    r"""Triplet loss of every triplet of the batch that is not yet satisfied.

    .. math:: \ell_{apn} = \bigl[\, m + D_{ap} - D_{an} \bigr]_+
        \quad\text{for all}\quad y_p = y_a,\; p \neq a,\; y_n \neq y_a

    The mean runs over the *active* triplets, those with :math:`\ell_{apn} > 0`: a mean
    over all of them would fade as ever more of them are satisfied. So the value does
    not fall to zero smoothly: watch the number of active triplets beside it. An
    anchor's entry is the sum over its triplets, scaled such that the mean over the
    batch is the mean over the active triplets; a batch without any has loss 0. With
    ``margin="soft"`` every triplet is active. Needs memory for ``batch ** 3`` numbers,
    unless the compiler fuses them away.

    The embeddings are used as they come; for the cosine geometry of FaceNet end the
    network in :class:`keras.layers.UnitNormalization`.

    Args:
        margin: Number :math:`m \ge 0`, or ``"soft"`` for
            :math:`\log(1 + e^{D_{ap} - D_{an}})` in place of the hinge.
        distance: ``"euclidean"`` (as in this paper) or ``"squared"``.
        reduction: As in every Keras loss. ``None`` gives one entry an anchor.
        **kwargs: Passed on to :class:`keras.losses.Loss`.

    Call arguments:
        y_true: Integer labels, ``(batch,)`` or ``(batch, 1)``.
        y_pred: Embeddings, ``(batch, features)``.
        sample_weight: Optional, ``(batch,)``. Weighs each *anchor's* entry. An
            example of weight 0 is still a positive and a negative of the others,
            and the weights do not enter the count in the mean.

    Raises:
        ValueError: As :class:`~dlcompanion.losses.TripletBatchHard`.

    Example:
        >>> loss = TripletAll(margin=1.0)
        >>> x = np.array([[0.0], [2.0], [2.5]])
        >>> float(loss(np.array([0, 0, 1]), x))  # active: 0.5 and 2.5
        1.5

    References:
        Hermans, Beyer and Leibe, *In Defense of the Triplet Loss for Person
        Re-Identification*, 2017, "batch all" in section 2.
        https://arxiv.org/abs/1703.07737
    """

    def call(self, y_true, y_pred):
        distances = pairwise_distances(y_pred, self.distance)
        positive, negative = positives_and_negatives(y_true)
        triplet = ops.logical_and(positive[:, :, None], negative[:, None, :])
        gap = distances[:, :, None] - distances[:, None, :]  # (anchor, pos., neg.)
        losses = ops.where(triplet, self.hinge(gap), 0.0)
        active = ops.logical_and(triplet, losses > 0)
        return _shares(ops.sum(losses, axis=(1, 2)), active)
