r"""
Generalized advantage estimation (GAE): one number trades bias for variance
===========================================================================

A policy gradient needs the advantage of an action: how much better it was than what the
policy does on average. The advantage can be estimated after one step, from the critic's
value of the next state (a temporal difference, TD), or at the end, from the return of
the episode (Monte Carlo). The first is biased where the critic is wrong, the second has
a high variance. :func:`~dlcompanion.reinforcement.generalized_advantages` mixes the
two, and a number :math:`\lambda` between 0 and 1 is the weight of the later rewards.
Nearly all policy gradients use it, with :math:`\lambda` of about 0.95; without a critic
there is nothing to mix. This page takes a random walk so small that the true gradient
is known, and measures what :math:`\lambda` does to bias and variance, with a critic
that is exact, one that is half of it, and none.

In your own model
-----------------

.. code-block:: python

   import numpy as np

   from dlcompanion.reinforcement import generalized_advantages

   rewards = np.ones((5, 2))  # (time, environments)
   values = np.full((6, 2), 10.0)  # of your critic
   dones = np.array([[0, 0], [0, 0], [0, 1], [0, 0], [0, 0]], bool)
   after = np.where(dones, 0.0, values[1:])  # 0 after the end
   advantages = generalized_advantages(
       rewards, values[:-1], after, dones, discount=0.99, gae_lambda=0.95
   )
   targets = advantages + values[:-1]  # what the critic learns

Prerequisites: :doc:`/gallery/reinforcement/plot_policy_gradient` and
:doc:`/gallery/reinforcement/plot_tabular`. Next:
:doc:`/gallery/reinforcement/plot_actor_critic`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# The one-step error :math:`\delta_t = r_t + \gamma v(s_{t+1}) - v(s_t)` is an estimate
# of the advantage. So is the sum of two of them, in which :math:`v(s_{t+1})` cancels:
# it looks two steps ahead, and then uses the critic. Mixing all of them
# :cite:p:`schulman2016high`,
#
# .. math::
#
#    A_t = \sum_{k \ge 0} (\gamma\lambda)^k \, \delta_{t+k}, \qquad
#    \lambda = 0: \; A_t = \delta_t, \qquad
#    \lambda = 1: \; A_t = G_t - v(s_t) .
#
# At :math:`\lambda = 1` the critic is a baseline and can do no harm: the policy
# gradient :math:`\sum_t A_t \nabla \log \pi(a_t \mid s_t)` is right on average,
# whatever its values are. At :math:`\lambda = 0` the whole future is estimated by the
# critic.

import matplotlib.pyplot as plt
import numpy as np

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.reinforcement import FiniteMDP, generalized_advantages, policy_values
from dlcompanion.reinforcement.generalized_advantage import reward_to_go

# %%
# Eleven cells in a row. A step to the right has probability 0.55; beyond the last cell
# there is a reward of 1, beyond the first there is none. There is one logit a cell, and
# all is known exactly: the values, the number of visits, the gradient.

cells, right = 11, 0.55
step = np.zeros((cells + 2, 2, cells + 2))  # the first and the last state end it
for cell in range(1, cells + 1):
    step[cell, 0, cell - 1] = step[cell, 1, cell + 1] = 1
step[0, :, 0] = step[-1, :, -1] = 1
paid = np.zeros_like(step)
paid[cells, 1, -1] = 1.0
ends = np.arange(cells + 2) % (cells + 1) == 0
walk = FiniteMDP(step, paid, ends)
policy = np.tile([1 - right, right], (cells + 2, 1))
values = policy_values(walk, policy, discount=1.0)
q = walk.expected_rewards + walk.transitions @ values
chain = np.einsum("sa,sat->st", policy, step) * ~ends[:, None]
begin = np.eye(cells + 2)[(cells + 1) // 2]
visits = np.linalg.solve(np.eye(cells + 2) - chain.T, begin)
exact = (visits * right * (1 - right) * (q[:, 1] - q[:, 0]))[1:-1]

# %%
# Eight thousand walks, in step; each is one estimate of the gradient.


def walks(count, seed):
    """States, actions, rewards and ends, ``(time, walks)``."""
    rng = np.random.default_rng(seed)
    state, rows = np.full(count, (cells + 1) // 2), []
    while not ends[state].all():
        action = (rng.random(count) < right).astype(int)
        after = np.where(ends[state], state, state + 2 * action - 1)
        reward = paid[state, action, after] * ~ends[state]
        rows.append((state, action, reward, after))
        state = after
    return [np.array(column) for column in zip(*rows, strict=True)]


state, action, reward, after = walks(8_000, claims.seed())
over = ends[after]
going = ~ends[state]


def gradients(critic, gae_lambda):
    """One estimate a walk, ``(walks, cells)``."""
    following = np.where(over, 0.0, critic[after])
    advantage = generalized_advantages(
        reward, critic[state], following, over, 1.0, gae_lambda
    )
    score = advantage * (action - right) * going
    estimate = np.zeros((cells + 2, state.shape[1]))
    np.add.at(estimate, (state, np.arange(state.shape[1])), score)
    return estimate[1:-1].T


critics = {"exact critic": values, "half of it": values / 2, "none": 0 * values}
lambdas = np.array([0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0])
bias, spread, doubt = {}, {}, {}
for name, critic in critics.items():
    rows = [gradients(critic, gae_lambda) for gae_lambda in lambdas]
    errors = [g.mean(axis=0) - exact for g in rows]
    scale = np.linalg.norm(exact)
    bias[name] = np.array([np.linalg.norm(e) for e in errors]) / scale
    spread[name] = np.array([np.sqrt(g.var(axis=0).sum()) for g in rows]) / scale
    doubt[name] = spread[name] / np.sqrt(len(rows[0]))  # of the bias, if there is none

# %%
# Left the bias, in the middle the standard deviation of one walk, both in lengths of
# the true gradient. Right the error of a gradient from 16 walks, which has some of
# both.

batch = 16
total = {n: np.sqrt(bias[n] ** 2 + spread[n] ** 2 / batch) for n in critics}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.3), layout="constrained")
panels = (
    ("bias", bias),
    ("deviation, one walk", spread),
    (f"error, {batch} walks", total),
)
for axis, (title, curves) in zip(axes, panels, strict=True):
    for name in critics:
        axis.plot(lambdas, curves[name], "o-", ms=3, label=name)
    axis.set(xlabel=r"$\lambda$", title=title)
axes[0].axhline(doubt["none"][-1], color="0.6", ls=":", lw=1)
axes[1].legend(fontsize="small", loc="upper left")
# alt: Three panels against lambda, with a curve for each of three critics: the bias
# falls to zero at lambda 1, the deviation of one walk rises, and the error of a
# gradient from 16 walks is smallest in between for the half-right critic.
plt.show()

# %%
# What to notice
# --------------
#
# - All three critics are unbiased at :math:`\lambda = 1`, up to what 8000 walks can
#   tell (dotted). Even a wrong critic is then a baseline.
# - With the exact critic there is no bias anywhere, and nothing to be had from a
#   :math:`\lambda` near 1 but noise.
# - Without a critic, :math:`\lambda = 0` sees nothing but the last step.
# - With the half-right critic the best is in between, and near 1: a little less than 1
#   takes away much of the noise for hardly any bias.
#
# The claims, first that the two ends of the scale are what they are called.

half = critics["half of it"]
following = np.where(over, 0.0, half[after])
everything = (reward, half[state], following, over, 1.0)
closed = over.copy()
closed[-1] = True
monte_carlo = reward_to_go(reward, closed, 0 * reward, 1.0) - half[state]
one_step = reward + following - half[state]
gap = max(
    np.abs(generalized_advantages(*everything, 0.0) - one_step)[going].max(),
    np.abs(generalized_advantages(*everything, 1.0) - monte_carlo)[going].max(),
)
claim(
    "advantages at lambda 0 and 1 against one-step error and Monte Carlo, largest gap",
    gap,
    "<",
    1e-6,
)
claim(
    "bias of the gradient at lambda 1, worst of three critics",
    max(bias[n][-1] / doubt[n][-1] for n in critics),
    "<",
    2.5,
    unit="standard errors",
)
claim(
    "bias of the gradient at lambda 0, exact critic, in lengths of the true gradient",
    bias["exact critic"][0],
    "<",
    0.05,
)
claim(
    "bias of the gradient at lambda 0, half of that critic, in lengths of the true one",
    bias["half of it"][0],
    ">",
    0.3,
)
claim(
    "deviation of the gradient, lambda 1 over lambda 0, exact critic",
    spread["exact critic"][-1] / spread["exact critic"][0],
    ">",
    2,
)
best = total["half of it"].argmin()
claim(
    "lambda with the smallest error of the gradient, half of the exact critic",
    lambdas[best],
    "<",
    1,
)
claim(
    "error of the gradient at that lambda, over REINFORCE's without a critic",
    total["half of it"][best] / total["none"][-1],
    "<",
    0.7,
)

# %%
# Try it
# ------
#
# 1. With how many walks a batch is :math:`\lambda = 1` the best for the half-right
#    critic? Why must there be such a number?
# 2. Add 0.3 to every value of the exact critic. At which :math:`\lambda` does this
#    matter, and for which step of the walk?
# 3. Use ``discount=0.9`` in place of 1 with the same rewards. It reduces the noise as
#    well; which bias does it bring that :math:`\lambda` does not?
#
# .. dropdown:: Hint to 1
#
#    Raise ``batch`` in the cell of the figure. The variance of a mean falls with the
#    number of walks, its bias does not.
#
# .. dropdown:: Hint to 2
#
#    A constant cancels in the difference of two values, but not where the walk ends and
#    the following value is 0.
#
# .. dropdown:: Hint to 3
#
#    With a discount below 1 the return itself is another one: which walks does it
#    punish?
#
# References
# ----------
# :cite:t:`schulman2016high`, equation 16; :math:`\lambda`-returns are older, see
# chapter 12 of :cite:t:`sutton2018reinforcement`.

# sphinx_gallery_tags = ["function", "intermediate"]
