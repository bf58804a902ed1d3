r"""
One number repairs a network's confidence, and a thousand examples must prove it
================================================================================

A doctor who says "ninety per cent" should be right nine times in ten. Networks that
are trained until they make no mistake any more say "ninety-nine" and are right less
often. The ranking of their answers may be excellent all the same: only the scale is
wrong, and :class:`~dlcompanion.uncertainty.TemperatureScaling` turns one screw to set
it right. Whether it did is the harder question. The usual number,
:class:`~dlcompanion.uncertainty.ExpectedCalibrationError`, is never zero, not even of
a perfect forecaster, and this page shows how much of it is noise.

Notation: :doc:`/notation`.
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

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)


def measure(metric, y, p):
    metric.reset_state()
    metric.update_state(y, p)
    return float(metric.result())


def nll(y, p):
    return float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-30)).mean())


# %%
# How large is zero?
# ------------------
#
# A forecaster who is perfect by construction: it gives probabilities, and the outcomes
# are drawn from them. Its calibration error is zero. This is what the metric says.

sizes, draws = [50, 200, 1_000, 5_000, 20_000], 20
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
# of 20 forecasters, and the middle 80 % of them. "My ECE is 0.05" says nothing before
# one knows how many examples it is made of.

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
plt.show()

# %%
# An overconfident network
# ------------------------
#
# Three hundred digits, and an MLP that learns them by heart. Five hundred others set
# the calibrators, about a thousand test them. Five seeds, each with its own split.

CALIBRATE, SEEDS = 500, 5
network = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10),
    ]
)
network.compile(
    keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, 1_200)),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)


def noisy_digits(seed):
    """Pictures with noise; 300 to train on, 500 to calibrate, the rest to test."""
    (x, y), (x_more, y_more) = digits(flat=True, seed=seed)
    x, y = np.concatenate([x, x_more]), np.concatenate([y, y_more])
    x = x + 0.25 * np.random.default_rng(seed).normal(size=x.shape).astype("float32")
    cuts = [300, 300 + CALIBRATE]
    return list(zip(np.split(x, cuts), np.split(y, cuts), strict=True))


calibrators = {
    "temperature": TemperatureScaling,
    "vector": VectorScaling,
    "matrix, penalised": lambda: MatrixScaling(penalty=0.3),
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
brier = BrierScore(classes=10)
found = {name: {s: [] for s in scores} for name in ("none", *calibrators)}
temperatures, fit_gain, changed, kept = [], [], [], {}
for seed in range(SEEDS):
    restart(network, seed)
    (x, y), (x_fit, y_fit), (x_test, y_test) = noisy_digits(seed)
    fit_in_memory(network, x, y, batch_size=50, epochs=200, verbose=0)
    z_fit, z_test = (network.predict(a, verbose=0) for a in (x_fit, x_test))
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

y, p_of = kept[0]
figure, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
for axis, name in zip(axes, ("none", "temperature", "isotonic"), strict=True):
    reliability_diagram(y, p_of[name], axes=axis, bins=10)
    title = f"T = {temperatures[0]:.2f}" if name == "temperature" else name
    axis.set_title(f"{title}: ECE {found[name]['ECE'][0]:.3f}")
axes[0].legend(loc="lower right")
plt.show()

# %%
# What to notice
# --------------
#
# - Accuracy does not move with the temperature, because no decision does. One
#   parameter cannot overfit 500 examples. Two for each class do a little better still;
#   the hundred and ten of the matrix, held back by a penalty, do worse.
# - The isotonic map has a fine ECE and the worst likelihood. Where all of a few
#   examples were right it says 1, or 0 for a class, and the first exception costs
#   without limit (here it is cut off at 69 nats). ECE does not see this.
# - The Brier score improves less than the ECE: most of it is uncertainty that no
#   calibration can remove (its ``decomposition`` says how much).
# - After calibration the ECE is not zero. It is that of a perfect forecaster with as
#   many examples (printed below the table): nothing is left that this test could see.
# - The calibrated network is one Keras model, ``calibrated_model(network,
#   calibrator)``, and is saved as one.

print(f"{'':18s}" + "".join(f"{s:>12s}" for s in scores) + "   medians of 5 seeds")
for name, row in medians.items():
    print(f"{name:18s}" + "".join(f"{v:12.4f}" for v in row.values()))
share = np.bincount(y, minlength=10) / len(y)
print(f"{'class frequencies':18s}{nll(y, np.tile(share, (len(y), 1))):12.4f}")
print("temperatures:", *(f"{t:.2f}" for t in temperatures))

# what a perfect forecaster with the calibrated probabilities would measure
y, p_of = kept[0]
p = p_of["temperature"]
perfect = []
for _ in range(20):
    outcome = (p.cumsum(axis=1) < rng.uniform(size=(len(p), 1))).sum(axis=1)
    perfect.append(measure(metrics["ECE, 15 bins"], np.minimum(outcome, 9), p))
print(f"perfect forecaster, n = {len(y)}: ECE {np.median(perfect):.4f}")

# %%
# And where the truth is known: labels drawn at a temperature that we chose.

planted = []
for seed, truth in enumerate([0.5, 1.0, 2.0, 3.0, 4.0]):
    z = np.random.default_rng(seed).normal(0, 3, (20_000, 10))
    gumbel = np.random.default_rng(100 + seed).gumbel(size=z.shape)
    fitted = TemperatureScaling().fit(z, (z / truth + gumbel).argmax(axis=1))
    planted.append(abs(float(fitted.temperature) / truth - 1))

claim("a planted temperature is found, relative error", np.max(planted), "<", 0.03)
claim(
    "decisions that the temperature changes, worst seed",
    max(changed), "==", 0, seeds=SEEDS,
)  # fmt: skip
claim(
    "likelihood of the fitted examples: least gain in nats",
    min(fit_gain), ">=", 0, unit="nats", seeds=SEEDS,
)  # fmt: skip
claim(
    "test NLL with temperature against none, worst ratio",
    max(np.divide(found["temperature"]["NLL"], found["none"]["NLL"])), "<", 0.9,
    seeds=SEEDS,
)  # fmt: skip
claim(
    "test ECE with temperature against none, median ratio",
    np.median(np.divide(found["temperature"]["ECE"], found["none"]["ECE"])), "<", 0.6,
    seeds=SEEDS,
)  # fmt: skip
claim(
    "ECE of a perfect forecaster of 200 outcomes, median",
    np.median(noise["ECE, 15 bins"][1]), ">", 0.04, seeds=draws,
)  # fmt: skip
claim(
    "the same of 20,000 outcomes",
    np.median(noise["ECE, 15 bins"][-1]), "<", 0.01, seeds=draws,
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Calibrate on 50 digits instead of 500. Which calibrators still help the test
#    likelihood, and which one hurts?
# 2. Draw the test labels from the calibrated probabilities 1,000 times and count how
#    often their ECE is larger than the real one. That is a test of calibration.
# 3. Shift the test pictures by a pixel. Is the temperature that was fitted before
#    still right?
#
# References
# ----------
# Temperature, vector and matrix scaling are those of :cite:t:`guo2017calibration`,
# isotonic maps of several classes those of :cite:t:`zadrozny2002transforming`, beta
# calibration that of :cite:t:`kull2017beta`, the smooth error that of
# :cite:t:`blasiok2023smooth`; the band of the diagram is that of
# :cite:t:`brocker2007increasing`.

# sphinx_gallery_tags = ["layer", "metric", "all backends", "beginner"]
