r"""
AlphaZero: from the rules alone to a player that is hardly ever beaten
======================================================================

How does one learn a board game without a teacher? Looking ahead makes any player
stronger. AlphaZero plays against itself (self-play), looks ahead before every move by
Monte Carlo tree search (MCTS), and trains a network with two heads, policy and value,
to give at once what the search found; the next search begins with a better network.
:class:`~dlcompanion.reinforcement.AlphaZero` does that for board games of two players
with full information whose rules are known; where the rules are not known, use a method
without a model, as in :doc:`/gallery/reinforcement/plot_ppo`. Tic-tac-toe (noughts and
crosses) is small enough for an exact solution:
:class:`~dlcompanion.reinforcement.Minimax` has the value of all 4,520 positions. So
this page lets the agent meet every reply to every one of its moves, in both seats, and
counts the moves that throw something away. Then it trains without the noise in the
search, and sees what the noise is good for.

In your own model
-----------------

.. code-block:: python

   from dlcompanion.reinforcement import AlphaZero, LineGame

   game = LineGame(3, 3, 3)  # rows, columns, stones in a row; gravity=True drops them
   agent = AlphaZero(game, games=16, simulations=8, gradient_steps=4)
   agent.fit(iterations=2, verbose=0)  # 24 iterations of 128 games for a good player
   print(agent.evaluate(games=20))  # against random moves
   board = game.start(1)[0]
   print(game.render(board), agent.predict(board))

Prerequisites: :doc:`/gallery/reinforcement/plot_policy_gradient` and
:doc:`/gallery/reinforcement/plot_bandits`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# .. figure:: /drawings/alphazero.svg
#    :figclass: drawing
#    :alt: A search tree goes down to a new position, the network gives it p and v, and
#       v goes up with changing sign. Visits of the root decide the moves of self-play,
#       whose visits and ends train the network.
#
# A network with two heads gives, for a position :math:`s`, a policy :math:`p` and a
# guess :math:`v` of how the game will end. The search grows a tree. Each simulation
# goes down along
#
# .. math::
#
#    \arg\max_a \; Q(s, a) + c \, p(a \mid s) \frac{\sqrt{N(s)}}{1 + N(s, a)} ,
#
# the compromise of a bandit between what has been good and what has hardly been tried,
# adds one position, evaluates it with the network, and adds this value to all positions
# above, with changing sign: what is good for one player is bad for the other. The
# shares of the visits :math:`\pi(a) \propto N(s, a)` are a better policy than
# :math:`p`. When the game has ended with :math:`z`, the network takes steps on
#
# .. math::
#
#    (z - v)^2 - \pi^\top \log p + c_\theta \lVert \theta \rVert^2
#
# :cite:p:`silver2018general`. Nothing else is known of the game than its rules.

import keras
import matplotlib.pyplot as plt
import numpy as np

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.reinforcement import AlphaZero, Minimax, TicTacToe, play_match
from dlcompanion.reinforcement.games.matches import SearchPlayer
from dlcompanion.reinforcement.games.tree_search import RandomRollouts

keras.utils.set_random_seed(claims.seed())
game = TicTacToe()
solution = Minimax(game)

# %%
# Three agents play 128 games in an iteration, every move after 32 simulations. Three
# quarters of the prior at the root are noise, so that every move is tried now and then.
# Three others have no noise. The rate of learning falls to
# nearly zero. Every four iterations the agent, with a search of 64 simulations, meets
# all replies (an examination); and the network alone moves in all positions of the
# game, also in those to which its own moves would never lead.

seeds, iterations, every = claims.seeds(3), 24, 4


def exam(agent):
    def with_search(positions):
        return agent.move(positions, simulations=64)

    met = solution.examine(with_search)
    alone = agent.move(solution.positions, simulations=0)
    return met.lost, met.errors.mean(), solution.errors(solution.positions, alone)


def train(agent, seed):
    agent.restart(seed)
    exams, draws = [exam(agent)], []
    for _ in range(0, iterations, every):
        history = agent.fit(every, verbose=0).history
        draws.append(np.mean(history["draws"]))
        exams.append(exam(agent))
    lost, wrong, alone = zip(*exams, strict=True)
    return lost, wrong, np.mean(alone, axis=1), draws


rate = keras.optimizers.schedules.PolynomialDecay(0.003, 32 * iterations, 1e-4)
settings = {"games": 128, "exploration": 2.0}
player, without_noise = (
    AlphaZero(game, optimizer=keras.optimizers.Adam(rate), noise=noise, **settings)
    for noise in (0.75, 0.0)
)
match = {"games": 200, "simulations": 64}
curious, results, perfect = [], [], []
for seed in seeds:
    curious.append(train(player, seed))
    results.append(player.evaluate(**match))
    perfect.append(player.evaluate(solution.best, **match))
certain = [train(without_noise, seed) for seed in seeds]

# %%
# The same search without a network: every leaf is judged by one game played at random.

rollouts = [SearchPlayer(game, RandomRollouts(game, seed), 64) for seed in seeds]
unlearned = [solution.examine(player) for player in rollouts]
unlearned_wrong = np.array([result.errors.mean() for result in unlearned])

# %%
# Left, the share of the positions it meets in which the agent plays a move that is
# worth less than the best; in the middle the same of the network alone, in all
# positions; right, how the games of self-play end.

times = np.arange(0, iterations + 1, every)
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
for runs, color, label in ((curious, "C0", "noise"), (certain, "C1", "no noise")):
    for n, (_, wrong, alone, draws) in enumerate(runs):
        style = {"color": color, "alpha": 0.8, "label": label if n == 0 else None}
        axes[0].plot(times, wrong, **style)
        axes[1].plot(times, alone, **style)
        axes[2].plot(times[1:], draws, **style)
axes[0].axhline(unlearned_wrong.mean(), color="0.4", ls=":", label="rollouts")
axes[0].set_yscale("symlog", linthresh=2e-3)
axes[0].set_yticks([0, 0.002, 0.01, 0.1, 1], ["0", "0.002", "0.01", "0.1", "1"])
axes[0].set(title="with search, positions met", ylabel="share of wrong moves")
axes[0].set_ylim(-2e-4, 1)
axes[0].legend(fontsize="small")
axes[1].set(title="network alone, all positions", yscale="log")
axes[2].set(title="self-play", ylabel="share of draws", ylim=(0, 1))
for axis in axes:
    axis.set_xlabel("iteration")
# alt: Three panels against iterations, with and without noise: wrong moves with
# search fall to zero; wrong moves of the network alone fall further with noise; the
# share of draws in self-play is larger without noise.
plt.show()

# %%
# A game against perfect play, move by move. The shade of an empty field is the share of
# the visits that the search before the move gave it, the number what a move there was
# found to be worth (0 if it was never tried). Where it is the opponent's turn the
# agent's own search is shown, and the ring marks what the opponent played.

rng = np.random.default_rng(claims.seed())
boards, position, ended = [], game.start(1), np.array([False])
while not ended[0]:
    mine = len(boards) % 2 == 1  # it plays O, the harder seat
    found = player.search(position)
    action = player.move(position) if mine else solution.best(position, rng)
    boards.append((position[0], found, int(action[0]), mine))
    position, ended, _ = game.step(position, action)

figure, axes = plt.subplots(2, 5, figsize=(10, 4.4), layout="constrained")
for number, axis in enumerate(axes.flat):
    axis.set(xticks=[], yticks=[], xlim=(-0.5, 2.5), ylim=(2.5, -0.5), aspect="equal")
    if number >= len(boards):
        board = position[0]
        axis.set_title("a draw", fontsize="small")
    else:
        board, found, action, mine = boards[number]
        share = found.policies[0].reshape(3, 3)
        axis.imshow(share, cmap="Blues" if mine else "Oranges", vmin=0, vmax=1.2)
        for field in np.flatnonzero(game.legal(board[None])[0]):
            value = found.action_values[0, field]
            axis.text(field % 3, field // 3, f"{value:+.2f}", ha="center", va="center")
        axis.plot(action % 3, action // 3, "o", ms=36, mfc="none", mec="0.2")
        axis.set_title("agent plays O" if mine else "perfect X", fontsize="small")
    text = game.render(board).replace("\n", " ").split()
    for field, mark in enumerate(text):
        if mark != ".":
            style = {"ha": "center", "va": "center", "fontsize": 20}
            axis.text(field % 3, field // 3, mark, **style)
    for line in (0.5, 1.5):
        axis.axhline(line, color="0.7", lw=0.8)
        axis.axvline(line, color="0.7", lw=0.8)
# alt: Ten small boards, one game against perfect play move by move. Empty fields are
# shaded by the share of visits and labeled with their values, a ring marks the move
# played; the last board is a draw.
plt.show()

# %%
# What to notice
# --------------
#
# - After 24 iterations the agent with its search loses hardly a game, whatever the
#   opponent plays: three examinations in a row find no reply, or one, that beats it.
# - The network alone, without any search, comes to play nearly as well: it has learned
#   what the search found.
# - Without noise the two sides agree on drawn games and play little else. Self-play
#   looks perfect, and the search makes up for most of what the network does not know.
#   But the network alone stays behind, and in some runs becomes worse again: it no
#   longer sees the positions to which an opponent leads who plays otherwise.
# - The search without learning, with as many simulations, errs in some positions, and
#   is beaten there.
# - In the game above the agent is O. The best it can reach is a draw, and the values of
#   its moves go to 0 in the course of the game.

chance = play_match(
    game, game.random_move, solution.best, games=200, seed=claims.seed()
)
for name, runs in (("noise", curious), ("no noise", certain)):
    for lost, wrong, alone, draws in runs:
        print(
            f"{name:9s} beaten by {lost[-3:]} replies, wrong {wrong[-1]:.4f}, alone in "
            f"all positions {alone[-1]:.4f}, draws {draws[-1]:.2f}"
        )
print("rollouts: wrong", np.round(unlearned_wrong, 3), [x.lost for x in unlearned])
print("against random play    ", results)
print("against perfect play   ", perfect)
print("random against perfect ", chance)

# %%
# The claims.

claim(
    "replies that beat AlphaZero in its last three examinations, median of the seeds",
    np.median([sum(lost[-3:]) for lost, *_ in curious]),
    "<=",
    3,
    seeds=len(seeds),
)
claim(
    "wrong moves of AlphaZero's network alone, share of all positions, worst seed",
    max(alone[-1] for _, _, alone, _ in curious),
    "<",
    0.05,
    seeds=len(seeds),
)
claim(
    "games of 200 that AlphaZero loses against random play, median of the seeds",
    np.median([result["loss"] for result in results]) * 200,
    "==",
    0,
    seeds=len(seeds),
)
claim(
    "share of games that AlphaZero wins against random play, worst seed",
    min(result["win"] for result in results),
    ">",
    0.85,
    seeds=len(seeds),
)
claim(
    "share of games that AlphaZero draws against perfect play, worst seed",
    min(result["draw"] for result in perfect),
    ">=",
    0.95,
    seeds=len(seeds),
)
claim(
    "share of games that random play loses against perfect play",
    chance["loss"],
    ">",
    0.7,
)
claim(
    "replies that beat a search with random rollouts and no network, best seed",
    min(result.lost for result in unlearned),
    ">",
    5,
    seeds=len(seeds),
)
claim(
    "self-play without noise, share of draws in the last iterations, worst seed",
    min(draws[-1] for *_, draws in certain),
    ">",
    0.5,
    seeds=len(seeds),
)
claim(
    "wrong moves of the network alone, trained without noise over with noise, means",
    np.mean([alone[-1] for _, _, alone, _ in certain])
    / np.mean([alone[-1] for _, _, alone, _ in curious]),
    ">",
    1.2,
    seeds=len(seeds),
)

# %%
# A board that no table holds
# ---------------------------
#
# Connect Four has more than :math:`10^{12}` positions. With 256 units a layer, half of
# noise in its priors and all moves of self-play drawn, the agent learns it for 12.5 CPU
# minutes on one core, and does not become a perfect player. In 100 games against Monte
# Carlo tree search with 1,000 random rollouts a move it wins 64 and loses 28 with 400
# simulations; against 10,000 rollouts it wins 37 and loses 53, and with 1,600
# simulations 45 and 46. So few games tell the share of points to about 5 points.
#
# An exact solver knows which moves keep the value of a position, so that what is won
# stays won and a draw is not lost. In 1,000 positions where not every move does,
# random moves keep it in 40 of 100, the network alone in 78, as often as 1,000
# rollouts, and with 1,600 simulations in 85, as often as 10,000 rollouts. With few
# stones on the board it errs less often than they do; with many, where rollouts are
# short, it errs more often. :doc:`/benchmarks` has the table.

# %%
# Try it
# ------
#
# 1. Set ``simulations=4`` in training. How much does a search have to find so that the
#    network can learn from it?
# 2. Train on ``LineGame(4, 4, 3, gravity=True)``, which ``Minimax`` solves too. Who
#    wins? Let the agent of that board meet every reply.
# 3. The symmetries turn each position at random. Make a game with
#    ``symmetries = 1`` and compare the number of games that are needed.
#
# .. dropdown:: Hint to 1
#
#    ``agent.fit(...).history["policy_loss"]`` tells how well the network predicts the
#    search; ``solution.errors`` tells whether the search is worth predicting.
#
# .. dropdown:: Hint to 2
#
#    ``Minimax(game).examine(player)`` works for any ``LineGame`` that is small enough;
#    ``Minimax(game).values(game.start(1))`` tells who wins.
#
# .. dropdown:: Hint to 3
#
#    Derive a class from :class:`~dlcompanion.reinforcement.TicTacToe` with the class
#    attribute ``symmetries = 1``.
#
# References
# ----------
# :cite:t:`silver2018general`; the tree search before networks is that of
# :cite:t:`kocsis2006bandit`.

# sphinx_gallery_tags = ["agent", "intermediate"]
