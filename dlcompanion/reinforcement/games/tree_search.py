"""Monte Carlo tree search: many games at once, one call of the network a simulation.

A search in one game calls the network on one position, thousands of times. Here every
game has its tree, all trees lie in the same arrays, and all take one step at a time: a
simulation walks down each tree to a leaf, evaluates the leaves of all trees together,
and walks back up. What a tree holds does not depend on the trees beside it.
"""

from typing import NamedTuple

import numpy as np

from dlcompanion.checks import check_count, check_number


class SearchResult(NamedTuple):
    """What a search found out about each of its positions.

    Args:
        visits: int64 array ``(batch, actions)``, how often each action was tried.
        action_values: float32 array ``(batch, actions)``, what each was worth on
            average, for the player to move; 0 where it was never tried.
        priors: float32 array ``(batch, actions)``, the probabilities that the search
            began with, noise included; 0 for an illegal action.
        evaluations: Integer, the number of positions that ``evaluate`` was given.

    Example:
        >>> SearchResult(np.array([[1, 3]]), np.zeros((1, 2)), None, 5).policies
        array([[0.25, 0.75]])
    """

    visits: np.ndarray
    action_values: np.ndarray
    priors: np.ndarray
    evaluations: int

    @property
    def policies(self):
        """Share of the visits, ``(batch, actions)``, the policy that was found."""
        return self.visits / self.visits.sum(axis=1, keepdims=True)

    @property
    def values(self):
        """Mean value over all simulations, ``(batch,)``, for the player to move."""
        return (self.policies * self.action_values).sum(axis=1)


