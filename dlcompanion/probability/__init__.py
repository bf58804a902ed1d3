r"""The one door to TensorFlow Probability, on TensorFlow and on JAX.

TensorFlow Probability (TFP) has hundreds of tested distributions and bijectors,
but its own ``tfp.layers`` does not work with Keras 3, and in Keras 3 no layer may
return a distribution: every output must be a tensor. Hence the pattern of this
package. A layer returns a float32 tensor of *parameters*, and a small *spec* that
is saved with the model turns parameters into a distribution. Head, loss and user
share the spec; no TFP object is ever stored on a layer or model.

>>> import keras
>>> head = keras.layers.Dense(NormalSpec(event_shape=2).params_size)
>>> tuple(head(keras.ops.ones((5, 3))).shape)  # (batch, params_size)
(5, 4)
"""

from dlcompanion.probability.door import as_bijector, tfb, tfd, tfp_seed
from dlcompanion.probability.functions import FunctionSpec
from dlcompanion.probability.mixtures import (
    CategoricalMixtureOfOneHotCategoricalSpec,
    MixtureLogisticSpec,
    MixtureNormalSpec,
    MixtureSameFamilySpec,
)
from dlcompanion.probability.specs import (
    BernoulliSpec,
    CategoricalSpec,
    LogisticSpec,
    MultivariateNormalTriLSpec,
    NormalSpec,
    OneHotCategoricalSpec,
    PoissonSpec,
    Spec,
)
from dlcompanion.probability.values import check_distribution

__all__ = [
    "BernoulliSpec",
    "CategoricalMixtureOfOneHotCategoricalSpec",
    "CategoricalSpec",
    "FunctionSpec",
    "LogisticSpec",
    "MixtureLogisticSpec",
    "MixtureNormalSpec",
    "MixtureSameFamilySpec",
    "MultivariateNormalTriLSpec",
    "NormalSpec",
    "OneHotCategoricalSpec",
    "PoissonSpec",
    "Spec",
    "as_bijector",
    "check_distribution",
    "tfb",
    "tfd",
    "tfp_seed",
]
