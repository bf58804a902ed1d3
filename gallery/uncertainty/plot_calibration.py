r"""
Calibration and temperature scaling: one number repairs a network's confidence
==============================================================================

A classifier is calibrated if its probabilities are frequencies: of all predictions with
confidence 0.9, nine in ten are right. Large networks are usually overconfident: their
ranking of the classes is good, their probabilities are too close to 1.
:class:`~dlcompanion.uncertainty.TemperatureScaling` divides the logits by one number,
the temperature, which is fitted on held-out examples. It changes no decision and needs
no new training. Use it whenever probabilities are read by a person or a later decision;
if you need a guarantee rather than good probabilities, use
:doc:`/gallery/uncertainty/plot_conformal`. Whether it helped is the harder question:
the usual measure, :class:`~dlcompanion.uncertainty.ExpectedCalibrationError` (ECE), is
never zero, not even for a perfect forecaster, and this page shows how much of it is
noise.

In your own model
-----------------

Fit the temperature on held-out logits, and put it behind the network:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.uncertainty import TemperatureScaling, calibrated_model

   x = np.random.normal(size=(400, 5)).astype("float32")
   y = (x[:, 0] + np.random.normal(size=400) > 0).astype("int32")
   model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])  # logits
   loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
   model.compile(keras.optimizers.Adam(0.05), loss)
   model.fit(x[:200], y[:200], epochs=10, verbose=0)
   scaling = TemperatureScaling()
   scaling.fit(model.predict(x[200:], verbose=0), y[200:])  # held-out examples
   probabilities = calibrated_model(model, scaling).predict(x, verbose=0)

Neighbors: :doc:`/gallery/uncertainty/plot_conformal`,
:doc:`/gallery/uncertainty/plot_laplace`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Divide all logits :math:`z` by one temperature, chosen by the likelihood of held-out
# examples, and compare confidence with accuracy in bins:
#
# .. math::
#
#    \hat p = \operatorname{softmax}(z / T), \qquad
#    \mathrm{ECE} = \sum_b \frac{n_b}{n}
#    \bigl|\mathrm{acc}(b) - \mathrm{conf}(b)\bigr| .
#
# In a bin with :math:`m` examples the accuracy scatters by :math:`\sqrt{p(1-p)/m}`, and
# an absolute value never averages out. So first the noise, and then a network.

import keras
import matplotlib.pyplot as plt
import numpy as np

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.datasets import digits
from dlcompanion.training import fit_in_memory, restart
from dlcompanion.uncertainty import (
    BetaCalibration,
    BrierScore,
    ExpectedCalibrationError,
    IsotonicCalibration,
    MatrixScaling,
    PlattScaling,
    SmoothCalibrationError,
    TemperatureScaling,
    VectorScaling,
    calibrated_model,
    reliability_diagram,
)

keras.utils.set_random_seed(claims.seed())
rng = np.random.default_rng(claims.seed())


def measure(metric, y, p):
    metric.reset_state()
    metric.update_state(y, p)
    return float(metric.result())


def nll(y, p):
    return float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-30)).mean())


# %%
# The calibration error of a perfect forecaster
# ---------------------------------------------
#
# A forecaster that is perfect by construction: it gives probabilities, and the outcomes
# are drawn from them. Its calibration error is zero; the measured one is not.

sizes, draws = [50, 200, 2_000, 20_000], 12
metrics = {
    "ECE, 15 bins": ExpectedCalibrationError(15),
    "ECE, 15 bins of equal mass": ExpectedCalibrationError(15, "mass"),
    "smooth ECE": SmoothCalibrationError(),
}
noise = {name: np.zeros((len(sizes), draws)) for name in metrics}
for i, n in enumerate(sizes):
    for j in range(draws):
        p = rng.beta(4, 1, size=(n, 1)).astype("float32")
        y = (rng.uniform(size=n) < p[:, 0]).astype("int32")
        for name, metric in metrics.items():
            noise[name][i, j] = measure(metric, y, p)

# %%
# Left: a perfect forecaster of 200 outcomes looks miscalibrated, but hardly a point
# leaves the band that the same probabilities would fill by chance. Right: the median
# of 12 forecasters, and the middle 80 % of them. An ECE of 0.05 means nothing without
# the number of examples.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
p = rng.beta(4, 1, size=(200, 1))
y = (rng.uniform(size=200) < p[:, 0]).astype("int32")
reliability_diagram(y, p, axes=left)
left.legend(loc="lower right")
left.set_title(f"perfect, n = 200, ECE {measure(metrics['ECE, 15 bins'], y, p):.3f}")
for name, values in noise.items():
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=1)
    (line,) = right.plot(sizes, middle, "o-", label=name)
    right.fill_between(sizes, low, high, color=line.get_color(), alpha=0.2)
right.set(xscale="log", yscale="log", xlabel="examples", ylabel="measured error")
right.set_title("a forecaster without any error")
right.legend()
# alt: Left, reliability diagram of a perfect forecaster with 200 outcomes: the points
# scatter around the diagonal within a band; right, three measured calibration errors
# fall with the number of examples, though the true error is zero.
plt.show()

# %%
# An overconfident network
# ------------------------
#
# Three hundred digits, and an MLP that overfits them. Five hundred others are for
# fitting the calibrators, about a thousand for the test. Five seeds, each with its own
# split.

CALIBRATE, SEEDS = 500, claims.seeds(5)
x, y = digits(flat=True, seed=claims.seed())[0]
classes = int(y.max()) + 1
network = keras.Sequential(
    [
        keras.Input((x.shape[-1],)),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(classes),
    ]
)
network.compile(
    keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, 600)),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)


def noisy_digits(seed):
    """Pictures with noise; 300 to train on, 500 to calibrate, the rest to test."""
    (x, y), (x_more, y_more) = digits(flat=True, seed=seed)
    x, y = np.concatenate([x, x_more]), np.concatenate([y, y_more])
    x = x + 0.3 * np.random.default_rng(seed).normal(size=x.shape).astype("float32")
    cuts = [300, 300 + CALIBRATE]
    return list(zip(np.split(x, cuts), np.split(y, cuts), strict=True))


calibrators = {
    "temperature": TemperatureScaling,
    "vector": VectorScaling,
    "matrix, penalized": lambda: MatrixScaling(penalty=0.3),
    "Platt": PlattScaling,
    "beta": BetaCalibration,
    "isotonic": IsotonicCalibration,
}
scores = {
    "NLL": nll,
    "ECE": lambda y, p: measure(metrics["ECE, 15 bins"], y, p),
    "smooth ECE": lambda y, p: measure(metrics["smooth ECE"], y, p),
    "Brier": lambda y, p: measure(brier, y, p),
    "accuracy": lambda y, p: float((p.argmax(axis=1) == y).mean()),
}
brier = BrierScore(classes=classes)
found = {name: {s: [] for s in scores} for name in ("none", *calibrators)}
temperatures, fit_gain, changed, kept = [], [], [], {}
for seed in SEEDS:
    restart(network, seed)
    (x, y), (x_fit, y_fit), (x_test, y_test) = noisy_digits(seed)
    # ten times the digits an epoch, which costs more than a step
    many = np.tile(x, (10, 1)), np.tile(y, 10)
    fit_in_memory(network, *many, batch_size=50, epochs=10, verbose=0)
    z_fit, z_test = (network.predict_on_batch(a) for a in (x_fit, x_test))
    p_test = {"none": TemperatureScaling().predict(z_test)}
    for name, make in calibrators.items():
        calibrator = make().fit(z_fit, y_fit)
        p_test[name] = calibrator.predict(z_test)
        if name == "temperature":
            temperatures.append(float(calibrator.temperature))
            before = TemperatureScaling().predict(z_fit)
            fit_gain.append(nll(y_fit, before) - nll(y_fit, calibrator.predict(z_fit)))
            same = p_test[name].argmax(axis=1) == z_test.argmax(axis=1)
            changed.append(float((~same).mean()))
            whole = calibrated_model(network, calibrator)
    for name, p in p_test.items():
        for score, function in scores.items():
            found[name][score].append(function(y_test, p))
    kept[seed] = y_test, p_test

medians = {n: {s: np.median(v) for s, v in row.items()} for n, row in found.items()}

# %%
# The first seed before and after, with its temperature. Before, nearly every point lies
# below the band: confidence is larger than accuracy everywhere.

y, p_of = kept[SEEDS[0]]
figure, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
for axis, name in zip(axes, ("none", "temperature", "isotonic"), strict=True):
    reliability_diagram(y, p_of[name], axes=axis, bins=10)
    title = f"T = {temperatures[0]:.2f}" if name == "temperature" else name
    axis.set_title(f"{title}: ECE {found[name]['ECE'][0]:.3f}")
axes[0].legend(loc="lower right")
# alt: Reliability diagrams before calibration, with temperature scaling, and with
# isotonic calibration: before, the points lie below the diagonal; afterwards they lie
# near it.
plt.show()

# %%
# What to notice
# --------------
#
# - Accuracy does not change with the temperature, because no decision does. One
#   parameter cannot overfit 500 examples; the hundred and ten of matrix scaling, with a
#   penalty, can.
# - The isotonic map has a small ECE and a bad likelihood. Where all of a few examples
#   were right it returns 1, or 0 for a class, and the first exception costs without
#   limit (here it is cut off at 69 nats). ECE does not show this.
# - The Brier score improves less than the ECE: most of it is uncertainty that no
#   calibration can remove (its ``decomposition`` says how much).
# - After calibration the ECE is not zero. It is that of a perfect forecaster with as
#   many examples (printed below the table), so this test finds no error any more.
# - The calibrated network is one Keras model, ``calibrated_model(network,
#   calibrator)``, and is saved as one.

print(f"{'':18s}" + "".join(f"{s:>12s}" for s in scores) + "   medians of 5 seeds")
for name, row in medians.items():
    print(f"{name:18s}" + "".join(f"{v:12.4f}" for v in row.values()))
share = np.bincount(y, minlength=classes) / len(y)
print(f"{'class frequencies':18s}{nll(y, np.tile(share, (len(y), 1))):12.4f}")
print("temperatures:", *(f"{t:.2f}" for t in temperatures))

# what a perfect forecaster with the calibrated probabilities would measure
y, p_of = kept[SEEDS[0]]
p = p_of["temperature"]
perfect = []
for _ in range(20):
    outcome = (p.cumsum(axis=1) < rng.uniform(size=(len(p), 1))).sum(axis=1)
    perfect.append(
        measure(metrics["ECE, 15 bins"], np.minimum(outcome, classes - 1), p)
    )
print(f"perfect forecaster, n = {len(y)}: ECE {np.median(perfect):.4f}")

# %%
# Last, a case in which the right temperature is known: labels are drawn with it.

planted = []
for truth in [0.5, 1.0, 2.0, 3.0, 4.0]:
    z = rng.normal(0, 3, (50_000, classes))
    gumbel = rng.gumbel(size=z.shape)
    fitted = TemperatureScaling().fit(z, (z / truth + gumbel).argmax(axis=1))
    planted.append(abs(float(fitted.temperature) / truth - 1))

claim(
    "fitted temperature against the planted one, five of them, largest relative gap",
    np.max(planted), "<", 0.03,
)  # fmt: skip
claim(
    "share of decisions that temperature scaling changes, worst seed",
    max(changed), "==", 0, seeds=len(SEEDS),
)  # fmt: skip
claim(
    "log-likelihood of the fitted examples gained by temperature scaling, least",
    min(fit_gain), ">=", 0, unit="nats", seeds=len(SEEDS),
)  # fmt: skip
claim(
    "test NLL with temperature scaling to that without, worst seed",
    max(np.divide(found["temperature"]["NLL"], found["none"]["NLL"])), "<", 0.9,
    seeds=len(SEEDS),
)  # fmt: skip
claim(
    "test ECE with temperature scaling to that without, median",
    np.median(np.divide(found["temperature"]["ECE"], found["none"]["ECE"])), "<", 0.6,
    seeds=len(SEEDS),
)  # fmt: skip
claim(
    "ECE of a perfect forecaster of 200 outcomes, median",
    np.median(noise["ECE, 15 bins"][1]), ">", 0.04, seeds=draws,
)  # fmt: skip
claim(
    "ECE of a perfect forecaster of 20,000 outcomes, median",
    np.median(noise["ECE, 15 bins"][-1]), "<", 0.01, seeds=draws,
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Calibrate on 50 digits instead of 500 (``CALIBRATE``). Compare the columns NLL and
#    ECE: which calibrators need many examples, and why?
#
# .. dropdown:: Hint to 1
#
#    Count the parameters: temperature 1, Platt and beta two or three for each class,
#    the matrix 110. The isotonic map has as many as there are examples.
#
# 2. Draw the test labels from the calibrated probabilities 1,000 times and count how
#    often their ECE is larger than the real one. That is a test of calibration.
#
# .. dropdown:: Hint to 2
#
#    The loop over ``outcome`` at the end of the table does it 20 times. The share of
#    draws above the real ECE is a p-value.
#
# 3. Shift the test images by a pixel. Is the temperature that was fitted before still
#    right?
#
# .. dropdown:: Hint to 3
#
#    ``np.roll`` on images of shape ``(-1, 8, 8)``, on ``x_test`` only, before
#    ``predict``.
#
# References
# ----------
# Temperature, vector and matrix scaling are those of :cite:t:`guo2017calibration`,
# isotonic maps of several classes those of :cite:t:`zadrozny2002transforming`, beta
# calibration that of :cite:t:`kull2017beta`, the smooth error that of
# :cite:t:`blasiok2023smooth`; the band of the diagram is that of
# :cite:t:`brocker2007increasing`.

# sphinx_gallery_tags = ["layer", "metric", "introductory"]