def tree_search(
    game,
    positions,
    evaluate,
    simulations,
    exploration=1.5,
    root_noise=None,
):
    r"""Look ahead from every position, guided by a policy and a value function.

    One simulation goes down from the root, in position :math:`s` along the action

    .. math:: \arg\max_a \; Q(s, a) + c \, P(a \mid s)
        \frac{\sqrt{N(s)}}{1 + N(s, a)},

    until it meets a position that is not in the tree. That one is added, with what
    ``evaluate`` says of it; if the game has ended there its result is taken and nobody
    is asked. The value goes back up with alternating sign, and :math:`Q(s, a)` is the
    mean of what came back. :math:`N(s, a)` counts the passes along an action,
    :math:`N(s) = 1 + \sum_a N(s, a)` those through a position, the one that added it
    included: so the prior decides from the first simulation on. An action that was
    never tried counts as a draw.

    Args:
        game: A game like :class:`~dlcompanion.reinforcement.LineGame`.
        positions: int8 array ``(batch, rows, columns)``, none of them ended.
        evaluate: Function of positions ``(n, rows, columns)`` to logits
            ``(n, actions)`` and values ``(n,)`` in [-1, 1] for the player to move.
            Illegal actions need no care: the search leaves them out.
        simulations: Positive integer, the visits that each root shares out.
        exploration: Positive number :math:`c`. The larger, the longer the prior
            outweighs what was found.
        root_noise: Function of the priors of the roots and of what is legal there, both
            ``(batch, actions)``, to the priors to search with: ``with_noise`` with
            its other arguments bound.

    Returns:
        ``SearchResult``.

    Raises:
        ValueError: If a number is out of its range, an array has another shape, a
            position has no legal action, or ``evaluate`` gives what is not finite.

    Example:
        >>> from dlcompanion.reinforcement import TicTacToe
        >>> game = TicTacToe()
        >>> position = np.array([[[1, 1, 0], [-1, -1, 0], [0, 0, 0]]], "int8")
        >>> def know_nothing(positions):
        ...     return np.zeros((len(positions), 9)), np.zeros(len(positions))
        >>> result = tree_search(game, position, know_nothing, simulations=50)
        >>> int(result.visits.argmax()), result.action_values[0, 2].item()
        (2, 1.0)

    References:
        Silver et al., *A general reinforcement learning algorithm that masters chess,
        shogi, and Go through self-play*, 2018.
        https://doi.org/10.1126/science.aar6404
    """
    simulations = check_count("simulations", simulations)
    if not game.legal(positions).any(axis=1).all():
        full = np.flatnonzero(~game.legal(positions).any(axis=1))[0]
        raise ValueError(
            "A search needs positions with a legal action. "
            f"Received: position {full}\n{game.render(positions[full])}"
        )
    exploration = check_number("exploration", exploration, open_ends=True)
    trees, actions = len(positions), game.actions
    size = (
        simulations + 1
    )  # nodes of a tree; node number: tree * size + how many before
    nodes = trees * size
    boards = np.zeros((nodes, game.rows, game.columns), "int8")
    priors = np.empty((nodes, actions), "float32")  # c P(a|s), -inf where illegal
    counts = np.ones((nodes, actions), "float32")  # 1 + N(s, a)
    means = np.zeros((nodes, actions), "float32")  # Q(s, a)
    visited = np.ones(nodes, "float32")  # N(s)
    results = np.zeros(nodes, "float32")  # of positions in which the game has ended
    # The node behind an edge; -1, the last place of ``inner``, where there is none.
    children = np.full(nodes * actions, -1, "int64")
    inner = np.zeros(nodes + 1, bool)  # can be walked through: in the tree, not ended
    totals = np.zeros(nodes * actions, "float32")  # N(s, a) Q(s, a)
    flat_counts, flat_means = counts.reshape(-1), means.reshape(-1)

    roots = np.arange(trees) * size
    boards[roots] = positions
    inner[roots] = True
    evaluations = trees
    prior, _ = _evaluated(game, positions, evaluate)
    if root_noise is not None:
        legal = game.legal(positions)
        prior = np.where(legal, root_noise(np.maximum(prior, 0), legal), -np.inf)
    priors[roots] = exploration * prior
    for simulation in range(1, size):
        path = []
        walking, node = np.arange(trees), roots
        leaf = np.empty(trees, "int64")  # the node where each walk ends, or -1
        edges = np.empty(trees, "int64")  # the last edge of each walk
        while len(walking):
            score = priors.take(node, axis=0)
            score /= counts.take(node, axis=0)
            score *= np.sqrt(visited.take(node))[:, None]
            score += means.take(node, axis=0)
            edge = node * actions + score.argmax(axis=1)
            path.append((walking, node, edge))
            node = children.take(edge)
            leaf[walking], edges[walking] = node, edge
            go_on = inner.take(node).nonzero()[0]
            walking, node = walking.take(go_on), node.take(go_on)
        value = results[leaf]  # those that ended before; the others are set below
        new = np.flatnonzero(leaf < 0)
        if len(new):
            parent, action = np.divmod(edges[new], actions)
            boards_new, ended, result = game.move(boards[parent], action)
            node = roots[new] + simulation
            children[edges[new]] = node
            results[node], value[new] = result, result
            asked = np.flatnonzero(~ended)
            if len(asked):
                node, board = node[asked], boards_new[asked]
                prior, estimated = _evaluated(game, board, evaluate)
                boards[node], inner[node] = board, True
                priors[node] = exploration * prior
                value[new[asked]] = estimated
                evaluations += len(asked)
        for walked, node, edge in reversed(path):
            back = -value[walked]  # good for the one who moved, bad for the other
            value[walked] = back
            total, count = totals.take(edge) + back, flat_counts.take(edge)
            totals[edge], flat_means[edge] = total, total / count
            flat_counts[edge] = count + 1.0
            visited[node] += 1.0
    return SearchResult(
        counts[roots].astype("int64") - 1,
        means[roots],
        np.maximum(priors[roots] / exploration, 0.0),
        evaluations,
    )


