r"""
Proximal policy optimization (PPO): twenty passes over a rollout, none of them too far
======================================================================================

Environment steps are expensive, and an actor-critic like A2C uses each of them for one
gradient step: after it the policy has changed, and what the old policy played tells
less about the new one. Proximal policy optimization makes many passes over each rollout
and clips its objective wherever the new policy has moved too far from the old one.
:class:`~dlcompanion.reinforcement.PPO` is the usual first choice for reinforcement
learning, with discrete and with continuous actions, where many environments can be
simulated in parallel. Where every step is costly, an off-policy method such as
:doc:`/gallery/reinforcement/plot_sac` needs fewer of them. This page trains PPO to
balance a pole (CartPole), then removes the clip, then the passes, and measures what
each was good for.

In your own model
-----------------

.. code-block:: python

   import keras

   from dlcompanion.reinforcement import PPO

   policy = keras.Sequential(
       [keras.Input((4,)), keras.layers.Dense(32, "tanh"), keras.layers.Dense(2)]
   )  # one logit an action; the critic is made if you give none
   agent = PPO("CartPole-v1", policy, rollout_length=32, horizon=128)
   agent.fit(steps=1_024, verbose=0)  # some 40,000 for a pole that stays up
   print(agent.evaluate(episodes=10)["return_mean"])
   action = agent.predict([0.0, 0.0, 0.05, 0.0])

Prerequisites: :doc:`/gallery/reinforcement/plot_actor_critic`. Next:
:doc:`/gallery/reinforcement/plot_recurrent_policy` and
:doc:`/gallery/reinforcement/plot_normalized_environments`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# .. figure:: /drawings/ppo.svg
#    :figclass: drawing
#    :alt: A loop: rollout, advantages, several passes in minibatches, new policy.
#       Below, the objective against the ratio: for a good action it is flat above 1 +
#       epsilon, for a bad one below 1 - epsilon.
#
# Let :math:`\rho_t = \pi_\theta(a_t \mid s_t) / \pi_\text{old}(a_t \mid s_t)` be how
# much more probable the action has become since it was played. On average over what the
# old policy does, :math:`\rho_t A_t` is what the new one gains, and before the first
# step its gradient is the policy gradient. Proximal policy optimization
# :cite:p:`schulman2017proximal` maximizes
#
# .. math::
#
#    \frac1n \sum_t \min\bigl(\rho_t A_t,\;
#      \operatorname{clip}(\rho_t, 1 - \epsilon, 1 + \epsilon)\, A_t\bigr) .
#
# A good action (:math:`A_t > 0`) earns up to :math:`1 + \epsilon`, a bad one is pushed
# down to :math:`1 - \epsilon`; beyond that the objective is flat and there is no
# gradient. But it is flat on one side only: an action that has gone the wrong way is
# pulled back from wherever it is.

import keras
import matplotlib.pyplot as plt
import numpy as np

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.reinforcement import PPO
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments
from dlcompanion.reinforcement.ppo import clipped_surrogate_loss

keras.utils.set_random_seed(claims.seed())

ratios, one = np.linspace(0.5, 1.5, 41), np.ones(1)


def objective(advantage, clip_range):
    losses = [
        clipped_surrogate_loss(np.log([ratio]), advantage * one, clip_range, one)
        for ratio in ratios
    ]
    return -np.array([float(x) for x in losses])


# %%
# Sixteen carts play 16 steps each, and twenty times the 256 steps make one batch. The
# settings are those that are usual for this pole
# (the tuned ones of :cite:t:`raffin2020zoo`): the rate falls from 0.001 to zero. Two
# variants: one without the clip, for half of the steps, which is enough to see how far
# the policy moves, and one that uses each rollout once, at twenty times the rate, so
# that it may move as far.

seeds, budget, passes = claims.seeds(3), 40_960, 20
schedule = keras.optimizers.schedules.PolynomialDecay


def train(seeds, clip_range=0.2, update_epochs=passes, rate=0.001, steps=budget):
    updates = budget // 256 * update_epochs
    agent = PPO(
        "CartPole-v1",
        optimizer=keras.optimizers.Adam(
            schedule(rate, updates, 0.0), epsilon=1e-5, global_clipnorm=0.5
        ),
        clip_range=clip_range,
        num_envs=16,
        rollout_length=16,
        update_epochs=update_epochs,
        discount=0.98,
        gae_lambda=0.8,
        horizon=512,
    )
    for seed in seeds:
        history = agent.restart(seed).fit(steps, verbose=0).history
        yield agent.evaluate(episodes=20)["return_mean"], history


variants = {
    "PPO": list(train(seeds)),
    "no clip": list(train(seeds, clip_range=1e6, steps=budget // 2)),
    "one pass, rate x 20": list(train(seeds, update_epochs=1, rate=0.02)),
}
greedy, played, apart = {}, {}, {}
for name, runs in variants.items():
    greedy[name] = np.array([value for value, _ in runs])
    played[name] = np.array([history["return_mean"] for _, history in runs])
    apart[name] = np.array([history["kl"] for _, history in runs])

rng = np.random.default_rng(claims.seed())


def by_coin(observations):
    return rng.integers(2, size=len(observations))


coin = (
    Environments("CartPole-v1", 200)
    .play(by_coin, seed=claims.seed(), horizon=500)
    .returns
)

# %%
# Left, what there is to earn from one step, by the ratio, dotted without the clip. In
# the middle the returns while learning, seed by seed and in the median; right how far
# the policy was from the one that played, on average over the passes.

figure, (left, middle, right) = plt.subplots(
    1, 3, figsize=(10, 3.4), layout="constrained"
)
for advantage, color in ((1.0, "C0"), (-1.0, "C3")):
    clipped, free = objective(advantage, 0.2), objective(advantage, 1e6)
    left.plot(ratios, clipped, color=color, label=f"$A = {advantage:g}$")
    left.plot(ratios, free, color=color, ls=":", lw=1)
left.axvspan(0.8, 1.2, color="0.5", alpha=0.15)
left.set(xlabel=r"$\rho$", ylabel="objective")
left.legend(fontsize="small")
for n, name in enumerate(variants):
    for axis, values in ((middle, played[name]), (right, apart[name])):
        if axis is right and "one pass" in name:  # it is never away from itself
            continue
        steps = variants[name][0][1]["steps"]
        for run in values:
            axis.plot(steps, run, color=f"C{n}", alpha=0.35, lw=1)
        axis.plot(steps, np.median(values, axis=0), color=f"C{n}", lw=2, label=name)
middle.axhline(coin.mean(), color="0.4", ls=":", label="coin")
middle.set(xlabel="environment steps", ylabel="mean return")
right.set(xlabel="environment steps", ylabel="divergence (nats)", yscale="log")
right.set_ylim(1e-4, 1)
figure.legend(*middle.get_legend_handles_labels(), loc="outside lower center", ncols=4)
# alt: Left, the clipped objective against the ratio, flat beyond 1.2 for a good
# action and below 0.8 for a bad one. Middle, returns rising to 500 for PPO. Right,
# the divergence, far larger without the clip.
plt.show()

for name, values in greedy.items():
    print(f"{name:20s}", " ".join(f"{value:6.1f}" for value in values))
print(f"{'coin':20s} {coin.mean():6.1f}")

# %%
# What to notice
# --------------
#
# - An agent that uses each rollout twenty times holds the pole with nearly every seed;
#   one that uses it once hardly ever does, though its rate is twenty times as high.
#   Twenty small steps, each in the direction that is right where the last one ended,
#   are not one large step.
# - Without the clip the policy moves several times further from the one that played.
#   That can go well; but what so distant a policy would have earned is a guess.
# - The clip is no hard limit. The ratio of some actions leaves the gray band, because
#   actions share their weights, and because the gradient is cut off only after the step
#   that crosses the border. It is enough that no gradient pushes them further.
# - The returns still fall now and then. A bound on the change of the policy is no bound
#   on the change of its return: a small difference in the actions is enough for a cart
#   to drift off the track after four hundred steps.

# %%
# The claims.

claim(
    "greedy return of PPO after 40,960 steps, median, of 500 at most",
    np.median(greedy["PPO"]),
    ">=",
    400,
    seeds=len(seeds),
)
claim(
    "greedy return of PPO after 40,960 steps, worst seed, over random play",
    greedy["PPO"].min() / coin.mean(),
    ">",
    3,
    seeds=len(seeds),
)
claim(
    "largest divergence of the policy, least without clip over most of PPO with clip",
    apart["no clip"].max(axis=1).min() / apart["PPO"].max(),
    ">",
    2,
    seeds=len(seeds),
)
claim(
    "greedy return of PPO over that of one pass at twenty times the rate, medians",
    np.median(greedy["PPO"]) / np.median(greedy["one pass, rate x 20"]),
    ">",
    1.2,
    seeds=len(seeds),
)

# %%
# Try it
# ------
#
# 1. What is the gradient of the objective in the very first of the twenty steps, and
#    why does the clip not matter there?
# 2. Print ``history["clip_fraction"]``. Halve the rate and double the passes: does it
#    change?
# 3. Let ``clip_range`` fall to zero with a schedule, as many do. What does it do that
#    the falling rate does not do already?
#
# .. dropdown:: Hint to 1
#
#    Before the first step both policies are the same. Which value has the ratio then,
#    for every action?
#
# .. dropdown:: Hint to 2
#
#    ``list(train(seeds, update_epochs=40, rate=0.0005))``. The product of rate
#    and passes limits how far the policy may move, the clip how far it is pushed.
#
# .. dropdown:: Hint to 3
#
#    ``clip_range=schedule(0.2, updates, 0.0)``, counted in gradient steps. Compare
#    ``history["kl"]`` in the last epochs.
#
# References
# ----------
# :cite:t:`schulman2017proximal`, eq. 7; the details that make it work are collected in
# :cite:t:`huang2022details`.

# sphinx_gallery_tags = ["agent", "intermediate"]
