"""Every public component under floatx float64 and every policy of half precision."""

import keras
import numpy as np
import pytest
from component_cases import CASES, ROWS, SUMS, kind, network, public_components

from dlcompanion import backend as backends
from dlcompanion.generative import (
    measure_valued_gradient,
    pathwise_gradient,
    relax_gradient,
    score_function_gradient,
)
from dlcompanion.reinforcement import SAC
from dlcompanion.testing import (
    check_layer,
    check_loss,
    check_metric,
    check_model,
    dtypes,
    layer_checks,
    losses,
    metrics,
    models,
)
from dlcompanion.uncertainty import (
    AdaptivePredictionSets,
    ClassConditionalConformal,
    ConformalizedQuantileRegression,
    GroupConditionalConformal,
    KroneckerLaplace,
    LastLayerLaplace,
    RegularizedPredictionSets,
    SplitConformal,
    SplitConformalRegression,
)

KEPT = {
    "layer": ("float16", "bfloat16", "pure_half", "float64", "numpy_data"),
    "loss": ("dtype", "float64", "numpy_data"),
    "metric": ("half", "float64", "numpy_data"),
    "model": ("float16", "bfloat16", "pure_half", "float64", "numpy_data"),
}
TABLES = {"layer": layer_checks, "loss": losses, "metric": metrics, "model": models}
#: Those that are fitted to data instead of trained: method, and rows that it needs.
FITTED = {
    LastLayerLaplace: "fit",
    KroneckerLaplace: "fit",
    SplitConformal: "calibrate",
    AdaptivePredictionSets: "calibrate",
    RegularizedPredictionSets: "calibrate",
    ClassConditionalConformal: "calibrate",
    GroupConditionalConformal: "calibrate",
    SplitConformalRegression: "calibrate",
    ConformalizedQuantileRegression: "calibrate",
}


def only_dtypes(name):
    return [check for check in TABLES[name].CHECKS if check not in KEPT[name]]


def small(arrays):
    return keras.tree.map_structure(
        lambda a: a.astype("float32") if a.dtype.kind == "f" else a,
        keras.tree.map_structure(lambda a: a[:8] if len(a) == 48 else a, arrays),
    )


def test_every_public_component_has_a_case():
    """A component that is exported gets its line in component_cases.py."""
    assert sorted(CASES) == sorted(public_components())


def cases():
    for name, case in CASES.items():
        marks = [pytest.mark.tfp] if case.tfp else []
        yield pytest.param(case, id=name, marks=marks)


@pytest.mark.parametrize("case", list(cases()))
def test_component_under_every_dtype(case, backend):
    component, name = case.component, kind(case.component)
    if component in FITTED:
        fitted(case, backend)
        return
    x, y = small(case.x), None if case.y is None else small(case.y)
    if name == "optimizer":
        optimizer(case, backend)
    elif name == "layer":
        nodes = component.__name__ == "GraphConvolution"
        check_layer(
            component,
            case.arguments,
            x,
            symbolic_shapes=[(8, 4), (2, 2), (2,)] if nodes else None,
            large=10.0,
            skip=[*only_dtypes(name), *case.skip],
        )
    elif name == "loss":
        check_loss(component, case.arguments, y, x, skip=only_dtypes(name))
    elif name == "metric":
        check_metric(component, case.arguments, y, x, skip=only_dtypes(name))
    else:
        compiled = {"optimizer": "adam", "loss": case.loss}
        check_model(
            component,
            case.arguments,
            x,
            y,
            compile_kwargs=compiled,
            skip=[*only_dtypes(name), *case.skip],
        )


def policies(backend):
    """JAX has no float64, and compiles for each dtype anew."""
    return ("mixed_bfloat16",) if backend == "jax" else dtypes.POLICIES


def fitted(case, backend):
    for policy in policies(backend):
        with dtypes.policy(policy):
            made = case.component(**case.arguments())
            for model in (made, *backends.flatten_layers(made)):
                if isinstance(model, keras.Model) and backend == "tensorflow":
                    model.run_eagerly = True
            getattr(made, FITTED[case.component])(case.x, case.y)
            outputs = keras.tree.flatten(made.predict(case.x))
        for value in outputs:
            assert np.isfinite(np.asarray(value, "float64")).all(), policy


def optimizer(case, backend):
    for policy in policies(backend):
        with dtypes.policy(policy):
            model = network()
            model.compile(case.component(**case.arguments()), "mse")
            model.run_eagerly = backend != "jax"
            assert np.isfinite(model.train_on_batch(ROWS[:8], SUMS[:8])), policy


@pytest.mark.once
def test_soft_actor_critic_under_float64():
    with dtypes.policy("float64"):
        agent = SAC("Pendulum-v1", seed=0, learning_starts=8, batch_size=8)
        history = agent.fit(12, verbose=0).history
        assert agent.learner.log_temperature.dtype == "float64"
    for name, values in history.items():
        found = [v for v in values if v is not None]
        assert not name.endswith("loss") or np.isfinite(found[-1]), name


# -- functions ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_estimators_take_numpy_noise_and_samples_in_float64(dtype, backend):
    """NumPy draws in float64; the gradient has the dtype of the parameters."""
    rng = np.random.default_rng(0)
    noise, uniform = rng.normal(size=(6, 2)), rng.uniform(0.1, 0.9, size=(2, 6, 3))
    params = np.array([0.5, -1.0], dtype)
    logits = np.array([0.1, 0.2, -0.3], dtype)

    def log_prob(mean, x):
        return -0.5 * keras.ops.sum(keras.ops.square(x - mean), axis=-1)

    found = [
        pathwise_gradient(lambda m, e: m + e, keras.ops.square, params, noise),
        score_function_gradient(log_prob, lambda x: x[:, 0], params, noise),
        # the cost may be NumPy's own
        score_function_gradient(log_prob, lambda x: noise[:, 0], params, noise),
        *measure_valued_gradient(
            lambda x: x[:, 0], params, np.ones(2), samples=3, seed=0
        ),
        relax_gradient(lambda b: b[:, 0], lambda z: 0 * z[:, 0], logits, uniform),
    ]
    wanted = "float32" if backend == "jax" else dtype
    for gradient in found:
        assert keras.backend.standardize_dtype(gradient.dtype) == wanted
        assert np.isfinite(keras.ops.convert_to_numpy(gradient)).all()
    single = pathwise_gradient(
        lambda m, e: m + e, keras.ops.square, params, noise.astype("float32")
    )
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(found[0]),
        keras.ops.convert_to_numpy(single),
        rtol=1e-5,
    )
