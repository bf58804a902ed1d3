"""AlphaZero: a network that learns a game from the search that it guides."""

import time

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count, check_number
from dlcompanion.reinforcement.agents.base_agent import BaseAgent, begin_anew
from dlcompanion.reinforcement.agents.training_loop import TrainingLoop
from dlcompanion.reinforcement.games.boards import LineGame
from dlcompanion.reinforcement.games.matches import play_match
from dlcompanion.reinforcement.games.self_play import PositionMemory, self_play
from dlcompanion.reinforcement.games.tree_search import (
    draw_actions,
    legal_softmax,
    tree_search,
)
from dlcompanion.reinforcement.networks.actor import Actor
from dlcompanion.reinforcement.networks.network_checks import check_network
from dlcompanion.training import StepModel


def search_policy_loss(logits, policies):
    r"""Cross-entropy of the network's policy to that of the search.

    .. math:: -\frac1n \sum_i \sum_a \pi_i(a) \log p(a \mid s_i)

    Args:
        logits: Tensor ``(batch, actions)``.
        policies: Tensor of that shape, the share of visits :math:`\pi_i`.

    Returns:
        Scalar tensor.

    Example:
        >>> uniform = np.full((2, 4), 0.25, "float32")
        >>> loss = search_policy_loss(np.zeros((2, 4), "float32"), uniform)
        >>> print(f"{float(loss):.4f}")
        1.3863
    """
    logs = ops.log_softmax(ops.convert_to_tensor(logits))
    policies = ops.convert_to_tensor(policies, dtype=logs.dtype)
    return -ops.mean(ops.sum(policies * logs, axis=-1))


def outcome_loss(values, outcomes):
    r"""Mean squared error of the values to the outcomes of the games.

    .. math:: \frac1n \sum_i \bigl(v(s_i) - z_i\bigr)^2

    Args:
        values: Tensor ``(batch,)``.
        outcomes: Tensor ``(batch,)``, :math:`z_i`: 1 if the player to move won, -1 if
            the opponent did, 0 for a draw.

    Returns:
        Scalar tensor.

    Example:
        >>> float(outcome_loss(np.float32([0.5, 0.0]), np.float32([1.0, 0.0])))
        0.125
    """
    values = ops.convert_to_tensor(values)
    return ops.mean(ops.square(values - ops.convert_to_tensor(outcomes, values.dtype)))


@keras.saving.register_keras_serializable(package="dlcompanion")
class PolicyValue(StepModel):
    r"""A network with two heads that learns from positions of self-play.

    One step of training, on observations with ``y = (policies, outcomes)``, descends
    the gradient of :func:`search_policy_loss` plus :func:`outcome_loss` plus the
    regularizers of the network's weights. The network is called with
    ``training=False``, as it is when it plays.

    Args:
        network: :class:`keras.Model` from observations to logits ``(batch, actions)``
            and values ``(batch, 1)``.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Observations ``(batch, ...)``.

    Returns:
        Logits ``(batch, actions)`` and values ``(batch,)``.

    Example:
        >>> inputs = keras.Input((3,))
        >>> heads = [keras.layers.Dense(n)(inputs) for n in (2, 1)]
        >>> logits, values = PolicyValue(keras.Model(inputs, heads))(np.ones((5, 3)))
        >>> tuple(logits.shape), tuple(values.shape)
        ((5, 2), (5,))
    """

    def __init__(self, network, **kwargs):
        super().__init__(**kwargs)
        self.network = network

    def build(self, input_shape):
        """The network was built by whoever made it."""

    def call(self, inputs):
        logits, values = self.network(inputs, training=False)
        return ops.cast(logits, "float32"), ops.cast(values[:, 0], "float32")

    def update(self, data):
        observations, (policies, outcomes), _ = keras.utils.unpack_x_y_sample_weight(
            data
        )

        def loss():
            logits, values = self(observations)
            parts = search_policy_loss(logits, policies), outcome_loss(values, outcomes)
            return parts[0] + parts[1], parts

        total, parts = self.descend(
            loss, self.network.trainable_variables, has_aux=True
        )
        return {"loss": total, "policy_loss": parts[0], "value_loss": parts[1]}

    def get_config(self):
        network = keras.saving.serialize_keras_object(self.network)
        return {**super().get_config(), "network": network}


