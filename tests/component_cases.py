"""One small case of every public component: how it is made, and data for it."""

import dataclasses
import importlib
import inspect
import pkgutil

import keras
import numpy as np
from keras import layers

import dlcompanion
from dlcompanion import generative, losses, probability, reinforcement, uncertainty
from dlcompanion.generative.flows.coupling import DiagonalScaling
from dlcompanion.graphs import GraphConvolution
from dlcompanion.optimization import (
    LARS,
    AdaptiveGradientClipping,
    GradientCentralization,
    Lookahead,
    Ranger,
    RectifiedAdam,
)
from dlcompanion.regularization import DropBlock2D

ROOMS = ("datasets", "testing", "training", "backend", "topics", "probability")
KINDS = {
    "model": keras.Model,
    "layer": layers.Layer,
    "loss": keras.losses.Loss,
    "metric": keras.metrics.Metric,
    "optimizer": keras.optimizers.Optimizer,
}
ABSTRACT = {  # bases for components of one's own
    uncertainty.BayesianConvolution,
    uncertainty.BayesianDense,
    uncertainty.Calibrator,
    uncertainty.ConformalPredictor,
}
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(48, 4))
UNIT = RNG.uniform(0.1, 0.9, size=(48, 4))
CHANCES = UNIT / UNIT.sum(axis=1, keepdims=True)
CLASSES = np.arange(48) % 4
IMAGES = RNG.normal(size=(4, 4, 4, 2))
SUMS = ROWS.sum(axis=1, keepdims=True)


def kind(component):
    """The kind of a class, or None of what is no component of Keras."""
    return next((k for k, base in KINDS.items() if issubclass(component, base)), None)


def public_components():
    """All layers, losses, metrics, optimizers and models that chapters export."""
    found = {}
    for module in pkgutil.iter_modules(dlcompanion.__path__):
        if not module.ispkg or module.name in ROOMS:
            continue
        chapter = importlib.import_module(f"dlcompanion.{module.name}")
        for name in chapter.__all__:
            value = getattr(chapter, name)
            if inspect.isclass(value) and kind(value) and value not in ABSTRACT:
                found[name] = value
    return found


@dataclasses.dataclass
class Case:
    """A component, its arguments, and what it is fed with."""

    component: type
    arguments: object = dataclasses.field(default_factory=dict)
    x: object = None
    y: object = None
    loss: object = None
    tfp: bool = False
    name: str = None
    skip: tuple = ()


def network(inputs=4, outputs=1, activation=None):
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Dense(5, "tanh"),
            layers.Dense(outputs, activation),
        ]
    )


def vector_quantized():
    return {
        "encoder": keras.Sequential([layers.Dense(6), layers.Reshape((3, 2))]),
        "decoder": keras.Sequential([layers.Flatten(), layers.Dense(4)]),
        "quantizer": generative.VectorQuantizer(codes=4),
    }


def classifier():
    return network(outputs=4, activation="softmax")


CROSS_ENTROPY = "sparse_categorical_crossentropy"
BAYESIAN = {"training_examples": 48, "seed": 0}
MAPS = {1: (4, 5, 2), 2: (4, 5, 5, 2), 3: (4, 3, 3, 3, 2)}
NODES = np.array([[0, 1], [1, 2]], "int32")


@keras.saving.register_keras_serializable(package="component_cases")
def bowl(x):
    """An energy."""
    return keras.ops.sum(keras.ops.square(x), axis=-1)


def parts(model, *names):
    return {name: getattr(model, name) for name in names}


def autoencoder(**kwargs):
    made = generative.VAE.dense(4, latent=2, hidden=(5,), seed=0)
    return {**parts(made, "encoder", "decoder"), "seed": 0, **kwargs}


def conditional():
    made = generative.ConditionalVAE.dense(4, context=4, latent=2, hidden=(5,))
    return {**parts(made, "encoder", "decoder"), "seed": 0}


def hierarchical():
    made = generative.HierarchicalVAE.dense(
        4, latent=2, upper=2, hidden=(5,), upper_hidden=(5,)
    )
    names = ("encoder", "upper_encoder", "prior", "decoder")
    return {**parts(made, *names), "seed": 0}


def laplace():
    return {"model": network(outputs=3)}


def bayesian(component):
    if "Dense" in component.__name__:
        return Case(component, {"units": 2, **BAYESIAN}, ROWS)
    shape = MAPS[component.rank]
    arguments = {"filters": 2, "kernel_size": 2, **BAYESIAN}
    return Case(component, arguments, RNG.normal(size=shape))


def flow(component, **arguments):
    return Case(component, {"event_size": 4, "seed": 0, **arguments}, ROWS)


