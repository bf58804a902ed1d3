"""What a committed benchmark says: one sentence and bars, ours against the peer.

Everything is a ratio of costs, ours divided by the peer's: 1 is a tie, less is cheaper.
"""

import collections
import html
import math
import re

#: One bar: cost as a multiple of the peer's, with the least and the most of the repeats
#: where these are known; ``ours`` tells whom the sentence is about.
Bar = collections.namedtuple("Bar", "group label ratio low high ours")
RATIO = re.compile(r"([\d.]+) \(([\d.]+)-([\d.]+)\)")
PYTHONS = ("TensorFlow", "JAX", "PyTorch")


def bars(stem, data):
    """The bars of a benchmark, in the order of its table; [] if it is not known.

    Args:
        stem: String, the name of the benchmark.
        data: Dict, its committed result.

    Returns:
        List of :class:`Bar`.
    """
    made = BENCHMARKS[stem].bars(data["rows"]) if stem in BENCHMARKS else []
    return [bar for bar in made if bar]


def strength(stem, data):
    """The cost of the best of ours: benchmarks are shown in its order."""
    summary = contenders(stem, data)
    return summary[0][1] if summary else math.inf


def contenders(stem, data):
    """Ours, the cheapest first: label, geometric mean, least and most over groups."""
    found = collections.defaultdict(list)
    for bar in bars(stem, data):
        if bar.ours:
            found[bar.label].append(bar.ratio)
    rows = [
        (label, math.exp(sum(map(math.log, r)) / len(r)), min(r), max(r), len(r))
        for label, r in found.items()
    ]
    return sorted(rows, key=lambda row: row[1])


def verdict(stem, data):
    """One sentence about a result, made of its numbers.

    Example:
        >>> row = {"statement": "import dlcompanion", "to import keras": "1.03 (1-2)"}
        >>> verdict("import_time", {"rows": [row]})
        'Ours (import dlcompanion) takes 1.03 times the CPU time of import keras.'
    """
    summary = contenders(stem, data)
    if not summary:
        return ""
    about = BENCHMARKS[stem]
    label, _, low, high, count = summary[0]
    first = "The cheapest of ours" if len(summary) > 1 else "Ours"
    text = f"{first} ({label}) takes {span(low, high)} times {about.cost}"
    if count > 1:
        text += f", over {count} {about.groups}"
    if len(summary) > 1:
        label, _, low, high, _ = summary[-1]
        text += f"; the dearest ({label}) {span(low, high)} times"
    return f"{text}."


def span(low, high):
    """``0.21 to 0.53``, or one number where both read the same."""
    low, high = digits(low), digits(high)
    return low if low == high else f"{low} to {high}"


def digits(ratio):
    """A ratio as it is spoken of: two digits, three around 1."""
    if ratio >= 10:
        return f"{ratio:.0f}"
    if 0.95 <= ratio < 1.1:
        return f"{ratio:.2f}"
    return f"{ratio:#.2g}" if ratio < 1 else f"{ratio:.1f}"


# -- what the tables hold -----------------------------------------------------

Benchmark = collections.namedtuple("Benchmark", "bars cost groups peer")


def column(ratio, label, ours, group=lambda row: ""):
    """Bars of a table with a column of ratios, ``0.85 (0.80-0.90)`` or numbers."""

    def bar(row):
        match = RATIO.match(str(row.get(ratio, "")))
        numbers = [float(n) for n in match.groups()] if match else [row.get(ratio)] * 3
        if not isinstance(numbers[0], int | float):
            return None
        return Bar(group(row), row[label], *numbers, row[label].startswith(ours))

    return lambda rows: [bar(row) for row in rows]


def of_tree_search(rows):
    """Costs of one simulation: mctx is the faster peer."""
    speed = "{}, simulations a CPU second"
    for row in rows:
        base = row[speed.format("mctx")]
        _, least, most = map(float, RATIO.match(row["times mctx"]).groups())
        group = row["game"].replace("_", " ")
        ours = base / row[speed.format("ours")]
        yield Bar(group, "Our search", ours, 1 / most, 1 / least, True)
        peer = base / row[speed.format("OpenSpiel")]
        yield Bar(group, "OpenSpiel", peer, peer, peer, False)
        yield Bar(group, "mctx", 1.0, 1.0, 1.0, False)


def of_ray(rows):
    """Wall time of a step of eight environments, against one process."""
    for row in rows:
        group = f"a step {row['a step']}, {row['ms']} ms"
        ratio = row["wall ms on Ray"] / row["wall ms SyncVectorEnv"]
        yield Bar(group, "Ray with two workers", ratio, ratio, ratio, True)