def policy_value_network(observation_shape, actions, seed, units=128):
    """The default network of AlphaZero: two dense layers and two heads.

    Args:
        observation_shape: Tuple, the shape of one observation.
        actions: Integer, the number of logits.
        seed: Integer, decides the initial weights.
        units: Integer, the rectified units of each layer.

    Returns:
        :class:`keras.Model` from observations to logits ``(batch, actions)`` and
        values ``(batch, 1)`` in [-1, 1].

    Example:
        >>> policy_value_network((3, 3, 2), 9, seed=0).output_shape
        [(None, 9), (None, 1)]
    """
    seeds = iter(np.random.SeedSequence(seed).generate_state(4).tolist())

    def dense(units, activation, name, scale=1.0):
        initializer = keras.initializers.VarianceScaling(
            scale, mode="fan_in", seed=next(seeds)
        )
        return keras.layers.Dense(
            units,
            activation,
            kernel_initializer=initializer,
            kernel_regularizer=keras.regularizers.L2(1e-4),
            name=name,
        )

    inputs = keras.Input(observation_shape)
    hidden = keras.layers.Flatten()(inputs)
    hidden = dense(units, "relu", "trunk_1", 2.0)(hidden)
    hidden = dense(units, "relu", "trunk_2", 2.0)(hidden)
    # near 0 both: all moves alike, and nobody ahead
    logits = dense(actions, "linear", "logits", 0.01)(hidden)
    value = dense(1, "tanh", "value", 0.01)(hidden)
    return keras.Model(inputs, [logits, value], name="network")


# What random numbers are for: each purpose has its own stream.
WEIGHTS, PLAY, BATCHES, EVALUATION, ACTIONS = range(5)