def _losses():
    labels, targets = CLASSES, SUMS
    two = ROWS[:, :2]
    for component in (losses.TripletAll, losses.TripletBatchHard):
        yield Case(component, {}, ROWS, labels // 2)
    yield Case(losses.TripletSemiHard, {}, ROWS, labels // 2)
    yield Case(losses.GaussianNLL, {}, two, targets)
    yield Case(losses.BetaNLL, {}, two, targets)
    yield Case(losses.StudentTNLL, {}, two, targets)
    yield Case(losses.MixtureNLL, {"components": 1}, ROWS[:, :3], targets)
    yield Case(losses.QuantileLoss, {}, ROWS[:, :3], targets)
    spec = {"spec": probability.NormalSpec(1)}
    yield Case(losses.NegativeLogLikelihood, spec, two, targets, tfp=True)


def _heads():
    spec = probability.NormalSpec(2)
    prior = {"prior_spec": spec, "prior_params": [0.0, 0.0, 0.5, 0.5]}
    yield Case(losses.DistributionHead, {"spec": spec}, ROWS)
    yield Case(losses.DistributionSample, {"spec": spec, "seed": 0}, ROWS, tfp=True)
    yield Case(losses.KLDivergencePenalty, {"spec": spec, **prior}, ROWS, tfp=True)


def _metrics():
    four = {"classes": 4}
    for component, arguments in (
        (uncertainty.AdaptiveCalibrationError, four),
        (uncertainty.BrierScore, four),
        (uncertainty.ClasswiseCalibrationError, four),
        (uncertainty.ExpectedCalibrationError, {}),
        (uncertainty.MaximumCalibrationError, {}),
        (uncertainty.SmoothCalibrationError, {}),
    ):
        yield Case(component, arguments, CHANCES, CLASSES)
    yield Case(generative.CodePerplexity, {"codes": 4}, CHANCES, CLASSES)
    for component in (uncertainty.SetCoverage, uncertainty.MeanSetSize):
        yield Case(component, {}, (CHANCES > 0.25).astype("float64"), CLASSES)
    for component in (uncertainty.IntervalCoverage, uncertainty.MeanIntervalWidth):
        yield Case(component, {}, np.sort(ROWS[:, :2], axis=1), ROWS[:, 2])


def _uncertainty():
    for name in uncertainty.__all__:
        if "Flipout" in name or "Reparameterization" in name:
            yield bayesian(getattr(uncertainty, name))
    for component in (
        uncertainty.BetaCalibration,
        uncertainty.IsotonicCalibration,
        uncertainty.MatrixScaling,
        uncertainty.PlattScaling,
        uncertainty.TemperatureScaling,
        uncertainty.VectorScaling,
    ):
        yield Case(component, {}, ROWS)
    gaussian_process = {"inducing_points": 3, "training_examples": 48}
    yield Case(uncertainty.SparseGaussianProcess, gaussian_process, ROWS)
    for component, arguments in (
        (uncertainty.PredictiveMean, {"samples": 2}),
        (uncertainty.VariationalModel, {}),
    ):
        yield Case(
            component,
            lambda a=arguments: {
                "model": keras.Sequential(
                    [keras.Input((4,)), uncertainty.DenseFlipout(1, **BAYESIAN)]
                ),
                **a,
            },
            ROWS, SUMS, loss="mse",
        )  # fmt: skip
    yield Case(
        uncertainty.MonteCarloDropout,
        lambda: {"model": keras.Sequential([network(), layers.Dropout(0.5, seed=0)])},
        ROWS,
        SUMS,
        loss="mse",
    )
    yield Case(
        uncertainty.DeepEnsemble,
        {"build_fn": classifier, "members": 2},
        ROWS,
        CLASSES,
        loss=CROSS_ENTROPY,
    )
    for component in (uncertainty.LastLayerLaplace, uncertainty.KroneckerLaplace):
        yield Case(component, laplace, ROWS, CLASSES % 3)
    for component in (
        uncertainty.SplitConformal,
        uncertainty.AdaptivePredictionSets,
        uncertainty.RegularizedPredictionSets,
    ):
        yield Case(component, lambda: {"model": classifier()}, ROWS, CLASSES)
    yield Case(
        uncertainty.ClassConditionalConformal,
        lambda: {"predictor": uncertainty.SplitConformal(classifier())},
        ROWS,
        CLASSES,
    )
    yield Case(
        uncertainty.GroupConditionalConformal,
        lambda: {"predictor": uncertainty.SplitConformal(classifier()), "groups": 2},
        [ROWS, CLASSES % 2],
        CLASSES,
    )
    for component, columns in (
        (uncertainty.SplitConformalRegression, 1),
        (uncertainty.ConformalizedQuantileRegression, 2),
    ):
        model = {"outputs": columns}
        yield Case(component, lambda m=model: {"model": network(**m)}, ROWS, SUMS)


def _generative():
    g = generative
    small = {"hidden_units": (5,)}
    pictures = np.clip(IMAGES / 8 + 0.5, 0.01, 0.99)
    yield Case(g.ActNorm, {}, ROWS)
    yield Case(g.AdditiveCoupling, lambda: {"conditioner": layers.Dense(2)}, ROWS)
    yield Case(g.AffineCoupling, lambda: {"conditioner": layers.Dense(4)}, ROWS)
    yield Case(
        g.SplineCoupling, lambda: {"conditioner": layers.Dense(16), "bins": 3}, ROWS
    )
    yield Case(g.InvertibleConvolution1x1, {"seed": 0}, IMAGES)
    yield Case(g.LogitTransform, {}, UNIT)
    yield Case(g.MADE, {"outputs_per_variable": 2, **small}, ROWS)
    for component in (g.AutoregressiveSplineFlow, g.MaskedAutoregressiveFlow,
                      g.InverseAutoregressiveFlow):  # fmt: skip
        yield flow(component, blocks=2, **small)
    for component in (g.NICE, g.NeuralSplineFlow, g.RealNVP):
        yield flow(component, couplings=2, **small)
    yield flow(g.PlanarFlow, length=2)
    yield flow(g.RadialFlow, length=2)
    yield Case(
        g.NormalizingFlow,
        lambda: {"event_shape": 4, "transforms": [DiagonalScaling()], "seed": 0},
        ROWS,
    )
    yield Case(
        g.FreeEnergy,
        lambda: {"flow": g.PlanarFlow(4, length=2, seed=0), "energy": bowl},
        ROWS,
    )
    one = {"levels": 1, "steps": 1, "filters": 3, "seed": 0}
    yield Case(g.Glow, {"event_shape": (4, 4, 2), **one}, pictures)
    yield Case(g.VAE, lambda: autoencoder(likelihood="gaussian"), UNIT)
    yield Case(g.IWAE, lambda: autoencoder(samples=2), UNIT)
    yield Case(g.ConditionalVAE, conditional, [UNIT, ROWS])
    yield Case(g.HierarchicalVAE, hierarchical, UNIT)
    yield Case(g.VQVAE, vector_quantized, ROWS)
    yield Case(g.VectorQuantizer, {"codes": 4}, ROWS)
    yield Case(g.EMAVectorQuantizer, {"codes": 4}, ROWS)
    for component in (g.DonskerVaradhanEstimator, g.InfoNCEEstimator):
        yield Case(component, lambda: {"critic": network(8)}, [ROWS, ROWS])
    yield Case(g.GaussianSampler, {"seed": 0}, [ROWS, ROWS])
    yield Case(g.GumbelSoftmax, {"seed": 0}, ROWS)
    yield Case(g.StraightThrough, {"quantizer": "hard_tanh"}, ROWS)
    yield Case(g.StraightThroughBernoulli, {"seed": 0}, ROWS)
    yield Case(g.VariationalBottleneck, {"latent": 2, "seed": 0}, ROWS)
    yield Case(
        g.LearnedBaseline,
        lambda: {"network": network()},
        {"inputs": ROWS, "costs": SUMS[:, 0]},
    )


def _others():
    yield Case(GraphConvolution, {"units": 2}, [ROWS, NODES, np.ones(2)])
    for wrapper in (Lookahead, GradientCentralization, AdaptiveGradientClipping):
        yield Case(wrapper, lambda: {"inner_optimizer": keras.optimizers.Adam()}, ROWS)
    for optimizer in (LARS, Ranger, RectifiedAdam):
        yield Case(optimizer, lambda: {"learning_rate": 0.01}, ROWS)
    yield Case(DropBlock2D, {"rate": 0.3, "block_size": 2, "seed": 0}, IMAGES)
    r = reinforcement
    yield Case(r.ActionMask, {}, [ROWS, UNIT > 0.3])
    yield Case(r.AppendLogStd, {}, ROWS)
    yield Case(r.DuelingHead, {"actions": 2, "seed": 0}, ROWS)
    yield Case(r.NoisyDense, {"units": 2, "seed": 0}, ROWS)


def _posteriors():
    """Weights of a layer, which calls them."""
    layer = uncertainty.DenseReparameterization
    for name, posterior, tfp in (
        ("NormalPosterior", uncertainty.NormalPosterior, False),
        ("SpecPosterior", uncertainty.SpecPosterior, True),
    ):
        arguments = () if not tfp else (probability.NormalSpec(),)
        yield Case(
            layer,
            lambda p=posterior, a=arguments: {
                "units": 2, "kernel_posterior": p(*a), **BAYESIAN,
            },
            ROWS, tfp=tfp, name=name,
        )  # fmt: skip


GROUPS = (_losses, _heads, _metrics, _uncertainty, _generative, _posteriors, _others)
CASES = {
    (case.name or case.component.__name__): case for group in GROUPS for case in group()
}
