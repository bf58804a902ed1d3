"""Which methods the API page of a class shows: those that its user calls.

A class of the package inherits most of what a user calls, and is itself called by its
base classes through methods that no user needs. Pages show the first and not the
second.
"""

import inspect

#: What a user calls, in the order of use. Whatever a base class declares, these are no
#: hooks.
CALLED = (
    "compile fit learn calibrate restart predict evaluate predict_samples "
    "predict_members save load get_state set_state"
).split()
#: What base classes call, and users do not: an agent has only these beside CALLED.
OF_AGENTS = ("epsilon", "policy", "search", "move", "priors_and_values")
HOOKS = set(
    # of models and layers
    "build call compute_loss compute_mask compute_metrics compute_output_shape "
    "compute_output_spec from_config get_build_config build_from_config "
    "get_compile_config compile_from_config get_config load_own_variables "
    "save_own_variables predict_step test_step train_step "
    # of StepModel and UnsupervisedModel
    "batch_loss check_data descend example_losses logged measure optimizer_variables "
    "phase_step train_on_batches update value_and_grad without_targets "
    # of families of models
    "add_parameter add_posterior all_scores bound closing_transforms columns "
    "covariance_of conformity coupling data_and_context decoder_inputs decompose extra "
    "keep logits make_threshold mapped mixing optimum outputs_per_variable "
    "probabilities quantiles scores transform".split()
)
#: Arguments of a method that is named in a table.
MOST = 4


def has_methods(value, kind):
    """Whether a page lists methods by their use: agents, models, what has ``fit``."""
    return inspect.isclass(value) and (kind in ("agent", "model") or _fits(value))


def _fits(value):
    return any("fit" in vars(c) for c in inspect.getmro(value) if _ours(c))


def methods(value, kind, pages):
    """What the page of a class shows in full, and what it names with a link.

    Args:
        value: Class of the package.
        kind: String, ``"agent"``, ``"model"`` or another of the index by kind.
        pages: Set of the classes that have a page of their own.

    Returns:
        Tuple of two lists: names of the methods to show in full, and pairs ``(class,
        name)`` of those that another page shows.
    """
    full, linked = [], []
    for name in _ordered(value):
        if not is_for_users(value, name, kind):
            continue
        owner = next(c for c in inspect.getmro(value) if name in vars(c))
        documented = _ours(owner) and vars(owner)[name].__doc__
        if documented and (owner is value or owner not in pages):
            full.append(name)
        elif documented:
            linked.append((owner, name))
        elif name in CALLED:
            # Keras has the words, whether or not ours does something before
            owners = [c for c in inspect.getmro(value) if name in vars(c)]
            keras = [c for c in owners if not _ours(c)]
            linked += [(c, name) for c in keras[:1]]
    return full, linked


def _ordered(value):
    """Names of a class: what is called, in that order, then its own, then inherited."""
    names = [name for name in CALLED if hasattr(value, name)]
    for base in inspect.getmro(value):
        if _ours(base):
            names += vars(base)
    return list(dict.fromkeys(names))


def is_for_users(value, name, kind):
    """Whether a user of a class calls what has this name."""
    if name in CALLED:
        return True
    member = inspect.getattr_static(value, name)
    if name.startswith("_") or inspect.isclass(member) or name in HOOKS:
        return False
    if not (
        isinstance(member, classmethod | staticmethod | property)
        or inspect.isfunction(member)
    ):
        return False
    return kind != "agent" or name in OF_AGENTS


def _ours(value):
    return value.__module__.split(".")[0] == "dlcompanion"


def call_of(value, name):
    """``fit(x, y=None)`` for a method of a class; a property has its name alone."""
    member = getattr(value, name)
    if not callable(member):
        return name
    parameters = list(inspect.signature(member).parameters.values())
    if inspect.isfunction(member):
        parameters = parameters[1:]
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    if len(bare) > MOST:
        return f"{name}{inspect.Signature(bare[: MOST - 1])}"[:-1] + ", ...)"
    return f"{name}{inspect.Signature(bare)}"


def heading(module):
    """What a module of parts is, in words: the first sentence of its docstring."""
    return " ".join((inspect.getdoc(module) or "").split("\n\n")[0].split()).rstrip(".")
