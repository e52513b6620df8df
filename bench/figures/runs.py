"""The spread of a metric over seeds and orders: a dot per run."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from moextend.bench.figures import style
from moextend.bench.figures.source import NothingToDraw, Source, over_runs
from moextend.bench.report.frame import summary
from moextend.bench.report.looks import BLACK, looks

METRICS = {"la": "LA (%)", "acc": "ACC (%)", "bwt": "BWT (points)", "fm": "FM (points)", "fwt": "FWT (points)",
           "text_change": "Δ text (points)"}  # fmt: skip
"""Metric of `summary` -> its name at the axis."""
ORDERS = "osD^vP*X"
"""Markers of orders, as they come."""


def spread(results: DataFrame, ax: Axes, *, metric: str = "acc") -> Axes:
    """Draws a row per method: a dot per run, its marker by order, and a line at the mean of each order."""
    runs = summary(results)
    markers = order_markers(runs)
    known = looks((method, "given") for method in runs["method"])
    places = style.rows(list(dict.fromkeys(runs["method"])))
    for key, own in runs.groupby(["method", "order"], sort=False):
        method, order = map(str, key)
        y, place = places[method], list(markers).index(order)
        shift = (place - (len(markers) - 1) / 2) * 0.7 / len(markers)
        values = own[metric].dropna()
        ax.plot(
            values, [y + shift] * len(values), linestyle="none", marker=markers[order],
            color=known[method, "given"].color, markerfacecolor="none", label=f"{method}, {order}",
        )  # fmt: skip
        mean, _ = over_runs(values)
        if mean is not None:
            half = 0.35 / len(markers)
            ax.plot(
                [mean, mean],
                [y + shift - half, y + shift + half],
                color=known[method, "given"].color,
                linewidth=1.2,
            )
    style.names_axis(ax, places)
    ax.set_xlabel(METRICS[metric])
    if metric in ("la", "acc"):
        style.percent(ax, "x")
    ax.spines["left"].set_visible(False)
    return ax


def order_markers(runs: DataFrame) -> dict[str, str]:
    """Order -> marker."""
    orders = dict.fromkeys(runs["order"])
    return {order: ORDERS[i % len(ORDERS)] for i, order in enumerate(orders)}


def figures(source: Source) -> list[Figure]:
    """LA and ACC, side by side."""
    results = source.cells
    if results.empty:
        raise NothingToDraw("no sequence run has scores.", where="spread", hint="Run a sequence first.")
    markers = order_markers(summary(results))
    drawn, axes = style.panels(2, 2, 1.0, sharey=True)
    for ax, metric in zip(axes, ("la", "acc"), strict=True):
        spread(results, ax, metric=metric)
        ax.grid(axis="x")
    lines = style.row_lines(style.rows(list(dict.fromkeys(summary(results)["method"]))))
    drawn.set_figheight(0.5 + 0.15 * lines * (1 + 0.35 * (len(markers) - 1)))
    if len(markers) > 1:
        shown = {order: Line2D([], [], linestyle="none", marker=marker, color=BLACK, markerfacecolor="none")
                 for order, marker in markers.items()}  # fmt: skip
        style.legend(drawn, shown)
    return [drawn]
