r"""
Multi-armed bandits: greed wins most of them and loses on average
=================================================================

A multi-armed bandit is the problem of choosing again and again between options of
unknown quality: slot machines, advertisements, treatments, versions of a web page (an
A/B test that adapts). Every choice of a poor option is a loss; so is every good option
that was not tried. A strategy has to balance exploration, trying what is little known,
and exploitation, choosing what was good so far. This page plays two hundred bandits
with four strategies: :class:`~dlcompanion.reinforcement.Greedy`,
:class:`~dlcompanion.reinforcement.EpsilonGreedy` (epsilon-greedy),
:class:`~dlcompanion.reinforcement.UCB1` (an upper confidence bound) and
:class:`~dlcompanion.reinforcement.ThompsonSampling`. Use a bandit where a choice does
not change what comes next; where it does, that is reinforcement learning with states,
as in :doc:`/gallery/reinforcement/plot_tabular`.

In your own model
-----------------

.. code-block:: python

   import numpy as np

   from dlcompanion.reinforcement import ThompsonSampling

   random = np.random.default_rng()
   clicks = np.array([0.04, 0.05, 0.08])  # of three versions of a page; nobody knows
   counts, sums = np.zeros((1, 3), int), np.zeros((1, 3))
   for visitor in range(5_000):
       [version] = ThompsonSampling()(counts, sums, random)
       counts[0, version] += 1
       sums[0, version] += random.random() < clicks[version]
   print(counts)  # the best version was shown most

Prerequisite: :doc:`/gallery/reinforcement/plot_tabular`. Next:
:doc:`/gallery/reinforcement/plot_alphazero`, whose search is a bandit in every
position. Notation: :doc:`/notation`.
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
# or draw every :math:`\mu_a` from its posterior distribution, and act as if that were
# the truth :cite:p:`thompson1933likelihood`.

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.reinforcement import (
    UCB1,
    BernoulliBandits,
    EpsilonGreedy,
    Greedy,
    ThompsonSampling,
)

bandits, arms, steps = 200, 10, 20_000
of_machines, of_coins, of_example = claims.seeds(3)
means = np.random.default_rng(of_machines).random((bandits, arms))
strategies = {
    "greedy": Greedy(),
    "explores one in ten": EpsilonGreedy(0.1),
    "UCB1": UCB1(),
    "Thompson": ThompsonSampling(),
}
colors = dict(zip(strategies, ("0.3", "C1", "C0", "C2"), strict=True))
regret = {
    name: BernoulliBandits(means, seed=of_coins).play(strategy, steps).regret
    for name, strategy in strategies.items()
}

# %%
# Left, the mean over the two hundred bandits. Right, each of them at the end, in order:
# the greedy strategy costs nearly nothing on most, and very much on those where the
# first pulls were misleading.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
shown = np.unique(np.geomspace(10, steps, 80).astype(int)) - 1
for name, r in regret.items():
    left.semilogx(shown + 1, r[shown].mean(axis=1), color=colors[name], label=name)
    right.semilogy(np.sort(np.maximum(r[-1], 0.3)), color=colors[name], label=name)
left.set(xlabel="pulls", ylabel="regret, mean of 200 bandits")
right.set(xlabel="bandits, from the luckiest", ylabel=f"regret after {steps} pulls")
left.legend(fontsize="small")
# alt: Left, mean regret of four strategies against the number of pulls on a
# logarithmic axis: greedy and epsilon-greedy bend upwards, UCB1 and Thompson sampling
# are straight. Right, the final regret of every bandit, sorted.
plt.show()

# %%
# What Thompson sampling learns
# -------------------------------
#
# One bandit with four arms. After a few pulls everything is possible; later the good
# arm is known well and the poor ones hardly better than before, because they
# are hardly pulled.

one = BernoulliBandits([[0.3, 0.45, 0.6, 0.7]], seed=of_example)
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
# alt: Three panels with the beliefs about four arms after 10, 100 and 1,000 pulls, as
# densities of the probability. The density of the best arm becomes narrow, those of
# the poor arms stay wide.
plt.show()

# %%
# What to notice
# --------------
#
# - The greedy strategy is the best one for the *median* bandit, by far. What it loses,
#   it loses on the others: it never comes back to an arm that began badly.
# - A constant share of exploring is no cure at this share: it pays one tenth of a
#   mean gap for ever, more than the greedy strategy loses. Explore one time in fifty
#   instead.
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
    "mean regret of the greedy strategy over that of Thompson sampling, 20,000 pulls",
    last["greedy"].mean() / last["Thompson"].mean(),
    ">",
    5,
    seeds=bandits,
)
claim(
    "mean regret, greedy less Thompson sampling, in standard errors",
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
claim(
    "mean regret of UCB1, growth in the last doubling of time over the one before",
    growth("UCB1"),
    "<",
    1.3,
    seeds=bandits,
)
claim(
    "mean regret of UCB1, correlation with the logarithm of the number of pulls",
    straight,
    ">",
    0.99,
    seeds=bandits,
)
claim(
    "mean regret with one random pull in ten, growth in the last doubling of time",
    growth("explores one in ten"),
    ">",
    1.7,
    seeds=bandits,
)

# %%
# Try it
# ------
#
# 1. Begin greedily with ``sums`` and ``counts`` of 5 for every arm, five coins that
#    were never paid. Why does this optimism explore, and for how long?
# 2. Make all arms nearly equal, ``means = 0.5 + 0.02 * rng.random(...)``. Which
#    strategy gains, and what does its regret mean then?
# 3. Replace the 2 in UCB1 by 0.25. What happens to the mean, and what to the worst of
#    the bandits?
#
# .. dropdown:: Hint to 1
#
#    An arm looks like one that always pays until its first failures. How many of them
#    does it take until its mean is below that of the best arm?
#
# .. dropdown:: Hint to 2
#
#    The regret of one poor pull is at most 0.02. Compare the regret with that of
#    pulling arms at random.
#
# .. dropdown:: Hint to 3
#
#    The width is ``np.sqrt(2 * np.log(t) / n)``; write a function of ``counts`` and
#    ``sums`` like ``UCB1`` with 0.25 in place of 2. A narrow bound may exclude the best
#    arm for a long time.
#
# References
# ----------
# :cite:t:`auer2002finite`, theorem 1; :cite:t:`thompson1933likelihood`; the lower bound
# is that of :cite:t:`lai1985asymptotically`. A book: :cite:t:`lattimore2020bandit`.

# sphinx_gallery_tags = ["agent", "introductory"]
