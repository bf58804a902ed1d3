r"""
Soft actor-critic (SAC): six thousand steps swing a pendulum up
===============================================================

Policy gradients use every environment step for one update, or for a few. Where steps
are expensive, on a robot say, that is a waste. Soft actor-critic is off-policy: it
stores all steps in a replay memory and learns from each of them many times. It
maximizes the entropy of its policy beside the reward (maximum-entropy reinforcement
learning), so that it goes on exploring, and the weight of the entropy, the temperature,
is learned too. Use :class:`~dlcompanion.reinforcement.SAC` for continuous actions, as
the torque of a motor, where steps are expensive and updates are cheap; for discrete
actions see :doc:`/gallery/reinforcement/plot_dqn`, and where steps cost nothing PPO is
often faster. On this page SAC swings up a pendulum whose motor is too weak to lift it,
beside PPO, which is on-policy, and beside random actions.

In your own model
-----------------

.. code-block:: python

   import keras

   from dlcompanion.reinforcement import SAC

   policy = keras.Sequential(
       [keras.Input((3,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(2)]
   )  # mean and logarithm of the deviation of one real action
   agent = SAC("Pendulum-v1", policy, learning_starts=64, batch_size=64)
   agent.fit(steps=200, verbose=0)  # some 6,000 for a pendulum that is swung up
   torque = agent.predict([1.0, 0.0, 0.0])  # in units of the environment

Prerequisites: :doc:`/gallery/reinforcement/plot_ppo` and
:doc:`/gallery/reinforcement/plot_dqn`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# An action is worth its reward, what follows, and the entropy of what one will do
# there:
#
# .. math::
#
#    q(s, a) = r + \gamma\, \mathbb E_{a' \sim \pi(\cdot \mid s')}
#      \bigl[ q(s', a') - \alpha \log \pi(a' \mid s') \bigr] .
#
# The equation holds for any step :math:`(s, a, r, s')`, so a critic can learn from one
# that an older policy made: only :math:`a'` is drawn anew. A policy that maximizes the
# values of a critic goes where they are too high (overestimation); so there are two
# critics, the smaller value counts, and both learn from slow copies of themselves
# :math:`\bar q_k`. The policy goes down the gradient of
#
# .. math::
#
#    \alpha \log \pi(a \mid s) - \min_k q_k(s, a), \qquad
#      a = \tanh(\mu(s) + \sigma(s)\, \varepsilon), \quad
#      \varepsilon \sim \mathcal N(0, 1) ,
#
# *through* its own action: the critic tells in which direction it would have been
# better. The temperature :math:`\alpha` rises while the entropy is below a target,
# minus one nat an action, and falls while it is above
# :cite:p:`haarnoja2018soft,haarnoja2018applications`.

import gymnasium as gym
import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation
from scipy import stats

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.reinforcement import PPO, SAC
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments
from dlcompanion.reinforcement.networks.tanh_gaussian import TanhGaussian

keras.utils.set_random_seed(claims.seed())

# %%
# Actions with an end
# -------------------
#
# The motor has a strongest torque. A normal distribution has no bounds; actions drawn
# beyond the end are all played as the end, and its density is wrong for them. The
# hyperbolic tangent brings every action inside, and its slope gives the new density.
# Left the densities of three policies, right one of them as samples and by the
# formula.

squashed = TanhGaussian(1)
actions = np.tanh(np.linspace(-6.0, 6.0, 4001))[:, None]  # dense at the ends


def density(mean, log_std):
    outputs = np.tile(np.array([[mean, log_std]], "float32"), (len(actions), 1))
    logs = keras.ops.convert_to_numpy(squashed.log_prob(outputs, actions))
    return np.exp(logs.astype("float64"))


shapes = [(0.0, 0.0), (0.8, -0.5), (0.3, -1.5)]
figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.2), sharey=True, layout="constrained"
)
for mean, log_std in shapes:
    label = rf"$\mu$ = {mean}, $\log \sigma$ = {log_std}"
    left.plot(actions[:, 0], density(mean, log_std), label=label)
left.legend(fontsize="small")
left.set(xlabel="action", ylabel="density")
drawn = squashed.sample(
    np.tile([shapes[1]], (20_000, 1)), np.random.default_rng(claims.seed())
)
right.hist(drawn[:, 0], 60, range=(-1, 1), density=True, color="C1", alpha=0.3)
right.plot(actions[:, 0], density(*shapes[1]), color="C1")
right.set(xlabel="action")
# alt: Left, three densities of squashed Gaussians between -1 and 1, some with their
# mass near the ends. Right, a histogram of samples of one of them, which agrees with
# the curve of its formula.
plt.show()

masses = [np.trapezoid(density(*shape), actions[:, 0]) for shape in shapes]
outside = stats.norm(0.8, np.exp(-0.5)).sf(1.0) + stats.norm(0.8, np.exp(-0.5)).cdf(-1)
print("mass of the three densities  ", " ".join(f"{mass:.5f}" for mass in masses))
print(f"the second, not squashed, has {outside:.2f} of its mass outside")

# %%
# The pendulum
# ------------
#
# It begins anywhere, and pays for the square of its angle, a little for its speed and
# less for the torque, at each of 200 steps. Gravity pulls with up to 15 rad/s², the
# motor with 6: hanging down, it can only swing. Three agents make 6,000 steps each,
# thirty episodes; the first hundred steps are random, and after every 25 there are 25
# updates, in one call, each on 64 remembered steps. Beside them play three of PPO, with
# its usual settings and as many steps, a random torque, and none.

seeds, budget = claims.seeds(3), 6_000
rng = np.random.default_rng(claims.seed())
pendulums = Environments("Pendulum-v1", 100, spaces=("Box",))
angles, speeds = np.meshgrid(np.linspace(-np.pi, np.pi, 121), np.linspace(-8, 8, 81))


def seen(angle, speed):
    """What the environment shows of a state."""
    columns = np.broadcast_arrays(np.cos(angle), np.sin(angle), speed)
    return np.stack([c.ravel() for c in columns], axis=1).astype("float32")


def unattended(agent):
    """Returns of 100 episodes without noise."""
    strongest = 2.0  # torque at the end of the space, which counts as 1
    return pendulums.play(lambda x: agent.predict(x) / strongest, 1, 200).returns


below = (np.abs(angles) > np.pi - 0.5) & (np.abs(speeds) > 0.5) & (np.abs(speeds) < 4)


def pumps(agent):
    """In which share of the states near the bottom the torque is along the speed."""
    torques = agent.predict(seen(angles[below], speeds[below]))[:, 0]
    return np.mean(np.sign(torques) == np.sign(speeds[below]))


histories, trained, worst, along = [], [], [], []
agent = SAC("Pendulum-v1", batch_size=64, rollout_length=25, jit_compile=True)
for seed in seeds:
    histories.append(agent.restart(seed).fit(budget, verbose=0).history)
    trained.append(agent.evaluate(episodes=20)["return_mean"])
    worst.append(unattended(agent).min())
    along.append(pumps(agent))

ppo, forgetful = [], PPO("Pendulum-v1")
for seed in seeds:
    forgetful.restart(seed).fit(budget, verbose=0)
    ppo.append(forgetful.evaluate(episodes=20)["return_mean"])

random, still = (
    pendulums.play(act, seed=claims.seed(), horizon=200).returns
    for act in (lambda x: rng.uniform(-1, 1, (len(x), 1)), lambda x: 0.0 * x[:, :1])
)

# %%
# Left, the returns of the episodes from which the agents learned; right, the
# temperature and what it is good for.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.6), layout="constrained", width_ratios=[1.4, 1]
)
twin = right.twinx()
for n, history in enumerate(histories):
    left.plot(history["steps"], history["return_mean"], color=f"C{n}", label=f"SAC {n}")
    right.plot(history["steps"], history["temperature"], color=f"C{n}")
    twin.plot(history["steps"], history["entropy"], color=f"C{n}", ls=":")
levels = [("random torque", random.mean(), "--"), ("no torque", still.mean(), ":")]
levels.append(("PPO, median", np.median(ppo), "-."))
for name, level, style in levels:
    left.axhline(level, color="0.4", ls=style, label=name)
left.set(xlabel="environment steps", ylabel="return of an episode")
left.legend(fontsize="x-small", loc="upper left")
right.set(xlabel="environment steps", ylabel="temperature (solid)", ylim=(0, 1))
twin.set_ylabel("entropy in nats (dotted)")
# alt: Left, returns of three seeds of SAC, which rise from -1,500 to about -150 within
# 3,000 steps, far above PPO and random torques. Right, temperature and entropy, which
# falls to its target of -1.
plt.show()

# %%
# What it has learned, as a map
# -----------------------------
#
# Every state of the pendulum is an angle and a speed. The torque of the trained agent
# and the value its critics give it are functions of the two; the black line is a swing
# from below.


def swing(agent, steps=80):
    """Angles, speeds and torques of an episode that begins hanging down."""
    env = gym.make("Pendulum-v1")
    env.reset(seed=claims.seed())
    env.unwrapped.state = np.array([np.pi, 0.0])
    rows, observation = [], seen(np.pi, 0.0)[0]
    for _ in range(steps):
        torque = agent.predict(observation)
        rows.append([*env.unwrapped.state, torque[0]])
        observation, *_ = env.step(torque)
    return np.array(rows).T


torques = agent.predict(seen(angles, speeds))[:, 0].reshape(angles.shape)
values = keras.ops.convert_to_numpy(agent.learner(seen(angles, speeds))[1])
path = swing(agent)
turned = (path[0] + np.pi) % (2 * np.pi) - np.pi
turned[1:][np.abs(np.diff(turned)) > 3] = np.nan  # no line across the seam

figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.8), sharey=True, layout="constrained"
)
maps = [(left, torques, "RdBu", "torque"), (right, values, "viridis", "value")]
for axis, shown, colors, name in maps:
    image = axis.pcolormesh(
        angles, speeds, shown.reshape(angles.shape), cmap=colors, shading="nearest"
    )
    figure.colorbar(image, label=name)
    axis.plot(turned, path[1], color="k", lw=1.2)
    axis.set(xlabel="angle, 0 is up", xticks=[-np.pi, 0, np.pi])
    axis.set_xticklabels([r"$-\pi$", "0", r"$\pi$"])
left.set_ylabel("speed")
# alt: Two maps over angle and speed with the path of one swing: left the torque, with
# a sharp border between its signs; right the value, with a ridge that leads upright.
plt.show()

# %%
# The same pendulum before and after
# ----------------------------------
#
# Left an agent that has learned nothing, right the one of the maps. The arc is the
# torque.

films = [swing(SAC("Pendulum-v1", seed=claims.seed())), path]
figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.4), layout="constrained")
rods, arcs = [], []
turn = np.linspace(0, 1, 20)
for axis, name in zip(axes, ["before training", "after training"], strict=True):
    axis.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal", title=name)
    axis.set(xticks=[], yticks=[])
    axis.plot(0, 0, "o", color="0.3", ms=5)
    rods += axis.plot([], [], color="C0", lw=6, solid_capstyle="round")
    arcs += axis.plot([], [], color="C3", lw=2)


def draw(n):
    for rod, arc, (angle, _, torque) in zip(rods, arcs, films, strict=True):
        rod.set_data([0, -np.sin(angle[2 * n])], [0, np.cos(angle[2 * n])])
        bend = turn * torque[2 * n] * np.pi / 4
        arc.set_data(-0.35 * np.sin(bend), 0.35 * np.cos(bend))
    return [*rods, *arcs]


animation = FuncAnimation(figure, draw, len(path[0]) // 2, interval=100, blit=True)
# alt: A film of two pendulums: before training one hangs and trembles, after training
# the other is swung up and stands. A red arc shows the torque.
plt.show()

# %%
# What to notice
# --------------
#
# - The agents swing the pendulum up and hold it; now and then a seed does not
#   do so from everywhere yet. PPO, which needs more steps, has hardly begun to learn by
#   then, and does no better than a random torque.
# - The price is computation: for each step that it plays, SAC learns from 64.
# - While it learns, an agent plays with noise, and not every episode succeeds: some are
#   lost late. In the end, without the noise, hardly one of a hundred is.
# - The temperature falls while the entropy is above its target, until the entropy has
#   come down to it, and varies little from there on.
# - To swing the pendulum up, energy must be pumped into it. The agent has learned to:
#   near the bottom the torque goes along with the speed, in nearly all states.
# - The map of values has a ridge, from which the pendulum arrives at the top by itself.
#   Along it the torque changes its sign: a pendulum that is too slow is pushed, one
#   that is too fast is braked.
# - What remains of the cost is mostly unavoidable: an episode that begins at the bottom
#   pays for the way up.

entropy = np.array([np.mean(history["entropy"][-5:]) for history in histories])
for name, numbers in [
    ("no torque", [still.mean()]),
    ("random torque", [random.mean()]),
    ("PPO", ppo),
    ("SAC", trained),
    ("its worst episode", worst),
    ("its entropy", entropy),
    ("torque along speed", along),
]:
    print(f"{name:20s}", " ".join(f"{number:9.2f}" for number in numbers))

# %%
# The claims.

claim(
    "greedy return of SAC on Pendulum after 6,000 steps, median of the seeds",
    np.median(trained),
    ">",
    -250,
    seeds=len(seeds),
)
claim(
    "cost of a random torque on Pendulum over that of SAC, median of the seeds",
    random.mean() / np.median(trained),
    ">",
    4,
    seeds=len(seeds),
)
claim(
    "cost of PPO on Pendulum after 6,000 steps over that of SAC, medians",
    np.median(ppo) / np.median(trained),
    ">",
    4,
    seeds=len(ppo),
)
claim(
    "worst return of SAC in 100 new episodes without noise, median of the seeds",
    np.median(worst),
    ">",
    -600,
    seeds=len(seeds),
)
claim(
    "density of the squashed Gaussian, largest distance of its integral from 1",
    np.abs(np.array(masses) - 1).max(),
    "<",
    1e-3,
)
claim(
    "entropy of SAC's policy, distance from its target of -1 in the end, worst seed",
    np.abs(entropy + 1).max(),
    "<",
    0.3,
    unit="nats",
    seeds=len(seeds),
)
claim(
    "states near the bottom where SAC's torque is along the speed, share, worst seed",
    min(along),
    ">",
    0.8,
    seeds=len(seeds),
)

# %%
# Try it
# ------
#
# 1. With ``temperature=0`` the entropy is not rewarded. Does the pendulum still go up,
#    with every seed? What happens to ``history["entropy"]``?
# 2. ``gradient_steps=5`` learns a fifth as often. How many steps does it take now,
#    and how many seconds?
# 3. An episode that is truncated by its time limit counts as going on. What would the
#    value of a pendulum at rest be, if it counted as over?
#
# .. dropdown:: Hint to 1
#
#    Add it to the arguments of ``SAC`` and compare the worst of the hundred episodes.
#    Nothing keeps the policy from becoming certain.
#
# .. dropdown:: Hint to 2
#
#    Updates are nearly all of the cost. Raise ``budget`` until the returns are as
#    before.
#
# .. dropdown:: Hint to 3
#
#    A pendulum that hangs pays about 10 for every step. How much does it pay if the
#    episode ends after one more step, and how much if it goes on for ever?
#
# References
# ----------
# :cite:t:`haarnoja2018soft`; the learned temperature is that of
# :cite:t:`haarnoja2018applications`, in which the critics' smaller value takes the
# place of a third network.

# sphinx_gallery_tags = ["agent", "intermediate"]
