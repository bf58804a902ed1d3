r"""
Q-learning finds the short path, SARSA the one that forgives
============================================================

An agent stands in a state, acts, is paid and finds itself in another state. If there
are few states, all that it can ever need is one number for every state and action: what
the action is worth, with everything that follows. This page computes these numbers
twice, by :func:`~dlcompanion.reinforcement.value_iteration` for someone who knows the
world, and by :class:`~dlcompanion.reinforcement.QLearning` for someone who has to try.
Then it puts two learners on the edge of a cliff, where it matters *whose* future the
number counts.

Notation: :doc:`/notation`.
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
# Whoever knows :math:`p` and :math:`r` reads this from right to left and repeats it
# until it holds. Whoever does not, acts, sees one :math:`s'`, and moves :math:`q(s, a)`
# a little towards what was seen :cite:p:`watkins1992q`:
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
# probability in the title a step goes aside. A step costs 1, a pit 30 and the day.

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
plt.show()

# %%
# Value iteration has converged when the equation holds. A second opinion: follow its
# arrows for ever, and what that is worth is the solution of a linear system.

print(f"largest violation of either equation: {max(residuals):.1e}")

# %%
# When it is not
# --------------
#
# Four seats round a table; one moves to the left or to the right, and is once in twenty
# times moved anywhere. The learner moves at random and sees one seat at a time. With a
# constant :math:`\alpha` the last few steps decide, and their noise stays; with
# :math:`\alpha_n = n^{-0.9}` in the :math:`n`-th visit all of them count.

rng = np.random.default_rng(0)
beside = (np.arange(4)[:, None] + [1, 3]) % 4
transitions = 0.95 * np.eye(4)[beside] + 0.05 / 4
table = FiniteMDP(transitions, 0.5 * rng.normal(size=(4, 2)), np.zeros(4, bool))
exact = value_iteration(table, discount=0.3).action_values

seeds, checkpoints = 5, np.unique(np.geomspace(100, 100_000, 16).astype(int))
schedules = {"constant, 0.1": (0.1, 0.0), "decaying": (1.0, 0.9)}
error = {}
for name, (size, decay) in schedules.items():
    curves = np.zeros((seeds, len(checkpoints)))
    for seed in range(seeds):
        agent = QLearning(table, 0.3, size, decay, 1.0, horizon=100, seed=seed)
        for n, steps in enumerate(checkpoints):
            agent.fit(int(steps) - (checkpoints[n - 1].item() if n else 0))
            curves[seed, n] = np.abs(agent.table - exact).max()
    error[name] = curves

figure, axis = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
for name, curves in error.items():
    line = axis.loglog(checkpoints, np.median(curves, axis=0), "o-", ms=3, label=name)
    axis.loglog(checkpoints, curves.T, color=line[0].get_color(), alpha=0.25, lw=0.8)
axis.axhline(1e-3, color="0.6", lw=0.8)
axis.set(xlabel="steps", ylabel="largest error of the table")
axis.legend(title="step size")
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
    runs = [kind(cliff, step_size=0.2, exploration=0.1, seed=s) for s in range(seeds)]
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
plt.show()

# %%
# What to notice
# --------------
#
# - Q-learning is not wrong. Its table is the best policy's, 13 steps along the edge; it
#   is the *learner* who slips there, and pays for what its table leaves out.
# - SARSA's table is that of a walker who errs one time in ten. Without a single error
#   its path costs a few steps more, which is the price of the insurance.
# - The right picture is computed and not played: a policy that explores is a linear
#   system too. The curves cross close to zero: two errors in a hundred steps are enough
#   for the detour to pay.
# - Value iteration plans for the floor as it is: one slip in a hundred steps leaves the
#   bridge the best way, one in ten does not. SARSA does the same for the walker.
#
# A random walk beside the two, and the claims.

aimless = policy_values(cliff, np.full((48, 4), 0.25), 1.0)[cliff.starts[0]]
print(f"random walk  {aimless:10.0f}")
for name in agents:
    print(
        f"{name:12s} {np.median(worth[name]):10.1f} exploring, "
        f"{-np.median(lengths[name]):.0f} not"
    )

claim("Bellman's equation and the linear system, violation", max(residuals), "<", 1e-10)
claim(
    "Q-learning with decaying steps, largest error of the table, median",
    np.median(error["decaying"][:, -1]),
    "<",
    1e-3,
    seeds=seeds,
)
claim(
    "and in multiples of the error with a constant step",
    np.median(error["decaying"][:, -1]) / np.median(error["constant, 0.1"][:, -1]),
    "<",
    0.2,
    seeds=seeds,
)
claim(
    "Q-learning's path on the cliff, steps, the longest",
    max(lengths["Q-learning"]),
    "==",
    13,
    seeds=seeds,
)
claim(
    "SARSA's path, steps, the shortest",
    min(lengths["SARSA"]),
    ">=",
    15,
    seeds=seeds,
)
claim(
    "return of SARSA's path less Q-learning's while exploring, worst of the seeds",
    min(np.subtract(worth["SARSA"], worth["Q-learning"])),
    ">",
    10,
    seeds=seeds,
)

# %%
# Try it
# ------
#
# 1. Let the exploration fall to zero while SARSA learns. Which path does it end on, and
#    why?
# 2. Use :class:`~dlcompanion.reinforcement.ExpectedSARSA` with ``step_size=1``. Why
#    does SARSA not survive that, on a cliff on which nothing slips?
# 3. ``FiniteMDP.of("Taxi-v4")`` is another world that is known by heart. How many of
#    its 500 states can an episode begin in?
#
# References
# ----------
# :cite:t:`bellman1957dynamic`; :cite:t:`watkins1992q`; SARSA is due to
# :cite:t:`rummery1994line`, and the cliff to :cite:t:`sutton2018reinforcement`.

# sphinx_gallery_thumbnail_number = 3
# sphinx_gallery_tags = ["agent", "all backends", "beginner"]
