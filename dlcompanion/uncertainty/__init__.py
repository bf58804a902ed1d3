"""Chapter uncertainty."""

from dlcompanion.uncertainty.bayesian_convolution import (
    BayesianConvolution,
    Conv1DFlipout,
    Conv1DLocalReparameterization,
    Conv1DReparameterization,
    Conv2DFlipout,
    Conv2DLocalReparameterization,
    Conv2DReparameterization,
    Conv3DFlipout,
    Conv3DLocalReparameterization,
    Conv3DReparameterization,
)
from dlcompanion.uncertainty.bayesian_layers import (
    BayesianDense,
    DenseFlipout,
    DenseLocalReparameterization,
    DenseReparameterization,
)
from dlcompanion.uncertainty.calibration import (
    MatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from dlcompanion.uncertainty.calibrators.calibrator import Calibrator, calibrated_model
from dlcompanion.uncertainty.calibrators.one_vs_rest_calibration import (
    BetaCalibration,
    IsotonicCalibration,
    PlattScaling,
)
from dlcompanion.uncertainty.conformal import (
    AdaptivePredictionSets,
    ConformalPredictor,
    RegularizedPredictionSets,
    SplitConformal,
)
from dlcompanion.uncertainty.deep_ensembles import DeepEnsemble
from dlcompanion.uncertainty.laplace import KroneckerLaplace, LastLayerLaplace
from dlcompanion.uncertainty.monte_carlo_dropout import MonteCarloDropout
from dlcompanion.uncertainty.prediction_sets.conformal_regression import (
    ConformalizedQuantileRegression,
    SplitConformalRegression,
)
from dlcompanion.uncertainty.prediction_sets.coverage import (
    IntervalCoverage,
    MeanIntervalWidth,
    MeanSetSize,
    SetCoverage,
)
from dlcompanion.uncertainty.prediction_sets.mondrian_conformal import (
    ClassConditionalConformal,
    GroupConditionalConformal,
)
from dlcompanion.uncertainty.scores.brier_score import BrierScore
from dlcompanion.uncertainty.scores.calibration_error import (
    AdaptiveCalibrationError,
    ClasswiseCalibrationError,
    ExpectedCalibrationError,
    MaximumCalibrationError,
)
from dlcompanion.uncertainty.scores.reliability_diagram import reliability_diagram
from dlcompanion.uncertainty.scores.smooth_calibration_error import (
    SmoothCalibrationError,
)
from dlcompanion.uncertainty.sparse_gaussian_process import SparseGaussianProcess
from dlcompanion.uncertainty.stochastic_layers.predictive_mean import PredictiveMean
from dlcompanion.uncertainty.stochastic_layers.predictive_samples import (
    mutual_information,
    predictive_entropy,
    predictive_samples,
)
from dlcompanion.uncertainty.stochastic_layers.stochastic_weights import (
    set_training_examples,
)
from dlcompanion.uncertainty.stochastic_layers.variational_model import (
    VariationalModel,
)
from dlcompanion.uncertainty.stochastic_layers.weight_posterior import (
    NormalPosterior,
    NormalPrior,
    SpecPosterior,
    SpecPrior,
)
from dlcompanion.uncertainty.swag import SWAG

__all__ = [
    "AdaptiveCalibrationError",
    "AdaptivePredictionSets",
    "BayesianConvolution",
    "BayesianDense",
    "BetaCalibration",
    "BrierScore",
    "Calibrator",
    "ClassConditionalConformal",
    "ClasswiseCalibrationError",
    "ConformalPredictor",
    "ConformalizedQuantileRegression",
    "Conv1DFlipout",
    "Conv1DLocalReparameterization",
    "Conv1DReparameterization",
    "Conv2DFlipout",
    "Conv2DLocalReparameterization",
    "Conv2DReparameterization",
    "Conv3DFlipout",
    "Conv3DLocalReparameterization",
    "Conv3DReparameterization",
    "DeepEnsemble",
    "DenseFlipout",
    "DenseLocalReparameterization",
    "DenseReparameterization",
    "ExpectedCalibrationError",
    "GroupConditionalConformal",
    "IntervalCoverage",
    "IsotonicCalibration",
    "KroneckerLaplace",
    "LastLayerLaplace",
    "MatrixScaling",
    "MaximumCalibrationError",
    "MeanIntervalWidth",
    "MeanSetSize",
    "MonteCarloDropout",
    "NormalPosterior",
    "NormalPrior",
    "PlattScaling",
    "PredictiveMean",
    "RegularizedPredictionSets",
    "SWAG",
    "SetCoverage",
    "SmoothCalibrationError",
    "SparseGaussianProcess",
    "SpecPosterior",
    "SpecPrior",
    "SplitConformal",
    "SplitConformalRegression",
    "TemperatureScaling",
    "VariationalModel",
    "VectorScaling",
    "calibrated_model",
    "mutual_information",
    "predictive_entropy",
    "predictive_samples",
    "reliability_diagram",
    "set_training_examples",
]
