"""The one place that imports backend packages and Keras internals.

Everything here hides a difference between TensorFlow, JAX and PyTorch. The rest of
the package is written in ``keras.ops``. Each private name of Keras that is used is
listed in :data:`PRIVATE`, and a test says so by name when one disappears.
"""

import importlib

from dlcompanion.backend.attached import drop_programs, kept_program, replaced
from dlcompanion.backend.differentiation import differentiate, jacobian
from dlcompanion.backend.epochs import (
    dataset,
    epoch_program,
    first_epoch,
    flatten_layers,
    pack_arrays,
    prepare_fit,
    random_state,
    set_random_state,
    set_seed,
    shuffled,
    start_at_epoch,
)
from dlcompanion.backend.phases import phase_program
from dlcompanion.backend.precision import at_least_float32, widen
from dlcompanion.backend.recorder import StepRecorder, sync
from dlcompanion.backend.sparse import SparseMatrix, segment_sum
from dlcompanion.backend.steps import (
    attach,
    attached,
    check_optimized,
    collected_losses,
    completes_update,
    dense_gradient,
    made_of_built_layers,
    mask_of,
    measures_outputs,
    model_step,
    optimized_variables,
    placement,
    replicas,
    set_mask,
    variable_number,
)
from dlcompanion.backend.updates import move_towards, subtract
from dlcompanion.backend.variables import (
    RecordingScope,
    compile,
    conditionally,
    repeat,
    scan,
    write_back,
)
from dlcompanion.backend.vectorization import vectorize

__all__ = [
    "PRIVATE",
    "RecordingScope",
    "SparseMatrix",
    "StepRecorder",
    "at_least_float32",
    "attach",
    "attached",
    "check_optimized",
    "collected_losses",
    "compile",
    "completes_update",
    "conditionally",
    "dataset",
    "dense_gradient",
    "differentiate",
    "drop_programs",
    "epoch_program",
    "first_epoch",
    "flatten_layers",
    "jacobian",
    "kept_program",
    "made_of_built_layers",
    "mask_of",
    "measures_outputs",
    "model_step",
    "move_towards",
    "optimized_variables",
    "pack_arrays",
    "phase_program",
    "placement",
    "prepare_fit",
    "random_state",
    "repeat",
    "replaced",
    "replicas",
    "require",
    "scan",
    "segment_sum",
    "set_mask",
    "set_random_state",
    "set_seed",
    "shuffled",
    "start_at_epoch",
    "subtract",
    "sync",
    "variable_number",
    "vectorize",
    "widen",
    "write_back",
]

#: Private names of Keras that this package relies on, as (module, path in it);
#: ``Name()`` stands for an instance.
PRIVATE = (
    ("keras.src.backend.common", "global_state.set_global_attribute"),
    ("keras.src.backend.common.masking", "get_keras_mask"),
    ("keras.src.backend.common.masking", "set_keras_mask"),
    ("keras.src.backend.common.stateless_scope", "get_stateless_scope"),
    ("keras.src.backend.common.stateless_scope", "StatelessScope.add_update"),
    ("keras.src.backend.common.stateless_scope", "StatelessScope.get_current_value"),
    ("keras.src.backend.common.tensor_attributes", "get_tensor_attr"),
    ("keras.src.backend.common.tensor_attributes", "set_tensor_attr"),
    ("keras.src.backend.common.variables", "Variable()._value"),
    ("keras.src.layers.layer", "Layer._flatten_layers"),
    (
        "keras.src.optimizers.base_optimizer",
        "BaseOptimizer()._model_variables_moving_average",
    ),
    ("keras.src.optimizers.base_optimizer", "BaseOptimizer()._iterations"),
    ("keras.src.optimizers.base_optimizer", "BaseOptimizer()._trainable_variables"),
    ("keras.src.optimizers.base_optimizer", "BaseOptimizer()._variables"),
    ("keras.src.optimizers.base_optimizer", "BaseOptimizer._check_variables_are_known"),
    ("keras.src.optimizers.base_optimizer", "BaseOptimizer._get_variable_index"),
    ("keras.src.random.seed_generator", "GLOBAL_SEED_GENERATOR"),
    ("keras.src.random.seed_generator", "global_seed_generator"),
    ("keras.src.trainers.data_adapters.array_data_adapter", "ArrayDataAdapter"),
    ("keras.src.trainers.data_adapters.array_slicing", "train_validation_split"),
    ("keras.src.trainers.trainer", "Trainer()._compile_config"),
    ("keras.src.trainers.trainer", "Trainer()._compile_loss"),
    ("keras.src.trainers.trainer", "Trainer()._compile_metrics"),
    ("keras.src.trainers.trainer", "Trainer()._initial_epoch"),
    ("keras.src.trainers.trainer", "Trainer()._loss_tracker"),
    ("keras.src.trainers.trainer", "Trainer._aggregate_additional_loss"),
    ("keras.src.trainers.trainer", "Trainer._assert_compile_called"),
    ("keras.src.trainers.trainer", "Trainer._get_metrics_result_or_logs"),
    ("keras.src.trainers.trainer", "Trainer._symbolic_build"),
    ("keras.src.utils.rng_utils", "GLOBAL_RANDOM_SEED"),
)


def require(module, extra):
    """Import an optional package where it is needed.

    Args:
        module: String, the module to import, for example ``"gymnasium"``.
        extra: String, the extra of dlcompanion that installs it.

    Returns:
        The module.

    Raises:
        ImportError: If it is not installed; the message names the extra.

    Example:
        >>> require("json", "datasets").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"This needs the package {module!r}, which could not be imported "
            f'({error}). Install it with: pip install "dlcompanion[{extra}]"'
        ) from error
