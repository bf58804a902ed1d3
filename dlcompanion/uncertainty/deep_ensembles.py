"""Deep ensembles: several networks from several starts, trained as one."""

import logging

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_choice, check_count
from dlcompanion.training import StepModel
from dlcompanion.uncertainty.ensembles.ensemble_members import (
    PerMember,
    available_memory,
    check_elementwise,
    check_same,
    checked,
    pool,
    readable,
    seeded,
    unrolled_layers,
    values_of,
)

_LOG = logging.getLogger(__name__)


@keras.saving.register_keras_serializable(package="dlcompanion")
class DeepEnsemble(StepModel):
    r"""Several members of one architecture, trained from different starts as one model.

    Members :math:`m = 1 \ldots M` minimize the same loss and end in different places.
    Their mixture is the prediction, and their disagreement measures its uncertainty:

    .. math:: p(y \mid x) = \frac1M \sum_{m=1}^M p(y \mid x, w_m), \qquad
        -\log p(y \mid x) \le \frac1M \sum_m -\log p(y \mid x, w_m),

    the second by Jensen's inequality, for every example. For normals
    (``outputs="gaussian"``) the mixture is given by its mean and variance,

    .. math:: \mu = \frac1M \sum_m \mu_m, \qquad
        \sigma^2 = \frac1M \sum_m \sigma_m^2 + \frac1M \sum_m (\mu_m - \mu)^2 .

    All members train in one program: each weight is a stack with a leading axis of
    members, the gradient is that of the *sum* of the members' losses, and one optimizer
    updates the stacks. Each member gets the weights that it would get alone on the same
    batches. The attribute ``execution`` (also logged) says how the program is written:

    - ``"vectorized"``: every layer works on the whole stack at once. So with Dense,
      EinsumDense, Embedding, Activation, normalization, attention, pooling, merging,
      reshaping and, outside of PyTorch, Dropout and other random layers.
    - ``"member by member"``: the passes of the members are written one after another,
      and only the optimizer works on stacks. So as soon as one layer convolves (a
      convolution with a kernel for each member is ten times slower on a CPU) or is
      recurrent, or, on PyTorch, draws random numbers.

    Each member begins as ``build_fn()`` does after ``keras.utils.set_random_seed`` with
    its entry of the attribute ``seeds``. (On PyTorch, Keras's Dropout without a seed
    draws from a global generator; give it ``random.randrange(...)`` there.) In ``fit``
    all see the same batches. Arrays with an axis of members after that of the examples,
    ``(examples, members, ...)`` for inputs, targets and weights of examples, give each
    member batches of its own: another order, or a bootstrap sample.

    ``fit`` logs loss and metrics of the mean member, ``evaluate`` those of the
    ensemble and, as ``member_loss``, the loss of the mean member.

    Args:
        build_fn: Function without arguments that returns a new, built
            :class:`keras.Model` with one output. Called ``members`` times.
        members: Positive integer :math:`M`.
        seed: Integer of at least 0, from which each member gets its own.
        outputs: What a member returns: ``"probabilities"`` (of classes),
            ``"logits"`` (also of one column, for two classes), ``"values"``, or
            ``"gaussian"``, means and spreads as
            :class:`~dlcompanion.losses.GaussianNLL` takes them.
        **kwargs: Passed on to :class:`keras.Model`.

    Input shape:
        As of a member; or with an axis of members after that of the examples.

    Output shape:
        As of a member: mean probabilities, also for logits; mean values; or means
        and then variances. For stacked inputs those of each member,
        ``(batch, members, ...)``.

    Raises:
        ValueError: If an argument is out of its range, ``build_fn`` returns
            something else, different architectures or always the same weights, or the
            members do not fit into memory; in ``compile``, if the optimizer would mix
            the members (norms over whole variables, as of ``clipnorm``).

    Example:
        >>> def build():
        ...     return keras.Sequential(
        ...         [keras.Input((2,)), keras.layers.Dense(3, "softmax")]
        ...     )
        >>> ensemble = DeepEnsemble(build, members=4)
        >>> ensemble.compile("adam", "sparse_categorical_crossentropy")
        >>> x, y = np.ones((8, 2), "float32"), np.zeros(8, int)
        >>> history = ensemble.fit(x, y, verbose=0)
        >>> ensemble.predict(x, verbose=0).shape, ensemble.predict_members(x).shape
        ((8, 3), (4, 8, 3))
        >>> ensemble.execution
        'vectorized'

    References:
        Lakshminarayanan, Pritzel and Blundell, *Simple and Scalable Predictive
        Uncertainty Estimation using Deep Ensembles*, 2017.
        https://arxiv.org/abs/1612.01474
    """

    def __init__(self, build_fn, members=5, seed=0, outputs="probabilities", **kwargs):
        super().__init__(**kwargs)
        self.members = check_count("members", members)
        self.seed = check_count("seed", seed, least=0)
        self.outputs = check_choice(
            "outputs", outputs, ("probabilities", "logits", "values", "gaussian")
        )
        states = np.random.SeedSequence(self.seed).generate_state(self.members)
        self.seeds = [int(s) & 0x7FFFFFFF for s in states]
        first = checked(seeded(build_fn, self.seeds[0]))
        self._check_memory(first)
        values = [values_of(first)]
        for member_seed in self.seeds[1:]:
            model = checked(seeded(build_fn, member_seed))
            values.append(values_of(model))
            check_same(first, values[0], values[-1])
        # kept out of Keras's sight: its weights are never used, only its layers
        object.__setattr__(self, "_template", first)
        self._architecture = keras.saving.serialize_keras_object(first)
        self._stacks = self._stack(first.trainable_variables, values, 0, True)
        begin = len(self._stacks)
        rest = first.non_trainable_variables
        self._states = self._stack(rest, values, begin, False)
        slow = unrolled_layers(first)
        self.execution = "member by member" if slow else "vectorized"
        because = f", because of {', '.join(slow)}" if slow else ""
        _LOG.info(
            "%s: %d members, %s%s", self.name, self.members, self.execution, because
        )
        self.member_loss = keras.metrics.Mean("member_loss")
        self.build(first.input_shape)

    def _check_memory(self, model):
        size = sum(int(np.prod(v.shape)) for v in model.variables) * 4
        needed = 4 * self.members * size  # weights, gradients, two slots
        free = available_memory()
        if free is not None and needed > free:
            raise ValueError(
                "Weights, gradients and two slots of the optimizer for each of so many "
                f"members take {needed / 2**20:.0f} MiB, more than the "
                f"{free / 2**20:.0f} MiB of memory that are free. "
                f"Received: members={self.members}"
            )

    def _stack(self, variables, values, begin, trainable):
        stacks = []
        for n, v in enumerate(variables, begin):
            stack = self.add_weight(
                name=v.path.replace("/", "_"),
                shape=(self.members, *v.shape),
                dtype=v.dtype,
                initializer="zeros",
                trainable=trainable,
                autocast=False,
                constraint=v.constraint and PerMember(v.constraint),
            )
            stack.assign(np.stack([member[n] for member in values]))
            stacks.append(stack)
        return stacks

    def build(self, input_shape=None):
        self.built = True

    def compile(self, optimizer="rmsprop", *args, **kwargs):
        optimizer = keras.optimizers.get(optimizer)
        check_elementwise(optimizer)
        super().compile(optimizer, *args, **kwargs)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def _is_stacked(self, x):
        first = keras.tree.flatten(x)[0]
        return len(first.shape) > len(
            keras.tree.flatten(self._template.inputs)[0].shape
        )

    def _pass(self, x, y=None, weight=None, training=False):
        """Outputs, new states, masks and losses of all members, (members, ...).

        A mask is an empty tuple where there is none; without targets there is no loss.
        """
        shared = {"x": x, "y": y, "weight": weight}
        own = {}
        if self._is_stacked(x):
            shared, own = {}, {k: v for k, v in shared.items() if v is not None}
            own = keras.tree.map_structure(lambda a: ops.swapaxes(a, 0, 1), own)

        def one(weights, states, own):
            data = {"y": None, "weight": None, **shared, **own}
            y_pred, states, added = self._template.stateless_call(
                weights, states, data["x"], training=training, return_losses=True
            )
            mask = backend.mask_of(y_pred)
            mask = () if mask is None else ops.cast(mask, "bool")
            if data["y"] is None:
                return y_pred, states, mask
            loss = self.compute_loss(
                y=data["y"], y_pred=y_pred, sample_weight=_copy(data["weight"])
            )
            for extra in added:
                extra = self._aggregate_additional_loss(extra)
                loss = loss + ops.cast(extra, loss.dtype)
            return y_pred, states, mask, loss

        arguments = [[ops.convert_to_tensor(v) for v in self._stacks]]
        arguments.append([ops.convert_to_tensor(v) for v in self._states])
        unroll = self.execution != "vectorized"
        return backend.vectorize(one, unroll)(*arguments, own)

    def call(self, inputs, training=False):
        outputs, states, mask = self._pass(inputs, training=training)
        if training:
            self._keep(states)
        if self._is_stacked(inputs):
            return ops.swapaxes(readable(outputs, self.outputs), 0, 1)
        pooled = readable(pool(outputs, self.outputs), self.outputs)
        return backend.set_mask(pooled, _of_any(mask))

    def compute_output_spec(self, inputs, training=False):
        spec = keras.tree.map_structure(lambda a: a.shape, inputs)
        stacked = self._is_stacked(inputs)
        if stacked:
            spec = keras.tree.map_structure(
                lambda a: (a.shape[0], *a.shape[2:]), inputs
            )
        shape = tuple(self._template.compute_output_shape(spec))
        shape = (shape[0], self.members, *shape[1:]) if stacked else shape
        return keras.KerasTensor(shape, "float32")

    def _keep(self, states):
        for variable, value in zip(self._states, states, strict=True):
            variable.assign(value)

    def update(self, data):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is None:
            raise ValueError("A DeepEnsemble is trained on targets. Received: y=None")
        if backend.replicas() > 1:
            raise ValueError(
                "A DeepEnsemble trains on one device of TensorFlow; tf.distribute is "
                "not supported. "
                f"Received: replicas={backend.replicas()}"
            )

        def total():
            outputs, states, mask, losses = self._pass(x, y, weight, training=True)
            return ops.sum(losses), (outputs, states, mask, ops.mean(losses))

        (_, (outputs, states, mask, loss)), gradients = self.value_and_grad(
            total, self.trainable_variables, has_aux=True
        )
        self._keep(states)
        self.optimizer.apply(gradients, self.trainable_variables)
        # to the metrics the members are so many more examples
        stacked = self._is_stacked(x)
        y, weight = (self._for_each(a, stacked) for a in (y, weight))
        y_pred = readable(outputs, self.outputs)
        y_pred = ops.reshape(y_pred, (-1, *y_pred.shape[2:]))
        if not isinstance(mask, tuple):
            backend.set_mask(y_pred, ops.reshape(mask, (-1, *mask.shape[2:])))
        logs = self.compute_metrics(x, y, y_pred, weight)
        logs.pop("member_loss")
        return {**logs, "loss": loss}

    def _for_each(self, array, stacked):
        if array is None:
            return None
        if stacked:
            array = ops.swapaxes(array, 0, 1)
            return ops.reshape(array, (-1, *array.shape[2:]))
        return ops.concatenate([array] * self.members)

    def measure(self, data):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        outputs, _, mask, losses = self._pass(x, y, weight)
        pooled = backend.set_mask(pool(outputs, self.outputs), _of_any(mask))
        loss = self.compute_loss(y=y, y_pred=pooled, sample_weight=_copy(weight))
        size = ops.shape(keras.tree.flatten(x)[0])[0]
        self.member_loss.update_state(ops.mean(losses), sample_weight=size)
        y_pred = backend.set_mask(readable(pooled, self.outputs), _of_any(mask))
        return {**self.compute_metrics(x, y, y_pred, weight), "loss": loss}

    def predict_members(self, x, batch_size=256):
        """Predictions of each member, on the same inputs.

        Args:
            x: Array of inputs, or structure of arrays as a member takes them.
            batch_size: Positive integer, examples at a time.

        Returns:
            NumPy array ``(members, examples, ...)``: probabilities, values, or means
            and then variances. :func:`mutual_information` and
            :func:`predictive_entropy` take it.
        """
        check_count("batch_size", batch_size)
        program = backend.kept_program(
            self,
            "members",
            lambda: backend.compile(
                lambda x: readable(self._pass(x)[0], self.outputs), jit=False
            ),
        )
        x = keras.tree.map_structure(np.asarray, x)
        parts = [
            ops.convert_to_numpy(
                program(
                    keras.tree.map_structure(
                        lambda a, n=n: ops.convert_to_tensor(a[n : n + batch_size]), x
                    )
                )
            )
            for n in range(0, len(keras.tree.flatten(x)[0]), batch_size)
        ]
        return np.concatenate(parts, axis=1)

    def member(self, index):
        """One member as a model of its own.

        Args:
            index: Integer from 0 to ``members - 1``.

        Returns:
            A new model of the members' architecture with a copy of its weights.

        Raises:
            ValueError: If there is no such member.
        """
        if check_count("index", index, least=0) >= self.members:
            raise ValueError(
                f"index must be less than members={self.members}. "
                f"Received: index={index}"
            )
        model = keras.saving.deserialize_keras_object(self._architecture)
        variables = model.trainable_variables + model.non_trainable_variables
        for variable, stack in zip(variables, self._stacks + self._states, strict=True):
            variable.assign(ops.convert_to_numpy(stack)[index])
        return model

    def get_config(self):
        return {
            **super().get_config(),
            "build_fn": self._architecture,
            "members": self.members,
            "seed": self.seed,
            "outputs": self.outputs,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        def build_fn():
            return keras.saving.deserialize_keras_object(
                config["build_fn"], custom_objects=custom_objects
            )

        return cls(**{**config, "build_fn": build_fn})


def _copy(weight):
    """The weights for one loss: on PyTorch Keras multiplies them in place by a mask."""
    return None if weight is None else ops.copy(weight)


def _of_any(mask):
    """The steps that one member at least does not mask; None without masks."""
    return None if isinstance(mask, tuple) else ops.any(mask, axis=0)
