r"""
Policy gradient (REINFORCE): thirty thousand steps balance a pole
=================================================================

A reward cannot be differentiated: there is one point for every step that a pole stays
up, and no derivative of a point by a push. But the *expected* return has a gradient in
the weights of the policy, and episodes are all it takes to estimate it. That is the
policy gradient. :class:`~dlcompanion.reinforcement.REINFORCE` makes those actions more
probable after which the return was larger than expected; what is expected is the
baseline, a second network. It is the simplest policy gradient, and the place to begin
with. It needs whole episodes and many of them; for real work use
:doc:`/gallery/reinforcement/plot_ppo`. This page trains three agents on a cart that
carries a pole (CartPole), beside one that acts at random, and measures how much
variance the baseline takes away.

In your own model
-----------------

.. code-block:: python

   import keras

   from dlcompanion.reinforcement import REINFORCE

   policy = keras.Sequential(
       [keras.Input((4,)), keras.layers.Dense(32, "tanh"), keras.layers.Dense(2)]
   )  # one logit an action; the baseline is made if you give none
   agent = REINFORCE("CartPole-v1", policy, optimizer=keras.optimizers.Adam(0.01))
   agent.fit(steps=500, verbose=0)  # some 30,000 for a pole that stays up
   print(agent.evaluate(episodes=10)["return_mean"])
   action = agent.predict([0.0, 0.0, 0.05, 0.0])

Next: :doc:`/gallery/reinforcement/plot_generalized_advantage` and
:doc:`/gallery/reinforcement/plot_actor_critic`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# An episode :math:`\tau = (s_0, a_0, r_0, s_1, \dots)` has probability
# :math:`p_\theta(\tau) = p(s_0) \prod_t \pi_\theta(a_t \mid s_t)\, p(s_{t+1} \mid s_t,
# a_t)`. Its logarithm is a sum, in which :math:`\theta` meets the actions and not the
# physics, so :cite:p:`williams1992simple`
#
# .. math::
#
#    \nabla_\theta\, \mathbb E_\tau[R(\tau)]
#      = \mathbb E_\tau\bigl[R(\tau)\, \nabla_\theta \log p_\theta(\tau)\bigr]
#      = \mathbb E_\tau\Bigl[\sum_t \nabla_\theta \log \pi_\theta(a_t \mid s_t)\,
#        \bigl(G_t - v(s_t)\bigr)\Bigr].
#
# The last step takes out what cannot matter. Rewards from before an action do not
# depend on it, so only the reward to go :math:`G_t = \sum_{k \ge t} \gamma^{k-t} r_k`
# stays. And any function :math:`v` of the state may be subtracted, because
# :math:`\mathbb E_a[\nabla \log \pi(a \mid s)] = \nabla \sum_a \pi(a \mid s) = \nabla 1
# = 0`. That costs nothing on average and calms the estimate.

import gymnasium as gym
import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation

from dlcompanion import autodiff, backend, claims
from dlcompanion.claims import claim
from dlcompanion.reinforcement import REINFORCE
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments
from dlcompanion.reinforcement.generalized_advantage import reward_to_go
from dlcompanion.reinforcement.policy_gradient import policy_gradient_loss

keras.utils.set_random_seed(claims.seed())

# %%
# Three agents, thirty thousand steps each: some twenty rollouts of eight episodes, and
# after each one a single step of the policy. An episode ends after 500 steps at most.

seeds, budget = claims.seeds(3), 30_000
agent = REINFORCE("CartPole-v1")
histories, trained = [], []
for seed in seeds:
    histories.append(agent.restart(seed).fit(steps=budget, verbose=0).history)
    trained.append(agent.evaluate(episodes=20)["return_mean"])

# %%
# The baseline of comparison pushes left or right at random, as a coin falls.

rng = np.random.default_rng(claims.seed())


def by_coin(observations):
    return rng.integers(2, size=len(observations))


coin = (
    Environments("CartPole-v1", 200)
    .play(by_coin, seed=claims.seed(), horizon=500)
    .returns
)

figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
for seed, history in zip(seeds, histories, strict=True):
    steps, returns = history["steps"], history["return_mean"]
    axis.plot(steps, returns, "o-", ms=3, label=f"seed {seed}")
axis.axhline(coin.mean(), color="0.4", ls=":", label="coin")
axis.axhline(500, color="0.7", lw=0.8)
axis.set(xlabel="environment steps", ylabel="mean return of the rollout", ylim=(0, 520))
axis.legend(fontsize="small", ncols=2)
# alt: Mean returns of the rollouts of three seeds against environment steps, rising
# from the coin's 22 to near 500, with dips.
plt.show()

# %%
# The curves are of the policy that explores. With its most probable actions instead,
# each agent does better; on 20 new episodes:

print(f"coin              {coin.mean():6.1f}")
for seed, value in zip(seeds, trained, strict=True):
    print(f"trained, seed {seed}   {value:6.1f}")

# %%
# The same cart before and after
# ------------------------------
#
# Left, an agent that has learned nothing, right, one of the three. Both begin from the
# same state.


def film(agent, length=240, every=8):
    """Every eighth frame, made small."""
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    observation, _ = env.reset(seed=claims.seed())
    frames, over, steps = [], False, 0
    while not over and steps < length:
        if steps % every == 0:
            frames.append(env.render()[140:340:2, 100:500:2])
        observation, _, ended, truncated, _ = env.step(agent.predict(observation))
        over, steps = ended or truncated, steps + 1
    env.close()
    return frames, steps


films = [film(REINFORCE("CartPole-v1", seed=claims.seed())), film(agent)]
figure, axes = plt.subplots(1, 2, figsize=(8, 2.5), layout="constrained")
names = ["before training", "after training"]
images = []
for axis, (frames, steps), name in zip(axes, films, names, strict=True):
    images.append(axis.imshow(frames[0]))
    axis.set(xticks=[], yticks=[], title=f"{name}: {steps} steps")


def draw(n):
    for image, (frames, _) in zip(images, films, strict=True):
        image.set_data(frames[min(n, len(frames) - 1)])
    return images


animation = FuncAnimation(figure, draw, len(films[1][0]), interval=120, blit=True)
# alt: A film of two carts: before training the pole falls after a few steps, after
# training it stays up.
plt.show()

# %%
# What the baseline is worth
# --------------------------
#
# Stop an agent on its way, and let its policy play 200 episodes without learning. Each
# episode gives one estimate of the gradient, in all the weights of the policy, and it
# can be computed from the same actions with any baseline: none, the mean return of
# other episodes, and the network that learned beside the policy.

agent.restart(claims.seed()).fit(steps=6_000, verbose=0)
weights_of_policy = agent.policy.trainable_variables


def explore(observations):
    return agent.predict(observations, deterministic=False)


def estimate(observations, actions, advantages, playing):
    """Gradient of one episode, as one vector."""

    def loss():
        logits = agent.policy(observations, training=False)
        mean = policy_gradient_loss(logits, actions, advantages, playing)
        return -mean * keras.ops.sum(playing)

    _, gradients = autodiff.value_and_grad(loss, variables=weights_of_policy)()
    return keras.ops.concatenate([keras.ops.reshape(g, (-1,)) for g in gradients])


estimate = backend.compile(estimate, jit=False)


def estimates(episodes, baseline):
    playing = episodes.playing
    dones = playing & ~np.vstack([playing[1:], np.zeros_like(playing[:1])])
    after = np.where(episodes.terminated, 0.0, 100.0) * np.ones(dones.shape)
    returns = reward_to_go(episodes.rewards, dones, after, agent.discount)
    rows = []
    for n in range(playing.shape[1]):
        x = np.zeros((500, 4), "float32")
        a, advantage, mask = (np.zeros(500, kind) for kind in ("int32", "f", "f"))
        steps = len(playing)
        x[:steps], a[:steps] = episodes.observations[:, n], episodes.actions[:, n]
        mask[:steps] = playing[:, n]
        advantage[:steps] = returns[:, n] - baseline(x[:steps])
        rows.append(keras.ops.convert_to_numpy(estimate(x, a, advantage * mask, mask)))
    return np.array(rows), returns[playing]


players = Environments("CartPole-v1", 200)
episodes = players.play(explore, seed=claims.seeds(2)[0], horizon=500)
others = players.another(100).play(explore, seed=claims.seeds(2)[1], horizon=500)


def learned(observations):
    return keras.ops.convert_to_numpy(agent.learner.baseline(observations))[:, 0]


direction, returns = estimates(others, learned)
direction = direction.mean(axis=0) / np.linalg.norm(direction.mean(axis=0))
mean_return = returns.mean()
baselines = {
    "none": lambda x: 0.0,
    "constant": lambda x: mean_return,
    "learned": learned,
}
gradients = {name: estimates(episodes, b)[0] for name, b in baselines.items()}
variance = {name: g.var(axis=0).sum() for name, g in gradients.items()}

# %%
# Left, the 200 estimates along one direction, the mean gradient of 100 other episodes:
# the means agree, the widths do not. Right, the variance summed over all weights.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
bins = np.linspace(*np.quantile(gradients["none"] @ direction, [0.01, 0.99]), 24)
for (name, g), color in zip(gradients.items(), ("C0", "C1", "C2"), strict=True):
    along = g @ direction
    left.hist(along, bins, histtype="step", lw=1.8, color=color, label=name)
    left.axvline(along.mean(), color=color, ls=":")
    right.bar(name, variance[name] / variance["none"], color=color)
left.set(xlabel="gradient along the mean", ylabel="episodes")
left.legend(title="baseline")
right.set(ylabel="variance, relative to none", xlabel="baseline")
# alt: Left, histograms of the estimates along the mean gradient for three baselines:
# the same mean, and a smaller width with a baseline. Right, bars of the variance
# relative to none, small for both baselines.
plt.show()

# %%
# What to notice
# --------------
#
# - The physics of the cart appears nowhere: not its mass, not the derivative of a
#   point. That is the strength of the estimator and the reason for its noise.
# - Every step of an episode counts as good when the episode was longer than expected,
#   also the bad ones. Only the mean over many episodes tells them apart.
# - The learning curve falls now and then. The estimate is noisy, the step that follows
#   it is not small, and nothing keeps the policy near the one that gathered the data.
# - A constant does most of the baseline's work here, since nearly all returns are far
#   above zero.


def z(name):
    difference = (gradients[name] - gradients["none"]) @ direction
    return difference.mean() / (difference.std() / np.sqrt(len(difference)))


for name in baselines:
    print(f"{name:9s} variance {variance[name] / variance['none']:.3f}")

# %%
# The claims.

claim(
    "greedy return of REINFORCE after 30,000 steps, median, of 500 at most",
    np.median(trained),
    ">=",
    350,
    seeds=len(seeds),
)
claim(
    "greedy return of REINFORCE after 30,000 steps, worst seed, over random play",
    min(trained) / coin.mean(),
    ">",
    2,
    seeds=len(seeds),
)
claim(
    "variance of the gradient of one REINFORCE agent, without baseline over with",
    variance["none"] / variance["learned"],
    ">=",
    2,
)
claim(
    "mean gradient of one agent, without baseline less with it, in standard errors",
    abs(z("learned")),
    "<",
    4,
)

# %%
# Try it
# ------
#
# 1. Which baseline :math:`v(s)` makes the variance smallest? It is not quite the
#    expected return: minimize :math:`\mathbb E[(G - v)^2 \lVert \nabla \log \pi
#    \rVert^2]`.
# 2. Give every step of an episode its whole return :math:`G_0` in place of
#    :math:`G_t`. The mean stays; what does the variance do?
# 3. Set ``discount=1``, and then 0.5. Which of the two reaches the higher return, and
#    why does the other learn less?
#
# .. dropdown:: Hint to 1
#
#    Set the derivative by :math:`v` to zero: a mean of returns remains, with weights.
#
# .. dropdown:: Hint to 2
#
#    In ``estimates`` replace ``returns[:steps, n]`` by ``returns[0, n]``.
#
# .. dropdown:: Hint to 3
#
#    How many steps ahead does a discount of 0.5 look, and how long does a pole take to
#    fall? With one seed and 10,000 steps the greedy returns were 428 and 170.
#
# References
# ----------
# :cite:t:`williams1992simple`, theorem 1; :cite:t:`sutton2000policy` for states and
# function approximation.

# sphinx_gallery_tags = ["agent", "introductory"]