def of_alphazero(rows):
    """CPU time of a move; ours counts where it plays as well as the peer."""
    peer = next(r for r in rows if r["player"] == "OpenSpiel, 10,000 rollouts")
    for row in rows:
        if row["player"] == "random moves":
            continue
        ratio = row["CPU ms a move"] / peer["CPU ms a move"]
        # to three digits: the counts that they are made of have no more
        as_good = round(row["value kept"], 3) >= round(peer["value kept"], 3)
        ours = row["training"] is not None
        label = f"{row['player']}, {row['value kept']:.1%} of values kept"
        if ours:
            label = f"AlphaZero, {label}"
        yield Bar("", label, ratio, ratio, ratio, ours and as_good)


BENCHMARKS = {
    "alphazero": Benchmark(
        of_alphazero,
        "the CPU time a move of OpenSpiel with 10,000 rollouts, and plays as well",
        "players",
        "OpenSpiel, 10,000 rollouts",
    ),
    "bayesian_layers": Benchmark(
        column("to tfp.layers", "contender", "DenseFlipout"),
        "the CPU time of tfp.layers on Keras 2",
        "layers",
        "tfp.layers",
    ),
    "deep_ensembles": Benchmark(
        column("to eight, Keras fit", "contender", "DeepEnsemble"),
        "the CPU time of eight networks trained one after the other by Keras's fit",
        "backends",
        "Keras's fit, on the same backend",
    ),
    "fit_in_memory": Benchmark(
        column("to PyTorch loop", "contender", "fit_in_memory"),
        "the CPU time of a plain PyTorch loop",
        "models",
        "a plain PyTorch loop",
    ),
    "graph_convolution": Benchmark(
        column("to PyG CSR", "contender", "GraphConvolution"),
        "the CPU time of PyTorch Geometric's fastest way",
        "graphs",
        "PyTorch Geometric, CSR adjacency",
    ),
    "import_time": Benchmark(
        column("to import keras", "statement", "import dlcompanion"),
        "the CPU time of import keras",
        "imports",
        "import keras",
    ),
    "normalizing_flows": Benchmark(
        column(
            "to the fastest peer",
            "contender",
            PYTHONS,
            lambda row: (
                f"{row['flow']}, {'training' if 'CPU ms a step' in row else 'sampling'}"
            ),
        ),
        "the CPU time of the fastest of nflows, zuko and normflows",
        "flows",
        "the fastest of nflows, zuko and normflows",
    ),
    "ray_environments": Benchmark(
        of_ray, "the wall time of one process", "kinds of environment", "one process"
    ),
    "reinforcement": Benchmark(
        column("CPU s / SB3", "contender", PYTHONS, lambda row: row["task"]),
        "the CPU time of Stable-Baselines3 to the same return",
        "tasks",
        "Stable-Baselines3",
    ),
    "tree_search": Benchmark(
        of_tree_search, "the CPU time a simulation of mctx", "games", "mctx"
    ),
}

# -- the drawing --------------------------------------------------------------


def chart(stem, data):
    """The bars as HTML on one line, on a logarithmic scale around 1."""
    drawn = bars(stem, data)
    if not drawn:
        return ""
    ends = [1.0, *(b.low for b in drawn), *(b.high for b in drawn)]
    low, high = math.log(min(ends)) - 0.05, math.log(max(ends)) + 0.05

    def place(ratio):
        return 100 * (math.log(ratio) - low) / (high - low)

    peer = html.escape(BENCHMARKS[stem].peer)
    parts = [
        f"<figcaption>Cost as a multiple of: {peer}. Less is cheaper.</figcaption>"
    ]
    group = ""
    for bar in drawn:
        if bar.group != group:
            group = bar.group
            parts.append(f'<p class="group">{html.escape(group)}</p>')
        parts.append(drawn_bar(bar, place))
    return f'<figure class="ratios">{"".join(parts)}</figure>'


def drawn_bar(bar, place):
    """One row: label, a bar between 1 and the ratio, the number."""
    left, right = sorted((place(bar.ratio), place(1.0)))
    who = "ours" if is_ours(bar) else "peer"
    return (
        f'<div class="cost {who}"><span class="label">{html.escape(bar.label)}</span>'
        f'<span class="track"><span class="fill" style="left:{left:.1f}%;'
        f'width:{right - left:.1f}%"></span><span class="one" '
        f'style="left:{place(1.0):.1f}%"></span><span class="spread" '
        f'style="left:{place(bar.low):.1f}%;'
        f'width:{place(bar.high) - place(bar.low):.1f}%"></span></span>'
        f'<span class="value">{digits(bar.ratio)}</span></div>'
    )


def is_ours(bar):
    """Whether a bar has the color of ours: also where it is too weak to count."""
    return bar.ours or bar.label.startswith("AlphaZero, ")
