"""The last steps of a running ``fit``: each batch, and the variables before it."""

import collections

import keras


class StepRecorder:
    """Remembers the last two steps of ``fit``, enough to run them once more.

    ``start`` puts itself in the place of ``model.train_function``, ``stop``, or an
    error in a step, takes it back. In between, ``kept`` holds pairs of a batch and of
    the values that ``variables`` had before it. A ``fit`` that another callback broke
    off never comes to ``stop``; the first step of the next ``fit`` does it then.
    """

    def __init__(self, model):
        self.model = model
        self.variables = [*model.variables, *model.optimizer.variables]
        self.kept = collections.deque(maxlen=2)

    def start(self):
        self.original = self.model.train_function
        if isinstance(getattr(self.original, "__self__", None), StepRecorder):
            self.original = self.original.__self__.original  # of a fit that was broken
        self._history = getattr(self.model, "history", None)  # a new one each fit
        name = keras.backend.backend()
        make = {"tensorflow": self._tensorflow, "jax": self._jax, "torch": self._torch}
        self._run = make[name]()
        self.model.train_function = self.step

    def stop(self):
        self.model.train_function = self.original

    def step(self, *args):
        if getattr(self.model, "history", None) is not self._history:
            self.stop()
            self.kept.clear()
            return self.original(*args)
        try:
            return self._run(*args)
        except StopIteration:  # the end of an epoch
            raise
        except BaseException:
            self.stop()
            raise

    def _tensorflow(self):
        import tensorflow as tf

        def step(data):
            before = [tf.identity(v.value) for v in self.variables]
            return before, self.model.train_step(data)

        if not self.model.run_eagerly:
            jit = self.model.jit_compile or None
            step = tf.function(
                step, autograph=False, jit_compile=jit, reduce_retracing=True
            )

        def run(iterator):
            data = next(iterator)
            before, logs = step(data)
            self.kept.append((data, before))
            return logs

        return run

    def _jax(self):
        import jax

        model = self.model
        copy = jax.jit(lambda state: jax.tree.map(jax.numpy.copy, state))

        def run(state, iterator):
            data = next(iterator)
            # the step that follows takes the memory of its state
            trainable, rest, optimizer, _ = copy(state)
            groups = (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
            )
            values = {}
            for variables, new in zip(
                groups, (trainable, rest, optimizer), strict=True
            ):
                values |= {id(v): x for v, x in zip(variables, new, strict=True)}
            before = [values.get(id(v)) for v in self.variables]  # None: of a metric
            self.kept.append((data, before))
            return self.original(state, iter([data]))

        return run

    def _torch(self):
        def run(data):
            before = [v.value.detach().clone() for v in self.variables]
            self.kept.append((data[0], before))
            return self.original(data)

        return run


def sync(model):
    """Let the variables of a model in ``fit`` hold their present values, on JAX too."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()
