"""The table of optimizers: a new one is a line here.

tests/test_optimizer_table.py runs every line through one contract and every case
through fifty steps of a reference.
"""

import dataclasses
from collections.abc import Callable

from keras.optimizers import SGD, Adam

from dlcompanion.optimization import (
    LARS,
    AdaptiveGradientClipping,
    GradientCentralization,
    Lookahead,
    Ranger,
    RectifiedAdam,
)


@dataclasses.dataclass
class Line:
    """An optimizer of ours.

    Attributes:
        name: String, the topic, or another one for what only has to keep the contract.
        make: Function of the arguments that every optimizer of Keras has, of which the
            learning rate is the first.
        cases: Dict from the name of a case in ``references/<name>.npz`` to a function
            of the rate.
        k: Integer, the steps until slow weights follow half-way, or 0 without such.
        skip: Names of checks of ``check_optimizer`` that do not apply.
    """

    name: str
    make: Callable
    cases: dict = dataclasses.field(default_factory=dict)
    k: int = 0
    skip: tuple = ()


def centralized(rate=0.01, **more):
    return GradientCentralization(Adam(rate, **more))


def clipped(rate=0.01, **more):
    return AdaptiveGradientClipping(Adam(rate, **more), 0.1)


def lars(rate=0.5, **more):
    return LARS(rate, trust_coefficient=0.02, **more)


def three_wrappers(rate=0.01, **more):
    inner = GradientCentralization(RectifiedAdam(rate, **more))
    return Lookahead(AdaptiveGradientClipping(inner, 0.1), k=2)


#: The sample problem asks for a larger sum of the weights, which stays under
#: centralized gradients.
SUM = ("solves",)

# the epsilon of the references is 1e-8, where the libraries are not told another
TABLE = [
    Line(
        "lookahead",
        lambda rate=0.01, **more: Lookahead(Adam(rate, **more), k=3),
        {
            "torch_adam": lambda rate: Lookahead(Adam(rate, epsilon=1e-8)),
            "torch_sgd": lambda rate: Lookahead(SGD(rate)),
            "optax_adam": lambda rate: Lookahead(Adam(rate, epsilon=1e-8)),
            "optax_momentum": lambda rate: Lookahead(SGD(rate, momentum=0.9)),
        },
        k=3,
    ),
    Line(
        "gradient_centralization",
        centralized,
        {
            "adam": lambda rate: centralized(rate, epsilon=1e-8),
            "sgd": lambda rate: GradientCentralization(SGD(rate, momentum=0.9)),
        },
        skip=SUM,
    ),
    Line(
        "rectified_adam",
        lambda rate=0.01, **more: RectifiedAdam(rate, beta_2=0.99, **more),
        {
            "torch": lambda rate: RectifiedAdam(rate, epsilon=1e-8),
            "torch_short": lambda rate: RectifiedAdam(rate, 0.8, 0.9, epsilon=1e-8),
            "optax_paper": lambda rate: RectifiedAdam(
                rate, epsilon=1e-8, threshold=4.0
            ),
        },
    ),
    Line(
        "ranger",
        lambda rate=0.01, **more: Ranger(rate, beta_2=0.99, **more),
        {"ranger": Ranger},
        k=6,
        skip=SUM,
    ),
    Line(
        "lars",
        lars,
        {
            "plain": lars,
            "decay": lambda rate: lars(rate, l2=0.1, momentum=0.5, epsilon=0.01),
            "excluded": lambda rate: lars(
                rate,
                l2=0.1,
                exclude_from_adaptation=["v0"],
                exclude_from_decay=["v0"],
            ),
        },
    ),
    Line(
        "adaptive_gradient_clipping",
        clipped,
        {
            "adam": lambda rate: clipped(rate, epsilon=1e-20),
            "sgd": lambda rate: AdaptiveGradientClipping(SGD(rate, momentum=0.9), 0.1),
        },
    ),
    Line("three_wrappers", three_wrappers, k=2, skip=SUM),
]
