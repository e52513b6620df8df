"""Accuracy against what a run costs, with the line of the methods that no other one beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

from moextend.bench import metrics
from moextend.bench.figures import style
from moextend.bench.figures.source import Source, groups, looks_in
from moextend.bench.report.collect import Experiment
from moextend.bench.report.views.costs import costs_table

What = Literal["trained_parameters", "flops", "kept_mb"]
UNITS: dict[What, str] = {
    "trained_parameters": "trained\nparameters", "flops": "training\nTFLOP", "kept_mb": "kept MB",
}  # fmt: skip
"""Columns of the cost table -> their name at the axis."""

Point = tuple[float, float]


def cost(experiment: Experiment, what: What, ax: Axes) -> Axes:
    """Draws final accuracy (ACC) against a cost of a run, a point a method, with the Pareto line.

    Costs are those of `moextend bench report costs`. A method that trains nothing is a line across.
    """
    found, looks = points(experiment, what), looks_in(experiment)
    spent = {label: point for label, point in found.items() if point[0] > 0}
    for label, (x, y) in found.items():
        if label in spent:
            ax.plot([x], [y], label=label, linestyle="none", **looks[label].points())
        else:
            ax.axhline(y, label=label, color=looks[label].color, linestyle=":", linewidth=0.8, zorder=0)
    ax.set_xscale("log")
    ax.set_xlabel(UNITS[what])
    if spent:
        _scale(ax, [x for x, _ in spent.values()])
        best = pareto(list(spent.values()))
        line = [*best, (ax.get_xlim()[1], best[-1][1])]
        ax.step(
            [x for x, _ in line], [y for _, y in line], where="post", color="#999999", linewidth=0.8, zorder=0
        )
    style.percent(ax)
    return ax


def _scale(ax: Axes, values: Sequence[float]) -> None:
    """Room around the values on a logarithmic axis, and few ticks in plain numbers."""
    low, high = min(values), max(values)
    room = max((high / low) ** 0.15, 2.3)
    low, high = low / room, high * room
    subs = (1, 2, 5) if high < 10 * low else (1, 3) if high < 100 * low else (1,)
    large = EngFormatter(sep="")
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=3))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: large(x) if x >= 1 else f"{x:g}"))


def points(experiment: Experiment, what: What) -> dict[str, Point]:
    """Label -> (cost of a run, ACC), where both are known; a method that trains nothing costs 0."""
    costs = {row["method"].words: row for row in costs_table(experiment).records}
    found = {}
    for label, group in groups(experiment).items():
        acc, _ = metrics.mean_and_sd(result.summary["acc"] for result in group)
        row = costs.get(label)
        if acc is not None and row and (known := row[what].number) is not None:
            found[label] = (known if row["trained_parameters"].number != 0 else 0.0, acc)
    return found


def pareto(found: Sequence[Point]) -> list[Point]:
    """The points that no other one beats, from the cheapest on: less or equal cost and higher accuracy."""
    best: list[Point] = []
    for x, y in sorted(found, key=lambda point: (point[0], -point[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


def figure(source: Source) -> Figure | None:
    """Parameters, operations and bytes, side by side."""
    experiment = source.experiment
    shown: dict[What, dict[str, Point]] = {what: points(experiment, what) for what in UNITS}
    shown = {what: found for what, found in shown.items() if any(x > 0 for x, _ in found.values())}
    if not shown:
        return None
    drawn, axes = style.panels(len(shown), len(shown), 1.7, sharey=True)
    for what, ax in zip(shown, axes, strict=True):
        cost(experiment, what, ax)
        ax.grid(axis="y")
    axes[0].set_ylabel("ACC (%)")
    looks = looks_in(experiment)
    known = {label: x for found in shown.values() for label, (x, _) in found.items()}
    marks = style.handles({label: looks[label] for label in known}, lines=False)
    for label, mark in marks.items():
        if known[label] == 0:
            mark.set(linestyle=":", marker="", linewidth=0.8)
    style.legend(drawn, marks, length=1.2)
    return drawn
