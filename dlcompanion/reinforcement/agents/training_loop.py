"""Around an agent's epochs: Keras's callbacks, a progress bar, a history."""

import math
import time
from pathlib import Path

import keras

from dlcompanion.training import FindNaN, ResumableCheckpoint


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
        agent: ``BaseAgent``, which a callback that resumes brings to where it was, or
            None.

    Raises:
        ValueError: If ``verbose`` is none of the above, or a callback needs steps or
            epochs that an agent has not.

    Example:
        >>> loop = TrainingLoop(keras.Sequential(), None, 0, 10, ["loss"])
        >>> loop.begin(0)
        >>> loop.end({"loss": 0.5}, 10, "Epoch 1")
        >>> loop.finish().history
        {'loss': [0.5]}
    """

    def __init__(self, learner, callbacks, verbose, total, shown, agent=None):
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(
                f'verbose must be "auto", 0, 1 or 2. Received: verbose={verbose!r}'
            )
        self.learner, self.verbose = learner, verbose
        self.total, self.shown = total, list(shown)
        callbacks = [
            _fitting(callback) for callback in keras.tree.flatten(callbacks or [])
        ]
        self.bar = self.number = self.logs = None
        self.learned = set()
        if verbose in ("auto", 1) and total > 0:
            self.bar = keras.utils.Progbar(total, stateful_metrics=self.shown)
        self.began = time.perf_counter()
        learner.stop_training = False
        self.callbacks = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            model=learner,
            steps=1,
            epochs=math.inf,  # nobody knows how many there will be
            verbose=0,
            agent=agent,
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
        # what is NaN from the beginning on was not learned yet, and did not diverge
        self.learned |= {name for name, value in logs.items() if value == value}
        learned = {n: value for n, value in logs.items() if n in self.learned}
        self.callbacks.on_train_batch_end(0, learned)
        self.callbacks.on_epoch_end(self.number, logs)
        if self.bar:
            ending = done >= self.total or self.learner.stop_training
            shown = [(name, logs[name]) for name in self.shown]
            self.bar.update(min(done, self.total), shown, finalize=ending)
        elif self.verbose == 2:
            print(_line(label, logs))

    def finish(self):
        """There are no more epochs.

        Returns:
            :class:`keras.callbacks.History`.
        """
        self.callbacks.on_train_end(self.logs)
        return self.learner.history


class LogEvery(keras.callbacks.Callback):
    """Prints the logs of every so many epochs.

    Args:
        interval: Positive integer.

    Example:
        >>> LogEvery(2).on_epoch_end(1, {"loss": 0.5})
        Epoch 2: loss: 0.5
    """

    def __init__(self, interval):
        super().__init__()
        self.interval = interval

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.interval == 0:
            print(_line(f"Epoch {epoch + 1}", logs))


def _line(label, logs):
    parts = [f"{name}: {value:.4g}" for name, value in logs.items()]
    return f"{label}: " + ", ".join(parts)


class _Backup(ResumableCheckpoint):
    """What ``BackupAndRestore`` does, for an agent."""

    def __init__(self, callback):
        every = 1 if callback.save_freq == "epoch" else callback.save_freq
        super().__init__(Path(callback.backup_dir) / "agent.ckpt", every=every)
        self.delete = callback.delete_checkpoint

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        if self.delete:
            self.path.unlink(missing_ok=True)


def _fitting(callback):
    """A callback as it works around an agent, or an error that names it."""
    if type(callback) is keras.callbacks.BackupAndRestore:
        return _Backup(callback)
    why = None
    if isinstance(callback, keras.callbacks.BackupAndRestore):
        why = "resumes a model and not the agent: pass a ResumableCheckpoint"
    if isinstance(callback, keras.callbacks.ProgbarLogger):
        why = "counts batches: fit has a bar of its own, verbose=1"
    if isinstance(callback, FindNaN):
        why = "watches single steps: an agent names itself what is not finite"
    if not isinstance(callback, keras.callbacks.Callback):
        why = "is no keras.callbacks.Callback"
    if why:
        raise ValueError(
            f"An agent is trained with callbacks of Keras that act between epochs. "
            f"Received: {callback!r}, which {why}"
        )
    return callback
