"""Learning curves of a benchmark's runs, drawn as SVG in the colors of the page."""

import numpy as np

from dlcompanion.reinforcement import bootstrap_interval, interquartile_mean

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 360, 220, 44, 26, 10, 12
ABOUT = """
A thin line is one seed, a strong one the interquartile mean of the seeds, the band its
bootstrap interval of 95 %. A run stops after its second pass in a row, and counts from
there on with its last value.
"""


def learning_curves(runs):
    """A figure for each task, as lines of reStructuredText.

    Args:
        runs: List of dicts with ``task``, ``contender`` and ``curve``, a list of points
            ``[steps, return]``.

    Returns:
        List of strings.
    """
    tasks = {}
    for run in runs:
        contenders = tasks.setdefault(run["task"], {})
        contenders.setdefault(run["contender"], []).append(run["curve"])
    names = list(dict.fromkeys(run["contender"] for run in runs))
    drawn = [figure(task, curves, names) for task, curves in tasks.items()]
    page = f'<div class="learning-curves">{"".join(drawn)}</div>'
    return [*ABOUT.strip().splitlines(), "", ".. raw:: html", "", f"   {page}", ""]


def figure(task, curves, names):
    """One ``<figure>``: the curves of every contender of a task.

    Args:
        task: String, the caption.
        curves: Dict from contender to a list of curves.
        names: List of all contenders: the place of a name is its color everywhere.

    Returns:
        String of HTML on one line.
    """
    points = np.array([p for runs in curves.values() for run in runs for p in run])
    right, low, high = points[:, 0].max(), points[:, 1].min(), points[:, 1].max()

    def path(steps, values):
        x = LEFT + np.asarray(steps) / right * (WIDTH - LEFT - RIGHT)
        share = (np.asarray(values) - low) / ((high - low) or 1)
        y = HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
        return " ".join(f"{a:.0f},{b:.0f}" for a, b in zip(x, y, strict=True))

    marks, legend, spoken = [], [], []
    for name, runs in curves.items():
        kind = f"c{names.index(name)}"
        steps, values = on_one_grid(runs)
        middle = [interquartile_mean(v) for v in values]
        ends = np.array([bootstrap_interval(v, resamples=500) for v in values])
        if len(runs) > 1:
            band = path([*steps, *steps[::-1]], [*ends[:, 0], *ends[::-1, 1]])
            marks.append(f'<polygon class="{kind}" points="{band}"/>')
            for run in runs:
                line = path(*zip(*run, strict=True))
                marks.append(f'<polyline class="{kind} seed" points="{line}"/>')
        marks.append(f'<polyline class="{kind}" points="{path(steps, middle)}"/>')
        legend.append(f'<span class="{kind}">{name} ({len(runs)})</span>')
        spoken.append(f"{name} ends at {middle[-1]:.0f} after {steps[-1]:.0f} steps")
    base = HEIGHT - BOTTOM
    axes = (
        f'<path class="axes" d="M{LEFT},{TOP}V{base}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{high:.0f}</text>'
        f'<text x="{LEFT - 6}" y="{base}" text-anchor="end">{low:.0f}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">0</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">'
        f"{right:,.0f} steps</text>"
    )
    return (
        f'<figure><svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'aria-label="Return on {task}: {"; ".join(spoken)}">{axes}{"".join(marks)}'
        f"</svg><figcaption>{task} {' '.join(legend)}</figcaption></figure>"
    )


def on_one_grid(runs):
    """Curves on the steps of all, each with the value that it had last.

    Args:
        runs: List of curves.

    Returns:
        Steps ``(points,)`` and values ``(points, runs)``.
    """
    steps = np.unique([step for run in runs for step, _ in run])
    columns = []
    for run in runs:
        own, values = np.array(run, float).T
        place = np.searchsorted(own, steps, side="right") - 1
        columns.append(values[np.maximum(place, 0)])
    return steps, np.stack(columns, axis=1)
