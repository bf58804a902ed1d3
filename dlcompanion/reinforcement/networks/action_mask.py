"""Actions that are not allowed now."""

import keras
import numpy as np
from keras import ops

from dlcompanion.backend import flatten_layers

FORBIDDEN = -1e9  # a float32 softmax makes exactly 0 of it, and its gradient too
FORBIDDEN_HALF = -6e4  # the same in float16


@keras.saving.register_keras_serializable(package="dlcompanion")
class ActionMask(keras.layers.Layer):
    r"""Takes the probability of forbidden actions away.

    .. math:: z'_a = \begin{cases} z_a & m_a > 0 \\ -10^9 & m_a = 0 \end{cases}
        \qquad \operatorname{softmax}(z')_a = 0 \;\text{ where } m_a = 0 .

    Which actions are allowed is part of what the agent observes, so it comes in with
    the observation, and the mask is the last layer of the policy. Every agent that
    takes a policy then has it, when it plays, learns and evaluates:

    .. code-block:: python

        inputs = keras.Input((features + actions,))  # FlattenObservation of a Dict
        hidden = keras.layers.Dense(64, "tanh")(inputs[:, :features])
        logits = keras.layers.Dense(actions)(hidden)
        policy = keras.Model(inputs, ActionMask()([logits, inputs[:, features:]]))
        agent = PPO(environment, policy=policy)

    Where nothing is allowed all actions are equally probable. A
    :class:`~dlcompanion.reinforcement.Normalizer` leaves the entries of the observation
    that the mask is made of as they are.

    Args:
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        Two tensors ``(batch, actions)``: logits, and a mask, above 0 where the action
        is allowed.

    Output shape:
        ``(batch, actions)``.

    Raises:
        ValueError: When built on anything but two tensors of one shape.

    Example:
        >>> mask = ops.convert_to_tensor([[1, 0, 1]])
        >>> logits = ActionMask()([ops.zeros((1, 3)), mask])
        >>> ops.convert_to_numpy(ops.softmax(logits)).tolist()
        [[0.5, 0.0, 0.5]]

    References:
        Huang and Ontanon, *A Closer Look at Invalid Action Masking in Policy Gradient
        Algorithms*, 2022. https://arxiv.org/abs/2006.14171
    """

    def build(self, input_shape):
        if len(input_shape) != 2 or tuple(input_shape[0]) != tuple(input_shape[1]):
            raise ValueError(
                "ActionMask takes logits and a mask of one shape (batch, actions). "
                f"Received: input_shape={input_shape}"
            )

    def call(self, inputs):
        logits, mask = inputs
        half = keras.backend.standardize_dtype(logits.dtype) == "float16"
        low = FORBIDDEN_HALF if half else FORBIDDEN
        low = ops.cast(low, logits.dtype)
        return ops.where(ops.cast(mask, "float32") > 0, logits, low)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])


def is_forbidden(outputs):
    """Which actions a policy's outputs forbid, after :class:`ActionMask`.

    Args:
        outputs: Array ``(batch, actions)``.

    Returns:
        Boolean array of that shape; of a row that forbids everything, nothing.

    Example:
        >>> is_forbidden(np.array([[1.0, -1e9], [-1e9, -1e9]])).tolist()
        [[False, True], [False, False]]
    """
    forbidden = (outputs <= 0.5 * FORBIDDEN) | (outputs == FORBIDDEN_HALF)
    return forbidden & ~forbidden.all(axis=-1, keepdims=True)


def mask_entries(policy, shape):
    """Which entries of an observation decide what :class:`ActionMask` allows.

    Found out by trying: an entry that moves the mask is one of them.

    Args:
        policy: :class:`keras.Model` of observations, or of ``[observations, states]``.
        shape: Tuple, the shape of one observation.

    Returns:
        Boolean array of that shape.

    Raises:
        ValueError: If there is an ``ActionMask`` within a model or layer of its own,
            where its mask cannot be followed back to the observation.

    Example:
        >>> x = keras.Input((3,))
        >>> policy = keras.Model(x, ActionMask()([keras.layers.Dense(2)(x), x[:, 1:]]))
        >>> mask_entries(policy, (3,)).tolist()
        [False, True, True]
    """
    found = np.zeros(shape, bool)
    masks = [x for x in flatten_layers(policy) if isinstance(x, ActionMask)]
    if not masks:
        return found
    outside = [x for x in policy.layers if isinstance(x, ActionMask)]
    if len(outside) < len(masks) or not getattr(policy, "inputs", None):
        raise ValueError(
            "Behind a normalizer the mask of an ActionMask must be seen: let the layer "
            "stand in the keras.Model(inputs, outputs) that is the policy itself, or "
            "normalize no observations, Normalizer(observations=False). "
            f"Received: policy={policy.name!r}, with an ActionMask within another layer"
        )
    model = keras.Model(policy.inputs, [layer.input[1] for layer in masks])

    def seen(rows):
        inputs = [np.zeros((len(rows), *x.shape[1:]), "float32") for x in policy.inputs]
        inputs[0][:] = rows.reshape(-1, *shape)
        outputs = keras.tree.flatten(model(inputs, training=False))
        return [ops.convert_to_numpy(y) for y in outputs]

    random, entries = np.random.default_rng(0), found.reshape(-1)  # the same memory
    for base in random.normal(size=(4, len(entries))):
        for some in np.array_split(np.arange(len(entries)), -(-len(entries) // 256)):
            moved = np.tile(base, (len(some), 1))
            moved[np.arange(len(some)), some] *= -1
            for before, after in zip(seen(base[None]), seen(moved), strict=True):
                entries[some] |= (before != after).reshape(len(some), -1).any(axis=1)
    return found
