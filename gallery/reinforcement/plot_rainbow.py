r"""
Rainbow DQN: six improvements of deep Q-learning, each with a switch of its own
===============================================================================

Deep Q-learning (DQN) was followed by one improvement after another: double Q-learning,
dueling networks, prioritized experience replay, multi-step (n-step) returns,
distributional values (C51: the distribution of the return instead of its mean), and
noisy networks for exploration. Rainbow combines the six.
:class:`~dlcompanion.reinforcement.Rainbow` has a switch for each of them. Use it in
place of :doc:`/gallery/reinforcement/plot_dqn` for discrete actions where environment
steps are expensive; an update costs several times as much. This page checks the two
parts that are laws, the projection of a distribution and prioritized replay, trains
Rainbow to balance a pole (CartPole), switches off each part in turn (an ablation), and
looks at a distribution that was learned.

In your own model
-----------------

.. code-block:: python

   from dlcompanion.reinforcement import Rainbow

   agent = Rainbow(
       "CartPole-v1",
       atoms=26,
       value_range=(0.0, 50.0),  # smallest and largest discounted return
       n_step=3,
       prioritized=True,  # double, dueling and noisy are switches, too
       learning_starts=128,
       horizon=128,
   )
   agent.fit(steps=512, verbose=0)  # some 20,000 for a pole that stays up
   print(agent.evaluate(episodes=10)["return_mean"])

Prerequisites: :doc:`/gallery/reinforcement/plot_dqn`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# The network gives, for each action, probabilities :math:`p_j(s, a)` of returns on a
# grid :math:`g`. After :math:`n` rewards :math:`R` the distribution of the best action
# is moved and projected back onto the grid, and learned by the cross-entropy,
#
# .. math::
#
#    -\sum_i w_i \sum_j \Pi\bigl[R_i + \gamma^n g,\; p^-(s'_i, a'_i)\bigr]_j
#      \log p_j(s_i, a_i), \qquad
#    a' = \operatorname{argmax}_a \sum_j g_j\, p_j(s', a)
#
# :cite:p:`hessel2018rainbow,bellemare2017distributional`. The steps :math:`i` are drawn
# with a probability that grows with their last error, and :math:`w_i` makes up for it
# :cite:p:`schaul2016prioritized`; the head of the network has two streams
# :cite:p:`wang2016dueling` of layers with noise :cite:p:`fortunato2018noisy`. First the
# projection alone: a distribution on 11 points, discounted by 0.8 and moved by 0.7,
# keeps its mass and its mean.

import keras
import matplotlib.pyplot as plt
import numpy as np

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.reinforcement import PrioritizedReplay, Rainbow
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments
from dlcompanion.reinforcement.rainbow import categorical_projection

keras.utils.set_random_seed(claims.seed())

grid = np.linspace(0, 5, 11, dtype="float32")
p = np.exp(-0.5 * (grid - 2.0) ** 2, dtype="float32")
p /= p.sum()
moved = 0.7 + 0.8 * grid
q = categorical_projection(moved[None], p[None], grid)
q = keras.ops.convert_to_numpy(q)[0]

# %%
# Prioritized replay: 64 steps whose errors grow evenly, drawn with the
# square root of the error.

errors = np.linspace(0.05, 1.0, 64)
replay = PrioritizedReplay(buffer_size=64, exponent=0.5)
rows = replay.add(step=np.arange(64))
replay.prioritize(rows, errors)
drawn = replay.draw((400, 64), np.random.default_rng(claims.seed()))
share = np.bincount(drawn.ravel(), minlength=64) / drawn.size
wanted = np.sqrt(errors) / np.sqrt(errors).sum()

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
left.vlines(0.7 + 0.8 * grid, 0, p, color="C1", label="moved")
left.bar(grid, q, width=0.3, alpha=0.6, label="projected")
left.set(xlabel="return", ylabel="probability")
left.legend(fontsize="small")
right.plot(errors, share, ".", label="drawn")
right.plot(errors, wanted, label=r"$\propto |\delta|^{1/2}$")
right.set(xlabel="error", ylabel="share of the draws", ylim=(0, None))
right.legend(fontsize="small")
# alt: Left, a distribution moved off its grid, as lines, and its projection onto the
# grid, as bars. Right, the share of draws of prioritized replay against the error, on
# the curve of the square root.
plt.show()

# %%
# Now the agents. Each has the same network but for the part that is switched off, the
# same 2,000 steps and the same optimizer, which was not tuned for any of them. Rainbow,
# and the one that learns means instead of distributions, have three seeds, the others
# one: far too few to rank them, and enough to see that each switch works alone.

budget, discount = 2_000, 0.98

compared = {"Rainbow", "no distribution"}  # of more seeds than the others
kinds = {
    "Rainbow": {},
    "no double": {"double": False},
    "no dueling": {"dueling": False},
    "no priorities": {"prioritized": False},
    "one step": {"n_step": 1},
    "no distribution": {"atoms": None},
    "no noise": {"noisy": False},
}


def train(seeds, changes):
    agent = Rainbow(
        "CartPole-v1",
        optimizer=keras.optimizers.Adam(0.002, global_clipnorm=10.0),
        value_range=(0.0, 50.0),
        discount=discount,
        delta=10.0,
        learning_starts=256,
        rollout_length=16,
        gradient_steps=32,
        target_update_interval=64,
        exploration_steps=1_000,
        num_envs=8,
        **{"atoms": 26, **changes},
    )
    for seed in seeds:
        history = agent.restart(seed).fit(budget, verbose=0).history
        found = agent.evaluate(episodes=20)["return_mean"]
        yield agent, found, history["value_mean"][-1]


runs = {
    name: list(train(claims.seeds(3 if name in compared else 1), changes))
    for name, changes in kinds.items()
}
returns = {name: np.array([r for _, r, _ in many]) for name, many in runs.items()}
values = {name: np.array([v for _, _, v in many]) for name, many in runs.items()}

rng = np.random.default_rng(claims.seed())


def by_coin(observations):
    return rng.integers(2, size=len(observations))


coin = (
    Environments("CartPole-v1", 200)
    .play(by_coin, seed=claims.seed(), horizon=500)
    .returns.mean()
)

# %%
# Left, the greedy returns on 20 new episodes. Right, what the last Rainbow expects of
# a pole that stands, and of one that falls to the right while the cart is pushed to the
# left: a distribution of the discounted return.

states = np.array([[0, 0, 0, 0], [0, 0, 0.15, 1.0]], "float32")
agent = runs["Rainbow"][-1][0]
logits = agent.policy(states, training=False)
expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))[:, 0]
support = np.array(agent.learner.support)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
names = list(returns)
for n, name in enumerate(names):
    left.barh(n, returns[name].mean(), color="C0" if n else "C1", alpha=0.5)
    left.plot(returns[name], [n] * len(returns[name]), "o", color="0.2", ms=4)
left.axvline(coin, color="0.4", ls=":")
left.set_yticks(range(len(names)), names, fontsize="small")
left.invert_yaxis()
left.set(xlabel="greedy return (dotted: a coin)")
for row, label in zip(expected, ("standing", "falling"), strict=True):
    right.bar(support, row, width=1.8, alpha=0.6, label=label)
right.set(xlabel="discounted return", ylabel="probability")
right.legend(fontsize="small")
# alt: Left, greedy returns of Rainbow and of six variants with one part off,
# most of the lowest without the distribution. Right, the learned distribution of
# the return for a standing and a falling pole.
plt.show()

# %%
# What to notice
# --------------
#
# - The projection spreads each spike over its two neighbors, and the draws follow the
#   errors: the two laws that the claims below check.
# - Five of the parts can go, and after 2,000 steps no difference can be seen: two seeds
#   of one kind differ as much as two kinds do. The parts were made for games in which
#   rewards are rare, and were ranked there over many millions of frames; a pole pays 1
#   at every step.
# - Without the distribution the learned values are far too small after so few steps. A
#   value begins near 0 and has to climb, one target network after the other; a
#   distribution begins spread over the whole grid, and what falls short is soon told
#   from what does not. (The loss of the values is the square up to an error of 10: that
#   is not what holds them back.)
# - The distribution is that of the return; it does not show how uncertain the network
#   is about it.
# - Holding the pole for a whole episode took other settings: 20 rewards ahead, a
#   discount of 0.99, batches of 128 and 12,000 to 29,000 steps. The page of
#   :doc:`benchmarks </benchmarks>` has the curves of five seeds.

print(f"coin             {coin:7.1f}")
for name in runs:
    columns = returns[name], values[name]
    shown = ("".join(f"{x:8.4g}" for x in column) for column in columns)
    print(f"{name:17s}" + "   mean value".join(shown))
others = np.concatenate([returns[n] for n in runs if n not in compared])

# %%
# The claims.

claim(
    "categorical projection, change of the total probability",
    abs(q.sum() - 1.0),
    "<",
    1e-5,
)
claim(
    "categorical projection, change of the mean return",
    abs((q * grid).sum() - (p * (0.7 + 0.8 * grid)).sum()),
    "<",
    1e-4,
)
claim(
    "draws of prioritized replay against priorities, chi-squared per degree of freedom",
    drawn.size * ((share - wanted) ** 2 / wanted).sum() / 63,
    "<",
    1.6,
)
claim(
    "greedy return of Rainbow after 2,000 steps, over random play, worst seed",
    returns["Rainbow"].min() / coin,
    ">",
    1.5,
    seeds=3,
)
claim(
    "mean learned value of Rainbow, with a distribution over without, medians",
    np.median(values["Rainbow"]) / np.median(values["no distribution"]),
    ">",
    1.5,
    seeds=3,
)
claim(
    "greedy return, mean of five agents with one part switched off, over random play",
    others.mean() / coin,
    ">",
    2,
)

# %%
# Try it
# ------
#
# 1. Give the grid the ends 0 and 10 where returns near 50 are to be had. What becomes
#    of the distributions, and of the policy?
# 2. Switch all six off. Which agent is that?
# 3. Take twenty seeds and ten times the steps for two kinds of your choice. How many
#    seeds does it take to tell them apart?
#
# .. dropdown:: Hint to 1
#
#    ``value_range=(0.0, 10.0)``: all that is larger is projected onto the last point of
#    the grid. How can two actions differ then?
#
# .. dropdown:: Hint to 2
#
#    ``double=False, dueling=False, prioritized=False, n_step=1, atoms=None,
#    noisy=False``.
#
# .. dropdown:: Hint to 3
#
#    :func:`~dlcompanion.reinforcement.bootstrap_interval` gives an interval for each
#    kind.
#
# References
# ----------
# :cite:t:`hessel2018rainbow`; :cite:t:`bellemare2017distributional`;
# :cite:t:`schaul2016prioritized`; :cite:t:`wang2016dueling`;
# :cite:t:`fortunato2018noisy`.

# sphinx_gallery_tags = ["agent", "advanced"]
