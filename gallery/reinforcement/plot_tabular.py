r"""
Q-learning and SARSA: one learns the short path, the other the safe one
=======================================================================

If a problem has few states and few actions, everything an agent needs fits into a
table: one number for every state and action, its value, which is the reward and what
can be expected to follow. This page computes these values twice. If the Markov decision
process (MDP) is known, with all its probabilities, it is solved by dynamic programming,
here with :func:`~dlcompanion.reinforcement.value_iteration`. If it is not, an agent
learns from trial and error, with :class:`~dlcompanion.reinforcement.QLearning` or
:class:`~dlcompanion.reinforcement.SARSA`. Q-learning is *off-policy*: it learns the
values of the best policy. SARSA is *on-policy*: it learns the values of the policy that
it follows, with its exploration, and on the edge of a cliff that makes it choose
another path. Use tables for up to some thousand states; for images or real numbers use
a network, as in :doc:`/gallery/reinforcement/plot_dqn`.

In your own model
-----------------

.. code-block:: python

   from dlcompanion.reinforcement import FiniteMDP, QLearning, value_iteration

   lake = FiniteMDP.of("FrozenLake-v1")  # a gymnasium environment with tables inside
   agent = QLearning(lake, discount=0.95, step_size=0.1, exploration=0.2)
   agent.fit(steps=5_000)
   print(agent.policy.reshape(4, 4))  # 0 left, 1 down, 2 right, 3 up
   print(value_iteration(lake, discount=0.95).policy.reshape(4, 4))  # the best one

Next: :doc:`/gallery/reinforcement/plot_bandits` and
:doc:`/gallery/reinforcement/plot_dqn`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# The value of a state is what the best action pays, and the value of what follows
# :cite:p:`bellman1957dynamic`:
#
# .. math::
#
#    v(s) = \max_a q(s, a), \qquad
#    q(s, a) = \sum_{s'} p(s' \mid s, a) \bigl(r(s, a, s') + \gamma\, v(s')\bigr).
#
# With :math:`p` and :math:`r` known, this is computed from right to left and repeated
# until it holds (value iteration). Without them, an agent acts, sees one :math:`s'`,
# and moves :math:`q(s, a)` a little towards what was seen :cite:p:`watkins1992q`:
#
# .. math::
#
#    q(s, a) \leftarrow q(s, a)
#      + \alpha \bigl(r + \gamma\, \hat v(s') - q(s, a)\bigr) .
#
# Q-learning takes :math:`\hat v(s') = \max_{a'} q(s', a')`, the best that can be done;
# SARSA takes :math:`q(s', a')` with the action that it really takes next, now and then
# one at random :cite:p:`sutton2018reinforcement`.

import matplotlib.pyplot as plt
import numpy as np

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.reinforcement import (
    SARSA,
    FiniteMDP,
    GridWorld,
    QLearning,
    policy_values,
    value_iteration,
)

# %%
# When the world is known
# -----------------------
#
# A bridge between pits, and a way round. The floor is more or less slippery: with the
# probability in the title a step goes aside. A step costs 1, and falling into a pit
# costs 30 and ends the episode.

bridge = [
    "............",
    ".##########.",
    ".#PPPPPPPP#.",
    "S..........G",
    ".#PPPPPPPP#.",
]
paid = {"P": -30.0}
arrows = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])  # up, right, down, left


def show(axis, world, values, policy):
    rows, columns = world.shape
    free = np.isin(world.cells, [".", "S"])
    image = np.where(free, values.reshape(rows, columns), np.nan)
    axis.imshow(image, cmap="viridis")
    for cell in np.flatnonzero(free):
        y, x = divmod(cell, columns)
        dx, dy = 0.3 * arrows[policy[cell]]
        axis.annotate(
            "",
            (x + dx, y - dy),
            (x - dx, y + dy),
            arrowprops={"arrowstyle": "->", "color": "w"},
        )
    for letter, name in (("G", "goal"), ("P", "pit"), ("C", "cliff")):
        for y, x in np.argwhere(world.cells == letter):
            axis.text(x, y, name, ha="center", va="center", fontsize=7)
    axis.set(xticks=[], yticks=[], facecolor="0.85")


figure, axes = plt.subplots(1, 3, figsize=(11, 2.6), layout="constrained")
residuals, through = [], []
for axis, slip in zip(axes, (0.0, 0.01, 0.1), strict=True):
    world = GridWorld(bridge, paid, slip)
    solution = value_iteration(world, discount=1.0)
    show(axis, world, solution.values, solution.policy)
    begin = solution.values[world.starts[0]]
    axis.set_title(f"slip {slip}: {begin:.1f} from the start", fontsize=10)
    system = policy_values(world, solution.policy, discount=1.0)
    best = solution.action_values.max(axis=1)
    residuals.append(np.abs(best - solution.values).max())
    residuals.append(np.abs(system - solution.values).max())
# alt: Three maps of a grid world for three amounts of slipping, colored by value,
# with an arrow for the best action of each cell. Without slipping the arrows lead
# over the bridge, with much of it around the pits.
plt.show()

# %%
# Value iteration has converged when the equation holds. An independent check: the
# values of a fixed policy, here that of the arrows, are the solution of a linear
# system.

print(f"largest violation of either equation: {max(residuals):.1e}")

# %%
# When it is not
# --------------
#
# Four seats round a table; an action moves to the left or to the right, and once in
# twenty times the move ends on a random seat. The learner moves at random and sees one
# seat at a time; each seed has a table with other rewards. With a constant
# :math:`\alpha` the last few steps decide, and their noise stays; with :math:`\alpha_n
# = n^{-0.9}` in the :math:`n`-th visit all of them count.

seeds, checkpoints = claims.seeds(5), np.geomspace(100, 100_000, 16).astype(int)
beside = (np.arange(4)[:, None] + [1, 3]) % 4
transitions = 0.95 * np.eye(4)[beside] + 0.05 / 4


def seats(seed):
    """A table with its own rewards, and what every move there is worth."""
    rewards = 0.5 * np.random.default_rng(seed).normal(size=(4, 2))
    table = FiniteMDP(transitions, rewards, np.zeros(4, bool))
    return table, value_iteration(table, discount=0.3).action_values


tables = [seats(seed) for seed in seeds]
schedules = {"constant, 0.1": (0.1, 0.0), "decaying": (1.0, 0.9)}
error = {}
for name, (size, decay) in schedules.items():
    curves = []
    for (table, exact), seed in zip(tables, seeds, strict=True):
        agent = QLearning(table, 0.3, size, decay, 1.0, horizon=100, seed=seed)
        for more in np.diff(checkpoints, prepend=0):
            agent.fit(int(more))
            curves.append(np.abs(agent.table - exact).max())
    error[name] = np.reshape(curves, (len(seeds), len(checkpoints)))

figure, axis = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
for name, curves in error.items():
    line = axis.loglog(checkpoints, np.median(curves, axis=0), "o-", ms=3, label=name)
    axis.loglog(checkpoints, curves.T, color=line[0].get_color(), alpha=0.25, lw=0.8)
axis.axhline(1e-3, color="0.6", lw=0.8)
axis.set(xlabel="steps", ylabel="largest error of the table")
axis.legend(title="step size")
# alt: Largest error of the table against steps, both axes logarithmic. With a
# constant step size the error levels off, with a decaying one it keeps falling below
# one thousandth.
plt.show()

# %%
# Whose future counts
# -------------------
#
# The world of example 6.6 in :cite:t:`sutton2018reinforcement`: a step costs 1, a fall
# 100 and the way back to the start. Both learners take one step in ten at random, and
# go on doing so while they learn.

cliff = GridWorld.cliff()
agents = {"Q-learning": QLearning, "SARSA": SARSA}
learned, online = {}, {}
for name, kind in agents.items():
    runs = [kind(cliff, step_size=0.2, exploration=0.1, seed=s) for s in seeds]
    histories = [run.fit(25_000)["returns"] for run in runs]
    online[name] = np.array([h[:1000] for h in histories])
    learned[name] = np.array([run.policy for run in runs])


def walk(policy):
    """The cells from the start to the goal."""
    state, cells, ended = cliff.reset()[0], [], False
    while not ended and len(cells) < 60:
        cells.append(state)
        state, _, ended, _, _ = cliff.step(policy[state])
    return np.array([divmod(cell, 12) for cell in [*cells, state]])


def explored(policy, exploration):
    """What a policy is worth at the start if it explores: exactly."""
    mixed = (1 - exploration) * np.eye(4)[policy] + exploration / 4
    return policy_values(cliff, mixed, discount=1.0)[cliff.starts[0]]


lengths = {name: [len(walk(p)) - 1 for p in learned[name]] for name in agents}
worth = {name: [explored(p, 0.1) for p in learned[name]] for name in agents}
grid = np.linspace(0.002, 0.2, 34)

figure, axes = plt.subplot_mosaic(
    "AA;BC", figsize=(8.5, 5.6), layout="constrained", height_ratios=[1.1, 1]
)
ground = np.where(cliff.cells == "C", 1.0, 0.0)
axes["A"].imshow(ground, cmap="Greys", vmax=2.5)
for (name, policies), shift in zip(learned.items(), (0.0, 0.12), strict=True):
    y, x = walk(policies[0]).T
    axes["A"].plot(x + shift, y - shift, "o-", ms=3, lw=2.5, label=name)
axes["A"].text(5.5, 3, "cliff", ha="center", va="center")
axes["A"].set(xticks=[], yticks=[])
axes["A"].legend(loc="upper left", fontsize="small")
for name, returns in online.items():
    smooth = returns.mean(axis=0)[: len(returns[0]) // 20 * 20].reshape(-1, 20)
    axes["B"].plot(20 * np.arange(len(smooth)), smooth.mean(axis=1), label=name)
    curve = [np.median([explored(p, e) for p in learned[name]]) for e in grid]
    axes["C"].plot(grid, curve, label=name)
axes["B"].set(xlabel="episode", ylabel="return while learning", ylim=(-110, 0))
axes["C"].set(xlabel="exploration when used", ylabel="expected return, exactly")
axes["C"].axvline(0.1, color="0.6", lw=0.8, ls=":")
# alt: Above, the cliff with the path of Q-learning along its edge and that of SARSA
# further away. Below, returns while learning, higher for SARSA, and expected returns
# of both policies against exploration.
plt.show()

# %%
# What to notice
# --------------
#
# - Q-learning is not wrong. Its table is that of the best policy, 13 steps along the
#   edge; but while it learns, it explores, and then it falls.
# - SARSA learns the values of a policy that takes a random action one time in ten.
#   Without exploration its path costs a few steps more.
# - The right picture is computed and not played: the values of a policy that explores
#   solve a linear system too. The curves cross close to zero: two random actions in a
#   hundred steps are enough for the detour to pay.
# - Value iteration plans for the floor as it is: with one slip in a hundred steps the
#   bridge is the best way, with one in ten it is not.
#
# A random walk beside the two, and the claims.

aimless = policy_values(cliff, np.full((48, 4), 0.25), 1.0)[cliff.starts[0]]
print(f"random walk  {aimless:10.0f}")
for name in agents:
    print(
        f"{name:12s} {np.median(worth[name]):10.1f} exploring, "
        f"{-np.median(lengths[name]):.0f} not"
    )

claim(
    "value iteration, largest violation of Bellman's equation or the linear system",
    max(residuals),
    "<",
    1e-10,
)
claim(
    "Q-learning with a decaying step size, largest error of the table, median",
    np.median(error["decaying"][:, -1]),
    "<",
    1e-3,
    seeds=len(seeds),
)
claim(
    "Q-learning, error of the table, decaying over constant step size, medians",
    np.median(error["decaying"][:, -1]) / np.median(error["constant, 0.1"][:, -1]),
    "<",
    0.2,
    seeds=len(seeds),
)
claim(
    "greedy path of Q-learning along the cliff, median of the seeds",
    np.median(lengths["Q-learning"]),
    "==",
    13,
    unit="steps",
    seeds=len(seeds),
)
claim(
    "greedy path of SARSA along the cliff, median of the seeds",
    np.median(lengths["SARSA"]),
    ">=",
    15,
    unit="steps",
    seeds=len(seeds),
)
claim(
    "expected return while exploring on the cliff, SARSA less Q-learning, median",
    np.median(np.subtract(worth["SARSA"], worth["Q-learning"])),
    ">",
    10,
    seeds=len(seeds),
)

# %%
# Try it
# ------
#
# 1. Let the exploration of SARSA fall from 0.1 to 0.001, in ten calls of ``fit`` with
#    another ``agent.exploration`` each. Does it find the path along the edge?
# 2. Use :class:`~dlcompanion.reinforcement.ExpectedSARSA` with ``step_size=1``. Why
#    does SARSA not survive that, on a cliff on which nothing slips?
# 3. In the world of the bridge, from which share of slipping on is the way round the
#    better one? Find it with ``value_iteration`` and a loop over ``slip``.
#
# .. dropdown:: Hint to 1
#
#    Without exploration the target of SARSA is that of Q-learning, so in the limit both
#    learn the same values. But the cells at the edge were visited while falls were
#    frequent, and a greedy policy does not go back to them: in five of five runs the
#    path still had 15 or 17 steps.
#
# .. dropdown:: Hint to 2
#
#    With a step size of 1 a value is replaced by its last target. The target of SARSA
#    has one drawn action in it, that of expected SARSA the mean over all of them.
#
# .. dropdown:: Hint to 3
#
#    The first step of the best policy tells: ``solution.policy[world.starts[0]]`` is
#    the number of a direction, in the order of ``arrows``.
#
# References
# ----------
# :cite:t:`bellman1957dynamic`; :cite:t:`watkins1992q`; SARSA is due to
# :cite:t:`rummery1994line`, and the cliff to :cite:t:`sutton2018reinforcement`.

# sphinx_gallery_thumbnail_number = 3
# sphinx_gallery_tags = ["agent", "introductory"]
