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
from dlcompanion.uncertainty.brier_score import BrierScore
from dlcompanion.uncertainty.calibration import (
    MatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from dlcompanion.uncertainty.calibration_error import (
    AdaptiveCalibrationError,
    BinnedCalibration,
    ClasswiseCalibrationError,
    ExpectedCalibrationError,
    MaximumCalibrationError,
)
from dlcompanion.uncertainty.calibrator import Calibrator, calibrated_model
from dlcompanion.uncertainty.conformal import (
    AdaptivePredictionSets,
    ConformalPredictor,
    RegularizedPredictionSets,
    SplitConformal,
    conformal_quantile,
)
from dlcompanion.uncertainty.conformal_regression import (
    ConformalizedQuantileRegression,
    SplitConformalRegression,
)
from dlcompanion.uncertainty.deep_ensembles import DeepEnsemble
from dlcompanion.uncertainty.laplace import KroneckerLaplace, LastLayerLaplace
from dlcompanion.uncertainty.mondrian_conformal import (
    ClassConditionalConformal,
    GroupConditionalConformal,
)
from dlcompanion.uncertainty.monte_carlo_dropout import MonteCarloDropout
from dlcompanion.uncertainty.one_vs_rest_calibration import (
    BetaCalibration,
    IsotonicCalibration,
    PlattScaling,
)
from dlcompanion.uncertainty.predictive_samples import (
    mutual_information,
    predictive_entropy,
    predictive_samples,
)
from dlcompanion.uncertainty.reliability_diagram import reliability_diagram
from dlcompanion.uncertainty.smooth_calibration_error import SmoothCalibrationError
from dlcompanion.uncertainty.sparse_gaussian_process import SparseGaussianProcess
from dlcompanion.uncertainty.stochastic_weights import (
    set_training_examples,
)
from dlcompanion.uncertainty.swag import SWAG
from dlcompanion.uncertainty.weight_posterior import (
    NormalPosterior,
    NormalPrior,
    SpecPosterior,
    SpecPrior,
)

__all__ = [
    "SWAG",
    "AdaptiveCalibrationError",
    "AdaptivePredictionSets",
    "BayesianConvolution",
    "BayesianDense",
    "BetaCalibration",
    "BinnedCalibration",
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
    "IsotonicCalibration",
    "KroneckerLaplace",
    "LastLayerLaplace",
    "MatrixScaling",
    "MaximumCalibrationError",
    "MonteCarloDropout",
    "NormalPosterior",
    "NormalPrior",
    "PlattScaling",
    "RegularizedPredictionSets",
    "SmoothCalibrationError",
    "SparseGaussianProcess",
    "SpecPosterior",
    "SpecPrior",
    "SplitConformal",
    "SplitConformalRegression",
    "TemperatureScaling",
    "VectorScaling",
    "calibrated_model",
    "conformal_quantile",
    "mutual_information",
    "predictive_entropy",
    "predictive_samples",
    "reliability_diagram",
    "set_training_examples",
]
