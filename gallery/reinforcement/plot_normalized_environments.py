r"""
Normalizing observations and rewards: what raw rewards do not teach a pendulum
==============================================================================

Networks learn best from numbers of about size 1, but an environment may report
observations in any units and pay rewards of any size. The size of the rewards does not
change which policy is best, but it changes how far a gradient step goes.
:class:`~dlcompanion.reinforcement.Normalizer` standardizes the observations of an agent
and divides its rewards by a standard deviation, both estimated while it learns (running
statistics, as ``VecNormalize`` does in other libraries). Normalize rewards whenever
returns are far from 1, and observations where their units differ by orders of
magnitude; where the units are sensible already, it may cost something. This page takes
the two apart on a pendulum (rewards alone, observations alone, both, and none), and
once more with a speed in other units.

In your own model
-----------------

.. code-block:: python

   from dlcompanion.reinforcement import PPO, Normalizer

   agent = PPO(
       "Pendulum-v1",
       num_envs=8,
       rollout_length=64,
       horizon=128,
       normalizer=Normalizer(observations=False, rewards=True),
   )
   agent.fit(steps=2_048, verbose=0)  # some 20,000 for a pendulum that is swung up
   print(agent.evaluate(episodes=5)["return_mean"])  # of the rewards as they are
   agent.predict([1.0, 0.0, 0.0])  # observations as they are, too

Prerequisites: :doc:`/gallery/reinforcement/plot_ppo`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# The agent learns from
#
# .. math::
#
#    \hat s = \frac{s - \mu_s}{\sigma_s} , \qquad \hat r = \frac{r}{\sigma_R} ,
#    \qquad R_t = \gamma R_{t-1} + r_t ,
#
# both clipped at ten. The rewards are divided by the deviation of their discounted sum,
# because that is about the size of the values that a critic has to learn; no mean is
# subtracted from them, for that would change the task. Means and deviations are those
# of all that was seen, and are brought up to date between two rollouts: a policy that
# sees the world differently while it plays is another policy.
#
# They come in pieces, and no piece is kept. Sums of squares would do it on paper. In
# float32 they fail as soon as the mean is large beside the deviation; the update of
# Chan, Golub and LeVeque :cite:p:`chan1979updating` adds deviations from the mean, and
# nothing large is subtracted from anything large.

import gymnasium as gym
import keras
import matplotlib.pyplot as plt
import numpy as np

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.reinforcement import (
    PPO,
    Normalizer,
    bootstrap_interval,
    interquartile_mean,
)
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments
from dlcompanion.reinforcement.normalized_environments import RunningStatistics

keras.utils.set_random_seed(claims.seed())

rng = np.random.default_rng(claims.seed())
heights = rng.normal(5000.0, 0.5, size=(20_000, 3)).astype("float32")  # of a drone, m
running = RunningStatistics((3,))
for piece in np.split(heights, np.sort(rng.choice(20_000, 50, replace=False))):
    running.update(piece)
exact = heights.astype("float64")
errors = (
    np.abs(running.mean / exact.mean(axis=0) - 1),
    np.abs(running.variance / exact.var(axis=0) - 1),
)
squares = np.square(heights).mean(axis=0) - np.square(heights.mean(axis=0))
print("variance    ", exact.var(axis=0).round(4))
print("in 51 pieces", running.variance.round(4))
print("by squares  ", squares.round(4), "in float32")

# %%
# A pendulum, four ways
# ---------------------
#
# The pendulum pays between 0, upright and still, and -16.3, and an episode is 200
# steps. Sixteen of them play 22,400 steps, with the same
# :class:`~dlcompanion.reinforcement.PPO` but for the normalizer. Its learning rate was
# chosen on other seeds, and suits the agent without a normalizer too: a third of it
# leaves that one further behind.

seeds, budget = claims.seeds(5), 22_400


def train(environment, seeds, normalizer):
    agent = PPO(
        environment,
        optimizer=keras.optimizers.Adam(3e-3, epsilon=1e-5, global_clipnorm=0.5),
        rollout_length=200,
        batch_size=320,
        discount=0.9,
        num_envs=16,
        normalizer=normalizer,
    )
    for seed in seeds:
        history = agent.restart(seed).fit(budget, verbose=0).history
        yield agent.evaluate(episodes=20)["return_mean"], history


choices = {
    "neither": lambda: None,
    "observations": lambda: Normalizer(rewards=False),
    "rewards": lambda: Normalizer(observations=False),
    "both": lambda: Normalizer(),
}
compared = {"neither", "rewards"}  # of more seeds than the others
runs = {
    name: list(train("Pendulum-v1", seeds if name in compared else seeds[:3], make()))
    for name, make in choices.items()
}

# %%
# Other units
# -----------
#
# The same pendulum, whose speed somebody reports in degrees a second instead of
# radians. The third number of an observation is now 57 times as large, and the hidden
# units of a network that sees it as it is say nearly the same of every state that
# turns in one direction.


def in_degrees():
    units = np.array([1.0, 1.0, 180 / np.pi], "float32")
    space = gym.spaces.Box(-500.0, 500.0, (3,), np.float32)
    return gym.wrappers.TransformObservation(
        gym.make("Pendulum-v1"), lambda s: s * units, space
    )


for name in ("rewards", "both"):
    runs[f"{name}, degrees"] = list(train(in_degrees, seeds[:3], choices[name]()))

# %%
# Where the claims need it there are five runs, else three. With five runs a mean says
# little and a best run nothing. The table has the
# interquartile mean (IQM), which of five runs is the mean of the middle three, with a
# bootstrapped interval of 95 % :cite:p:`agarwal2021deep`, and the worst run. Of three
# runs the IQM is the mean, and the interval says little.

pendulums = Environments("Pendulum-v1", 100, spaces=("Box",))
chance = pendulums.play(
    lambda s: rng.uniform(-1, 1, size=(len(s), 1)), seed=claims.seed(), horizon=200
).returns
scores = {name: np.array([value for value, _ in many]) for name, many in runs.items()}
scores["random actions"] = chance
table = {
    name: (interquartile_mean(x), *bootstrap_interval(x), x.min())
    for name, x in scores.items()
}
print(f"{'normalized':18s}{'runs':>5s}{'IQM':>8s}{'95 %':>18s}{'worst':>8s}")
for name, (middle, low, high, worst) in table.items():
    interval = f"[{low:.0f}, {high:.0f}]"
    count = len(scores[name])
    print(f"{name:18s}{count:5d}{middle:8.0f}{interval:>18s}{worst:8.0f}")

# %%
# Left, the returns of the policies while they explore, one line a seed; the agents that
# normalize observations begin one rollout late: the first gives statistics only. Right,
# the greedy policies in the end: every run, the interquartile mean and its interval.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.8), layout="constrained", width_ratios=[1.2, 1]
)
colors = dict(zip(runs, ("C7", "C1", "C0", "C2", "C0", "C2"), strict=True))
for name in choices:
    for n, (_, history) in enumerate(runs[name]):
        label = name if n == 0 else None
        left.plot(
            history["steps"],
            history["return_mean"],
            color=colors[name],
            alpha=0.7,
            label=label,
        )
left.set(xlabel="environment steps", ylabel="mean return of an episode")
left.legend(fontsize="small", title="normalized")
for row, name in enumerate(runs):
    middle, low, high, _ = table[name]
    right.plot([low, high], [row, row], color=colors[name], lw=6, alpha=0.3)
    right.plot(scores[name], np.full(len(scores[name]), row), ".", color=colors[name])
    right.plot(middle, row, "|", color=colors[name], ms=18, mew=2)
right.axvline(table["random actions"][0], color="0.4", ls=":", label="random actions")
right.set_yticks(range(len(runs)), list(runs))
right.set(xlabel="greedy return after 22,400 steps", ylim=(5.5, -1.3))
right.legend(fontsize="small", loc="upper right")
# alt: Left, returns while learning: with normalized rewards they rise to about -200,
# with raw rewards they stay low. Right, greedy returns of every run with
# interquartile means and 95 % intervals for six settings.
plt.show()

# %%
# What to notice
# --------------
#
# - The policy, the task and the rewards that are reported are as before. Divided by
#   their deviation, the same rewards teach in 22,400 steps what they otherwise do not.
#   The advantages are standardized in every batch anyway. What is left is the critic:
#   it begins at 0, has to learn values near -57 (random actions are paid -5.7 a step,
#   and :math:`1 / (1 - \gamma)` is ten), and its gradient is clipped together with the
#   policy's.
# - Observations are another matter. The pendulum reports a cosine, a sine and a speed
#   of up to 8, and that is good enough: to normalize them as well loses a part of
#   what the rewards had gained, and to normalize them alone gains nothing that these
#   seeds could show.
# - In degrees it is the other way round. The agents that see the speed as it is end
#   where random actions do; the others learn as they do in radians, since what they see
#   is the same.
# - Five runs make wide intervals. The gaps in this table are wider still;
#   two agents a hundred apart could not be ranked.


def gap(better, worse):
    return table[better][0] - table[worse][0]


apart = table["rewards"][1] - table["neither"][2]  # of the ends of the intervals
claim(
    "running mean and variance of 51 batches, largest relative error against NumPy's",
    np.max(errors),
    "<",
    1e-6,
)
claim(
    "variance from sums of squares in float32, smallest relative error",
    np.abs(squares / exact.var(axis=0) - 1).min(),
    ">",
    1,
)
claim(
    "IQM of the return on Pendulum, PPO with normalized rewards less with raw ones",
    gap("rewards", "neither"),
    ">",
    400,
    seeds=len(seeds),
)
claim(
    "gap between the 95 % intervals of the return with normalized and with raw rewards",
    apart,
    ">",
    0,
    seeds=len(seeds),
)
claim(
    "IQM of the return on Pendulum, PPO with normalized rewards less random actions",
    gap("rewards", "random actions"),
    ">",
    700,
    seeds=len(seeds),
)
claim(
    "IQM of the return, rewards normalized less rewards and observations normalized",
    gap("rewards", "both"),
    ">",
    0,
    seeds=3,
)
claim(
    "IQM of the return, speed in degrees, observations normalized less not normalized",
    gap("both, degrees", "rewards, degrees"),
    ">",
    250,
    seeds=3,
)
claim(
    "return with the speed in degrees, not normalized, best run less random actions",
    scores["rewards, degrees"].max() - chance.mean(),
    "<",
    200,
    seeds=3,
)

# %%
# Try it
# ------
#
# 1. Train an agent that normalizes observations, and print
#    ``agent.normalizer.seen.scale``. By which factor does the speed become smaller
#    beside the cosine? Wrap the pendulum so that only the speed is divided by it.
# 2. Multiply all rewards by 1000. Which rows of the table change?
# 3. CartPole pays 1 for every step. What is the mean of normalized rewards there, and
#    what would an agent learn if it were subtracted as well?
#
# .. dropdown:: Hint to 1
#
#    ``in_degrees`` shows how to wrap an environment: put other ``units`` there.
#
# .. dropdown:: Hint to 2
#
#    ``gym.wrappers.TransformReward(environment, lambda r: 1000 * r)``. What remains of
#    a factor after division by the standard deviation?
#
# .. dropdown:: Hint to 3
#
#    If every reward is 0 after the subtraction, what is the difference between a long
#    episode and a short one?
#
# References
# ----------
# Of the details that :cite:t:`engstrom2020implementation` took out of PPO one by one,
# the scaling of rewards is one that mattered; :cite:t:`andrychowicz2021matters`, who
# trained a quarter of a million agents on five robots, recommend to normalize
# observations always. The update is that of :cite:t:`chan1979updating`,
# the table that of :cite:t:`agarwal2021deep`.

# sphinx_gallery_tags = ["agent", "intermediate"]
