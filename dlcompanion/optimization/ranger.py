"""Ranger: rectified Adam on centralized gradients, with lookahead."""

import keras

from dlcompanion.optimization.gradient_centralization import GradientCentralization
from dlcompanion.optimization.lookahead import Lookahead
from dlcompanion.optimization.rectified_adam import RectifiedAdam


@keras.saving.register_keras_serializable(package="dlcompanion")
class Ranger(Lookahead):
    r"""Three repairs of Adam in one optimizer.

    ``Ranger(rate)`` makes the steps of

    .. code-block:: python

        Lookahead(GradientCentralization(RectifiedAdam(rate, beta_1, ...)), k, alpha)

    bit for bit: the gradient of each unit is centered, rectified Adam moves the fast
    weights, and every ``k`` steps the slow weights follow them. Each of the parts can
    be used alone, around or inside other optimizers; see
    :class:`~dlcompanion.optimization.RectifiedAdam`,
    :class:`~dlcompanion.optimization.GradientCentralization` and
    :class:`~dlcompanion.optimization.Lookahead`.

    The defaults are those of the author's code. The first steps go down the gradient,
    as those of ``torch.optim.RAdam``. In pytorch_optimizer 4.1.0 they go up, unless
    ``degenerated_to_sgd=True`` is set.

    Args:
        learning_rate: Float or a schedule.
        beta_1: Float in [0, 1), the decay of the momentum.
        beta_2: Float in [0, 1), the decay of the second moment.
        epsilon: Positive float, added to the root of the second moment.
        k: Positive integer, the fast steps between two synchronizations.
        alpha: Float in (0, 1], how far the slow weights follow.
        exclude: List of regular expressions, as of ``GradientCentralization``.
        name: String, the name of the optimizer.
        **kwargs: Passed on to ``RectifiedAdam``, and by it to
            ``keras.optimizers.Optimizer``.

    Raises:
        ValueError: If one of the three parts refuses its arguments.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(Ranger(0.01, weight_decay=1e-4), loss="mse")
        >>> type(model.optimizer.inner_optimizer).__name__
        'GradientCentralization'

    References:
        Wright, *Ranger: a synergistic optimizer*, 2019,
        https://github.com/lessw2020/Ranger-Deep-Learning-Optimizer
    """

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.95,
        beta_2=0.999,
        epsilon=1e-5,
        k=6,
        alpha=0.5,
        exclude=(),
        name="ranger",
        **kwargs,
    ):
        rectified = RectifiedAdam(learning_rate, beta_1, beta_2, epsilon, **kwargs)
        centralized = GradientCentralization(rectified, exclude)
        super().__init__(centralized, k=k, alpha=alpha, name=name)

    def get_config(self):
        centralized = self.inner_optimizer
        return {
            **centralized.inner_optimizer.get_config(),
            "k": self.k,
            "alpha": self.alpha,
            "exclude": centralized.exclude,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # the arguments of RectifiedAdam, among them a schedule
        return keras.optimizers.Optimizer.from_config.__func__(
            cls, config, custom_objects
        )
