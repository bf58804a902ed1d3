"""AlphaZero: a network that learns a game from the search that it guides."""

import time

import keras
import numpy as np

from dlcompanion.checks import check_count, check_number
from dlcompanion.reinforcement import agent_file
from dlcompanion.reinforcement.games import LineGame
from dlcompanion.reinforcement.matches import play_match
from dlcompanion.reinforcement.network_checks import check_network
from dlcompanion.reinforcement.numpy_policy import in_numpy
from dlcompanion.reinforcement.policy_value import (
    PolicyValue,
    policy_value_network,
)
from dlcompanion.reinforcement.self_play import PositionMemory, self_play
from dlcompanion.reinforcement.training_loop import TrainingLoop
from dlcompanion.reinforcement.tree_search import (
    draw_actions,
    legal_softmax,
    tree_search,
)

# What random numbers are for: each purpose has its own stream.
WEIGHTS, PLAY, BATCHES, EVALUATION, ACTIONS = range(5)


class AlphaZero:
    r"""Learns a game by playing against itself, from nothing but its rules.

    A network says of a position :math:`s` which moves look good, :math:`p`, and who
    will win, :math:`v`. A :func:`~dlcompanion.reinforcement.tree_search` that it guides
    finds better moves, :math:`\pi`, by looking ahead; the games that these moves play
    end with a result :math:`z`; and the network learns to say what the search and the
    result said,

    .. math:: (z - v)^2 - \pi^\top \log p + c \, \lVert \theta \rVert^2 ,

    so that the next search begins where this one ended. One *iteration* plays
    ``games`` games at once, all moves by search, and makes ``updates`` steps on
    positions of the last ``window`` iterations, each turned or mirrored at random as
    far as the game's symmetries allow.

    All that is random follows from ``seed`` and the number of the iteration. A network
    of dense layers plays in NumPy, any other through a compiled call. It is called with
    ``training=False``: dropout does nothing, BatchNormalization keeps its statistics.

    Args:
        game: :class:`~dlcompanion.reinforcement.LineGame`, or an object with its
            methods.
        network: :class:`keras.Model` from observations ``(rows, columns, 2)`` to a list
            of logits, one an action, and one value in [-1, 1]. By default two hidden
            layers of 128 rectified units and a tanh value, with weights regularized by
            :math:`c = 10^{-4}`.
        optimizer: Keras optimizer. By default Adam with learning rate 0.002.
        games: Positive integer, the games of an iteration.
        simulations: Positive integer, of the search before each move.
        exploration: Positive number, the weight of the prior in the search.
        noise: Number in [0, 1], the share of noise in the priors of the roots.
        exploring_moves: Integer of at least 0: that many moves of a game are drawn in
            proportion to the visits, the rest are those visited most.
        window: Positive integer, the iterations that are remembered.
        updates: Positive integer, the steps of training in an iteration.
        batch_size: Positive integer, the positions of a step.
        seed: Integer of at least 0, or None for one that is drawn. Decides weights,
            games and batches.

    Raises:
        ValueError: If an argument is none of the above, or the network does not fit.

    Example:
        >>> from dlcompanion.reinforcement import TicTacToe
        >>> game = TicTacToe()
        >>> agent = AlphaZero(game, games=8, simulations=10, updates=2, seed=0)
        >>> history = agent.fit(iterations=2, verbose=0)
        >>> sorted(history.history)[:3]
        ['draws', 'game_length', 'games']
        >>> agent.predict(game.start(1)[0]) in range(9)
        True

    References:
        Silver et al., *A general reinforcement learning algorithm that masters chess,
        shogi, and Go through self-play*, 2018.
        https://doi.org/10.1126/science.aar6404
    """

    def __init__(
        self,
        game,
        network=None,
        optimizer=None,
        games=128,
        simulations=32,
        exploration=1.5,
        noise=0.25,
        exploring_moves=10,
        window=10,
        updates=32,
        batch_size=256,
        seed=None,
    ):
        if seed is not None:
            check_count("seed", seed, least=0)
        seed = np.random.SeedSequence().entropy if seed is None else seed
        self.config = {
            "games": check_count("games", games),
            "simulations": check_count("simulations", simulations),
            "exploration": check_number("exploration", exploration, open_ends=True),
            "noise": check_number("noise", noise, 0, 1),
            "exploring_moves": check_count("exploring_moves", exploring_moves, least=0),
            "window": check_count("window", window),
            "updates": check_count("updates", updates),
            "batch_size": check_count("batch_size", batch_size),
            "seed": seed,
        }
        self.game, shape = game, game.observation_shape
        self.iterations = 0
        self.played = 0  # games
        self.memory = PositionMemory(game, window)
        self._draws = self._random(ACTIONS, 0)
        if network is None:
            weights = int(self._random(WEIGHTS, 0).integers(2**31))
            network = policy_value_network(shape, game.actions, weights)
        heads = {"logits": (game.actions,), "values": (1,)}
        check_network("network", network, {"observations": shape}, heads)
        self.network = network
        self.learner = PolicyValue(network, name="learner")
        self.learner.build((None, *shape))
        self.learner.compile(optimizer or keras.optimizers.Adam(0.002))
        self.learner.optimizer.build(network.trainable_variables)
        self._outputs = in_numpy(network, padded=True)

    def _random(self, purpose, count):
        key = {"entropy": self.config["seed"], "spawn_key": (purpose, count)}
        return np.random.default_rng(np.random.SeedSequence(**key))

    # -- learning -------------------------------------------------------------------

    def fit(self, iterations, callbacks=None, verbose="auto"):
        """Play and learn for some iterations more.

        One iteration is one *epoch*: it ends with ``on_epoch_end(iteration, logs)``,
        where ``logs`` has ``loss``, ``policy_loss`` and ``value_loss`` (means over its
        updates), ``game_length`` and ``draws`` (the mean length of its games and the
        share that nobody won), ``games`` (all so far) and ``simulations_per_second``.
        Iterations are numbered on from call to call.

        Args:
            iterations: Positive integer.
            callbacks: List of :class:`keras.callbacks.Callback`. Their ``model`` is the
                agent's ``learner``.
            verbose: ``"auto"`` or 1 for a progress bar, 2 for a line an iteration, 0
                for silence.

        Returns:
            :class:`keras.callbacks.History` of this call.

        Raises:
            ValueError: If an argument is none of the above, or the network gives what
                is not finite.
        """
        check_count("iterations", iterations)
        loop = TrainingLoop(
            self.learner, callbacks, verbose, iterations, ["loss", "draws"]
        )
        done = 0
        while done < iterations and not self.learner.stop_training:
            loop.begin(self.iterations)
            logs = self._iterate()
            done += 1
            loop.end(logs, done, f"Iteration {self.iterations}")
        return loop.finish()

    def _iterate(self):
        began = time.perf_counter()
        self._outputs.refresh()
        names = ("games", "simulations", "exploration", "noise", "exploring_moves")
        played = self_play(
            self.game,
            self._judge,
            random=self._random(PLAY, self.iterations),
            **{name: self.config[name] for name in names},
        )
        seconds = max(time.perf_counter() - began, 1e-9)
        speed = len(played.positions) * self.config["simulations"] / seconds
        self.memory.add(played)
        random = self._random(BATCHES, self.iterations)
        batches = self.memory.draw(
            self.config["updates"], self.config["batch_size"], random
        )
        # "loss" becomes a running mean, so that its last value is that of all updates
        logs = {
            name: float(values[-1] if name == "loss" else values.mean())
            for name, values in self.learner.train_on_batches(batches).items()
        }
        self.iterations += 1
        self.played += self.config["games"]
        return {
            **logs,
            "game_length": len(played.positions) / self.config["games"],
            "draws": float((played.results == 0).mean()),
            "games": self.played,
            "simulations_per_second": speed,
        }

    # -- playing --------------------------------------------------------------------

    def search(self, positions, simulations=None):
        """Look ahead from positions, without noise.

        Args:
            positions: int8 array ``(batch, rows, columns)`` or one position. As in
                :class:`~dlcompanion.reinforcement.LineGame`, 1 is a stone of the player
                to move.
            simulations: Positive integer. By default those of the constructor.

        Returns:
            :class:`~dlcompanion.reinforcement.SearchResult`.

        Raises:
            ValueError: If a position is none with a move to make.
        """
        self._outputs.refresh()
        return tree_search(
            self.game,
            self.game.check(positions),
            self._judge,
            self.config["simulations"] if simulations is None else simulations,
            self.config["exploration"],
        )

    def judge(self, positions):
        """What the network says without any search.

        Args:
            positions: As in :meth:`search`.

        Returns:
            Probabilities of the legal actions ``(batch, actions)``, and values
            ``(batch,)`` for the player to move.

        Raises:
            ValueError: As :meth:`search`.
        """
        self._outputs.refresh()
        positions = self.game.check(positions)
        logits, values = self._judge(positions)
        return legal_softmax(logits, self.game.legal(positions)), values

    def predict(self, positions, deterministic=True, simulations=None):
        """Action for a position, or actions for a batch of them.

        Args:
            positions: As in :meth:`search`.
            deterministic: Boolean: the action that the search visited most, or one
                drawn in proportion to the visits.
            simulations: Integer of at least 0. By default those of the constructor;
                with 0 the network alone decides, by its probabilities.

        Returns:
            An integer, or an int64 array ``(batch,)``.

        Raises:
            ValueError: As :meth:`search`.
        """
        weights = self._weights(positions, simulations)
        if deterministic:
            actions = weights.argmax(axis=1)
        else:
            actions = draw_actions(weights, self._draws)
        return int(actions[0]) if np.ndim(positions) == 2 else actions

    def move(self, positions, random=None, simulations=None):
        """The best actions, in the form of a player.

        ``random`` draws among equally good ones; without it the first is taken.
        """
        weights = self._weights(positions, simulations)
        if random is None:
            return weights.argmax(axis=1)
        return draw_actions(weights == weights.max(axis=1, keepdims=True), random)

    def _weights(self, positions, simulations):
        """Visits of a search, or probabilities of the network alone."""
        if simulations == 0:
            return self.judge(positions)[0]
        return self.search(positions, simulations).visits

    def evaluate(
        self, opponent=None, games=200, simulations=None, opening=0, seed=None
    ):
        """Play against somebody, half of the games in each seat, without learning.

        Args:
            opponent: Function of positions and a ``numpy.random.Generator`` to actions,
                for example ``Minimax(game).best`` or another agent's ``move``. By
                default one that draws among the legal moves.
            games: Positive integer.
            simulations: As in :meth:`predict`.
            opening: Integer of at least 0, the moves at the beginning of each game that
                are drawn at random: this agent draws nothing.
            seed: Integer of at least 0. By default it follows from the agent's seed.

        Returns:
            Dict with the shares ``"win"``, ``"draw"`` and ``"loss"`` of this agent, and
            ``"games"``.
        """
        if seed is None:
            seed = int(self._random(EVALUATION, 0).integers(2**31))
        return play_match(
            self.game,
            lambda positions, _: self.move(positions, None, simulations),
            self.game.random_move if opponent is None else opponent,
            games,
            seed,
            opening,
        )

    def _judge(self, positions):
        logits, values = self._outputs(self.game.observe(positions))
        return logits, values[:, 0]

    # -- keeping --------------------------------------------------------------------

    def save(self, path):
        """Write the whole agent to one file, or leave the file as it was.

        The file holds the learner in Keras's own format (network, optimizer), the
        remembered positions, the arguments and the counters, and no pickle. ``fit(n)``
        equals, bit for bit on one backend and machine, ``fit(k)``, ``save``, a new
        process, ``load`` and ``fit(n - k)``.

        To survive a killed process, save from a callback:
        ``keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: agent.save(path))``.

        Args:
            path: String or path of the file.
        """
        state = {
            "agent": type(self).__name__,
            "game": self.game.config if isinstance(self.game, LineGame) else None,
            "config": self.config,
            "iterations": self.iterations,
            "played": self.played,
        }
        agent_file.write(path, state, self.learner, self.memory.arrays())

    @classmethod
    def load(cls, path, game=None):
        """The agent that was saved, ready to go on.

        Args:
            path: String or path of a file that ``save`` wrote.
            game: As in the constructor. By default the board that the agent was made
                with; needed if it was no :class:`~dlcompanion.reinforcement.LineGame`.

        Returns:
            The agent.

        Raises:
            ValueError: If the file is truncated, foreign, or of another kind of agent,
                or no game is known.
        """
        state, learner, arrays = agent_file.read(path)
        if state["agent"] != cls.__name__:
            raise ValueError(
                f"{path} holds another agent. "
                f"Received: {state['agent']} in the file, {cls.__name__} asked for"
            )
        if game is None:
            if state["game"] is None:
                raise ValueError(
                    "This agent was not made with a LineGame: pass load(path, "
                    "game=...). Received: game=None"
                )
            game = LineGame(**state["game"])
        agent = cls(game, learner.network, learner.optimizer, **state["config"])
        agent.iterations, agent.played = state["iterations"], state["played"]
        agent.memory.restore(arrays)
        return agent
