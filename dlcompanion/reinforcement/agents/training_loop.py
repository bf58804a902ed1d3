"""Around an agent's epochs: Keras's callbacks, a progress bar, a history."""

import time

import keras


class TrainingLoop:
    """Tells Keras's callbacks, and whoever watches, of an agent's epochs.

    An epoch has one batch. Callbacks see ``learner`` as their model, and stop the loop
    by ``learner.stop_training``.

    Args:
        learner: :class:`keras.Model`.
        callbacks: List of :class:`keras.callbacks.Callback`, or None.
        verbose: ``"auto"`` or 1 for a progress bar, 2 for a line an epoch, 0 for
            silence.
        total: Integer, what the progress bar counts up to.
        shown: List of strings, the logs beside the bar.

    Raises:
        ValueError: If ``verbose`` is none of the above.

    Example:
        >>> loop = TrainingLoop(keras.Sequential(), None, 0, 10, ["loss"])
        >>> loop.begin(0)
        >>> loop.end({"loss": 0.5}, 10, "Epoch 1")
        >>> loop.finish().history
        {'loss': [0.5]}
    """

    def __init__(self, learner, callbacks, verbose, total, shown):
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(
                f'verbose must be "auto", 0, 1 or 2. Received: verbose={verbose!r}'
            )
        self.learner, self.verbose = learner, verbose
        self.total, self.shown = total, list(shown)
        self.bar = self.number = self.logs = None
        if verbose in ("auto", 1) and total > 0:
            self.bar = keras.utils.Progbar(total, stateful_metrics=self.shown)
        self.began = time.perf_counter()
        learner.stop_training = False
        self.callbacks = keras.callbacks.CallbackList(
            callbacks, add_history=True, model=learner, steps=1, verbose=0
        )
        self.callbacks.on_train_begin()

    @property
    def seconds(self):
        """Since the beginning."""
        return max(time.perf_counter() - self.began, 1e-9)

    def begin(self, number):
        """An epoch begins.

        Args:
            number: Integer, counted from 0 over all calls of ``fit``.
        """
        self.number = number
        self.callbacks.on_epoch_begin(number)
        self.callbacks.on_train_batch_begin(0)

    def end(self, logs, done, label):
        """The epoch that began is over.

        Args:
            logs: Dict from name to number.
            done: Integer, how far the loop is on the way to ``total``.
            label: String, what a line of it begins with.
        """
        self.logs = logs
        self.callbacks.on_train_batch_end(0, logs)
        self.callbacks.on_epoch_end(self.number, logs)
        if self.bar:
            ending = done >= self.total or self.learner.stop_training
            shown = [(name, logs[name]) for name in self.shown]
            self.bar.update(min(done, self.total), shown, finalize=ending)
        elif self.verbose == 2:
            parts = [f"{name}: {value:.4g}" for name, value in logs.items()]
            print(f"{label}: " + ", ".join(parts))

    def finish(self):
        """There are no more epochs.

        Returns:
            :class:`keras.callbacks.History`.
        """
        self.callbacks.on_train_end(self.logs)
        return self.learner.history