def with_noise(priors, legal, random, fraction=0.25, concentration=None):
    r"""Priors that let every move be tried now and then.

    .. math:: (1 - \varepsilon) P(a \mid s) + \varepsilon \, \eta_a, \qquad
        \eta \sim \text{Dirichlet}(\alpha)

    over the legal actions.

    Args:
        priors: Array ``(batch, actions)``, rows that sum to 1.
        legal: Boolean array ``(batch, actions)``.
        random: A ``numpy.random.Generator``.
        fraction: Number :math:`\varepsilon` in [0, 1].
        concentration: Positive number :math:`\alpha`. By default 10 over the number of
            actions on the board: AlphaZero's 0.03 of Go to 0.3 of chess follow about
            this rule.

    Returns:
        float32 array ``(batch, actions)``, rows that sum to 1.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> legal = np.array([[True, True, False]])
        >>> noisy = with_noise(legal / 2, legal, np.random.default_rng(0))
        >>> float(noisy[0, 2]), round(float(noisy.sum()), 6)
        (0.0, 1.0)
    """
    check_number("fraction", fraction, 0, 1)
    if concentration is None:
        concentration = 10 / legal.shape[1]
    check_number("concentration", concentration, open_ends=True)
    # Dirichlet numbers are gamma numbers divided by their sum
    noise = random.gamma(concentration, size=legal.shape) * legal
    noise /= np.maximum(noise.sum(axis=1, keepdims=True), 1e-30)
    return ((1 - fraction) * priors + fraction * noise).astype("float32")


def legal_softmax(logits, legal):
    """Probabilities of the legal actions.

    Args:
        logits: Array ``(batch, actions)``.
        legal: Boolean array ``(batch, actions)``.

    Returns:
        Array ``(batch, actions)``, 0 where illegal.

    Example:
        >>> legal_softmax(np.zeros((1, 3)), np.array([[True, False, True]])).tolist()
        [[0.5, 0.0, 0.5]]
    """
    logits = np.where(legal, logits, -np.inf)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def draw_actions(weights, random):
    """An action for every row, drawn in proportion to its weights.

    Args:
        weights: Array ``(batch, actions)`` of at least 0, for example visits; an action
            of weight 0 is never drawn.
        random: A ``numpy.random.Generator``.

    Returns:
        int64 array ``(batch,)``.

    Example:
        >>> visits = np.array([[0, 5, 0], [0, 0, 1]])
        >>> draw_actions(visits, np.random.default_rng(0)).tolist()
        [1, 2]
    """
    sums = weights.cumsum(axis=1)
    return (sums > random.random((len(sums), 1)) * sums[:, -1:]).argmax(axis=1)


class RandomRollouts:
    """Judges a position by playing it to its end at random: search without learning.

    With it :func:`tree_search` is the Monte Carlo tree search of before networks.

    Args:
        game: A game like :class:`~dlcompanion.reinforcement.LineGame`.
        seed: Integer of at least 0.
        rollouts: Positive integer, the games that are played from each position.

    Raises:
        ValueError: If ``rollouts`` is not positive.

    Example:
        >>> from dlcompanion.reinforcement import TicTacToe
        >>> game = TicTacToe()
        >>> result = tree_search(game, game.start(1), RandomRollouts(game, seed=0), 200)
        >>> int(result.visits.argmax())
        4
    """

    def __init__(self, game, seed, rollouts=1):
        self.game = game
        self.rollouts = check_count("rollouts", rollouts)
        self.random = np.random.default_rng(seed)

    def __call__(self, positions):
        values = np.zeros(len(positions) * self.rollouts, "float32")
        boards = np.repeat(positions, self.rollouts, axis=0)
        playing, sign = np.arange(len(boards)), 1.0
        while len(playing):
            actions = self.game.random_move(boards, self.random)
            boards, ended, value = self.game.move(boards, actions)
            sign = -sign
            values[playing[ended]] = sign * value[ended]
            boards, playing = boards[~ended], playing[~ended]
        logits = np.zeros((len(positions), self.game.actions), "float32")
        return logits, values.reshape(-1, self.rollouts).mean(axis=1)


def _evaluated(game, positions, evaluate):
    """Priors, -inf where illegal, and values."""
    logits, values = evaluate(positions)
    wanted = (len(positions), game.actions), (len(positions),)
    if (np.shape(logits), np.shape(values)) != wanted:
        raise ValueError(
            f"evaluate must give logits {wanted[0]} and values {wanted[1]}. "
            f"Received: shapes {np.shape(logits)} and {np.shape(values)}"
        )
    if not (np.isfinite(logits).all() and np.isfinite(values).all()):
        raise ValueError(
            "evaluate must give finite numbers; a network that does not has diverged, "
            "and needs a smaller learning rate. Received: a NaN or an infinity among "
            f"the logits or values of {len(positions)} positions"
        )
    legal = game.legal(positions)
    return np.where(legal, legal_softmax(logits, legal), -np.inf), values
