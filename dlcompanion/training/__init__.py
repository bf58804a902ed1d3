"""Training: steps written once, several optimizers, runs that resume exactly."""

from dlcompanion.training.checkpoint import ResumableCheckpoint
from dlcompanion.training.find_nan import FindNaN
from dlcompanion.training.in_memory import fit_in_memory
from dlcompanion.training.optimizers import CompositeOptimizer, LossScaling
from dlcompanion.training.restart import restart
from dlcompanion.training.seeds import SavesSeeds
from dlcompanion.training.side_by_side import evaluate_members, member_orders
from dlcompanion.training.step_model import StepModel
from dlcompanion.training.unsupervised import UnsupervisedModel
from dlcompanion.training.wrapped_optimizer import WrappedOptimizer

__all__ = [
    "CompositeOptimizer",
    "FindNaN",
    "LossScaling",
    "ResumableCheckpoint",
    "SavesSeeds",
    "StepModel",
    "UnsupervisedModel",
    "WrappedOptimizer",
    "evaluate_members",
    "fit_in_memory",
    "member_orders",
    "restart",
]