class AlphaZero(BaseAgent):
    r"""Learns a game by playing against itself, from nothing but its rules.

    A network estimates for a position :math:`s` the probabilities :math:`p` of moves
    and the outcome :math:`v`. A :func:`~dlcompanion.reinforcement.tree_search` guided
    by it finds better moves, :math:`\pi`; the games of these moves end with a result
    :math:`z`; and the network learns to predict the moves of the search and the result,

    .. math:: (z - v)^2 - \pi^\top \log p + c \, \lVert \theta \rVert^2 ,

    so that the next search begins where this one ended. One *iteration* plays
    ``games`` games at once, all moves by search, and makes ``gradient_steps`` steps on
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
        window: Positive integer, the last iterations whose positions are kept.
        gradient_steps: Positive integer, the gradient steps in an iteration.
        batch_size: Positive integer, the positions of a step.
        seed: Integer of at least 0, or None for one that is drawn. Seeds weights,
            games and batches.

    Raises:
        ValueError: If an argument is none of the above, or the network does not fit.

    Example:
        >>> from dlcompanion.reinforcement import TicTacToe
        >>> game = TicTacToe()
        >>> agent = AlphaZero(game, games=8, simulations=10, gradient_steps=2, seed=0)
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
        gradient_steps=32,
        batch_size=256,
        seed=None,
    ):
        config = {
            "games": check_count("games", games),
            "simulations": check_count("simulations", simulations),
            "exploration": check_number("exploration", exploration, open_ends=True),
            "noise": check_number("noise", noise, 0, 1),
            "exploring_moves": check_count("exploring_moves", exploring_moves, least=0),
            "window": check_count("window", window),
            "gradient_steps": check_count("gradient_steps", gradient_steps),
            "batch_size": check_count("batch_size", batch_size),
        }
        super().__init__(seed, config)
        self.game, shape = game, game.observation_shape
        self.iterations = 0
        self.played = 0  # games
        self.memory = PositionMemory(game, window)
        self._draws = self.random(ACTIONS, 0)
        if network is None:
            weights = int(self.random(WEIGHTS, 0).integers(2**31))
            network = policy_value_network(shape, game.actions, weights)
        heads = {"logits": (game.actions,), "values": (1,)}
        check_network("network", network, {"observations": shape}, heads)
        learner = PolicyValue(network, name="learner")
        learner.build((None, *shape))
        learner.compile(optimizer or keras.optimizers.Adam(0.002))
        learner.optimizer.build(network.trainable_variables)
        self.attach(learner)

    world = "game"
    counters = ("iterations", "played")

    def attach(self, learner):
        """Learn with ``learner``, and play with its network."""
        self.learner, self.network = learner, learner.network
        self.actor = Actor(learner, padded=True)

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
        begin, shown = self.iterations, ["loss", "draws"]
        loop = TrainingLoop(self.learner, callbacks, verbose, iterations, shown, self)
        while self.iterations < begin + iterations and not self.learner.stop_training:
            loop.begin(self.iterations)
            logs = self._iterate()
            loop.end(logs, self.iterations - begin, f"Iteration {self.iterations}")
        return loop.finish()

    def _iterate(self):
        began = time.perf_counter()
        names = ("games", "simulations", "exploration", "noise", "exploring_moves")
        with self.actor.held():
            played = self_play(
                self.game,
                self._evaluate,
                random=self.random(PLAY, self.iterations),
                **{name: self.config[name] for name in names},
            )
        seconds = max(time.perf_counter() - began, 1e-9)
        speed = len(played.positions) * self.config["simulations"] / seconds
        self.memory.add(played)
        random = self.random(BATCHES, self.iterations)
        batches = self.memory.draw(
            self.config["gradient_steps"], self.config["batch_size"], random
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

    def restart(self, seed):
        """Begin anew with another seed, with what is compiled.

        Afterwards the agent is as a new one of the same arguments and this seed, and
        ``fit`` gives the same, bit for bit: as ``restart`` of
        :class:`~dlcompanion.reinforcement.PPO` and the other agents.

        Args:
            seed: Integer of at least 0.

        Returns:
            The agent.

        Raises:
            ValueError: If ``seed`` is no such integer, or the network has no config.
        """
        return begin_anew(self, seed, self.game, {})

    # -- playing --------------------------------------------------------------------

    def search(self, positions, simulations=None):
        """Look ahead from positions, without noise.

        Args:
            positions: int8 array ``(batch, rows, columns)`` or one position. As in
                :class:`~dlcompanion.reinforcement.LineGame`, 1 is a stone of the player
                to move.
            simulations: Positive integer. By default those of the constructor.

        Returns:
            ``SearchResult``.

        Raises:
            ValueError: If a position is none with a move to make.
        """
        positions = self.game.check(positions)
        if simulations is None:
            simulations = self.config["simulations"]
        with self.actor.held():
            return tree_search(
                self.game,
                positions,
                self._evaluate,
                simulations,
                self.config["exploration"],
            )

    def priors_and_values(self, positions):
        """Priors and values of the network, without a search.

        Args:
            positions: As in :meth:`search`.

        Returns:
            Probabilities of the legal actions ``(batch, actions)``, and values
            ``(batch,)`` for the player to move.

        Raises:
            ValueError: As :meth:`search`.
        """
        positions = self.game.check(positions)
        with self.actor.held():
            logits, values = self._evaluate(positions)
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
            return self.priors_and_values(positions)[0]
        return self.search(positions, simulations).visits

    def evaluate(
        self, opponent=None, games=200, simulations=None, opening=0, seed=None
    ):
        """Play against an opponent, half of the games in each seat, without learning.

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
            seed = int(self.random(EVALUATION, 0).integers(2**31))
        return play_match(
            self.game,
            lambda positions, _: self.move(positions, None, simulations),
            self.game.random_move if opponent is None else opponent,
            games,
            seed,
            opening,
        )

    def _evaluate(self, positions):
        logits, values = self.actor("network", self.game.observe(positions))
        return logits, values[:, 0]

    # -- keeping --------------------------------------------------------------------

    def arrays(self):
        """The remembered positions."""
        return self.memory.arrays()

    def restore(self, arrays):
        """Take back what :meth:`arrays` gave.

        Args:
            arrays: Dict from name to NumPy array.
        """
        self.memory.restore(arrays)

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
        return super().load(path, game)

    def world_config(self):
        """The arguments of the board, or None if it is another game."""
        return self.game.config if isinstance(self.game, LineGame) else None

    @staticmethod
    def world_of(config):
        """The board of :meth:`world_config`."""
        return None if config is None else LineGame(**config)

    @staticmethod
    def parts_of(learner):
        """The network and optimizer of a loaded learner."""
        return {"network": learner.network, "optimizer": learner.optimizer}
