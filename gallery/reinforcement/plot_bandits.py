r"""
Greed wins most bandits and loses on average
============================================

Ten machines, each of which pays one coin with a probability of its own, and nobody says
which. Every pull of a poor machine is a loss; so is every pull that was never tried of
a better one. The bandit is reinforcement learning with the states taken out, and only
one question left: how much to *explore*. This page plays two hundred bandits with four
strategies, from :class:`~dlcompanion.reinforcement.Greedy` to
:class:`~dlcompanion.reinforcement.ThompsonSampling`, and finds that the question has a
surprising answer for the median and another one for the mean.

Prerequisite: :doc:`/gallery/reinforcement/plot_tabular`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Machine :math:`a` pays with probability :math:`\mu_a`. What a strategy loses by not
# knowing is its regret,
#
# .. math::
#
#    R_n = \sum_{t=1}^{n} \bigl(\mu^* - \mu_{a_t}\bigr) .
#
# A strategy that explores a fixed share of the time loses in proportion to :math:`n`.
# It takes no more than the *logarithm* of :math:`n`, and no strategy that is any good
# everywhere can do with less :cite:p:`lai1985asymptotically`. Two ways to get there: be
# optimistic where little is known :cite:p:`auer2002finite`,
#
# .. math::
#
#    a_t = \arg\max_a \; \hat\mu_a + \sqrt{\frac{2 \log t}{n_a}} ,
#
# or draw every :math:`\mu_a` from what is believed about it, and act as if that were
# the truth :cite:p:`thompson1933likelihood`.

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from dlcompanion.claims import claim
from dlcompanion.reinforcement import (
    UCB1,
    BernoulliBandits,
    EpsilonGreedy,
    Greedy,
    ThompsonSampling,
)

bandits, arms, steps = 200, 10, 20_000
means = np.random.default_rng(0).random((bandits, arms))
strategies = {
    "greedy": Greedy(),
    "explores one in ten": EpsilonGreedy(0.1),
    "UCB1": UCB1(),
    "Thompson": ThompsonSampling(),
}
colors = dict(zip(strategies, ("0.3", "C1", "C0", "C2"), strict=True))
regret = {
    name: BernoulliBandits(means, seed=1).play(strategy, steps).regret
    for name, strategy in strategies.items()
}

# %%
# Left, the mean over the two hundred bandits. Right, each of them at the end, in order:
# greed costs nearly nothing on most, and a fortune on those where the first coins were
# misleading.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
shown = np.unique(np.geomspace(10, steps, 80).astype(int)) - 1
for name, r in regret.items():
    left.semilogx(shown + 1, r[shown].mean(axis=1), color=colors[name], label=name)
    right.semilogy(np.sort(np.maximum(r[-1], 0.3)), color=colors[name], label=name)
left.set(xlabel="pulls", ylabel="regret, mean of 200 bandits")
right.set(xlabel="bandits, from the luckiest", ylabel=f"regret after {steps} pulls")
left.legend(fontsize="small")
plt.show()

# %%
# What Thompson sampling believes
# -------------------------------
#
# One bandit with four arms. After a few pulls everything is possible; later the good
# arm is known well and the poor ones hardly better than before, because nobody needs
# to.

one = BernoulliBandits([[0.3, 0.45, 0.6, 0.7]], seed=3)
figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
x = np.linspace(0, 1, 400)
pulled = 0
for axis, pulls in zip(axes, (10, 100, 1000), strict=True):
    one.play(ThompsonSampling(), pulls - pulled)
    pulled = pulls
    for a in range(4):
        n, won = one.counts[0, a], one.sums[0, a]
        line = axis.plot(x, stats.beta(1 + won, 1 + n - won).pdf(x), label=f"{n}")
        axis.axvline(one.means[0, a], color=line[0].get_color(), ls=":", lw=0.9)
    axis.set(title=f"{pulls} pulls", xlabel="probability", yticks=[])
    axis.legend(title="pulls of the arm", fontsize="x-small", title_fontsize="x-small")
plt.show()

# %%
# What to notice
# --------------
#
# - Greed is the best strategy for the *median* bandit, by far. What it loses, it loses
#   on the others: it never comes back to an arm that began badly.
# - A constant share of exploring is no cure at this share: it pays one tenth of a
#   mean gap for ever, more than greed loses. Explore one time in fifty instead.
# - The curves of UCB1 and of Thompson sampling are straight over a logarithmic axis.
#   UCB1 is far above all others at first; its bound holds for every bandit, and is
#   wide.

last = {name: r[-1] for name, r in regret.items()}
for name, r in last.items():
    print(f"{name:20s} median {np.median(r):7.1f}   mean {r.mean():7.1f}")


def z(a, b):
    """Standard errors by which ``a`` costs more than ``b``, bandit by bandit."""
    difference = last[a] - last[b]
    return difference.mean() / (difference.std() / np.sqrt(bandits))


for name in list(strategies)[1:]:
    print(f"greed costs more than {name}: {z('greedy', name):5.1f} standard errors")


def growth(name):
    """Regret of the last doubling of time over that of the one before."""
    r = regret[name].mean(axis=1)
    return (r[steps - 1] - r[steps // 2 - 1]) / (r[steps // 2 - 1] - r[steps // 4 - 1])


n = np.arange(1000, steps)
straight = np.corrcoef(np.log(n), regret["UCB1"].mean(axis=1)[n])[0, 1]

# %%
# The claims. A logarithm grows by the same amount in every doubling of time, factor 1;
# a line by twice as much.

claim(
    "mean regret of the greedy strategy over that of Thompson sampling",
    last["greedy"].mean() / last["Thompson"].mean(),
    ">",
    5,
    seeds=bandits,
)
claim(
    "their difference in standard errors",
    z("greedy", "Thompson"),
    ">",
    4,
    seeds=bandits,
)
claim(
    "share of the bandits where the greedy strategy has the smaller regret",
    np.mean(last["greedy"] < last["Thompson"]),
    ">",
    0.55,
    seeds=bandits,
)
claim("growth of UCB1's regret per doubling", growth("UCB1"), "<", 1.3, seeds=bandits)
claim("correlation of UCB1's regret with log n", straight, ">", 0.99, seeds=bandits)
claim(
    "growth of the regret per doubling with one random pull in ten",
    growth("explores one in ten"),
    ">",
    1.7,
    seeds=bandits,
)

# %%
# Try it
# ------
#
# 1. Begin greedily with ``sums = counts = 5`` for every arm, five coins that never
#    were. Why does this optimism explore, and for how long?
# 2. Make all arms nearly equal, ``means = 0.5 + 0.02 * rng.random(...)``. Which
#    strategy gains, and what does its regret mean then?
# 3. Replace the 2 in UCB1 by 0.25. What happens to the mean, and what to the worst of
#    the bandits?
#
# References
# ----------
# :cite:t:`auer2002finite`, theorem 1; :cite:t:`thompson1933likelihood`; the lower bound
# is that of :cite:t:`lai1985asymptotically`. A book: :cite:t:`lattimore2020bandit`.

# sphinx_gallery_tags = ["agent", "all backends", "beginner"]
