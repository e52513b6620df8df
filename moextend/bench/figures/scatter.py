"""Plasticity against stability: what is learned, and what is left of it."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moextend.bench import metrics
from moextend.bench.figures import style
from moextend.bench.figures.source import Source, groups, looks_in
from moextend.bench.report.collect import Experiment
from moextend.bench.report.looks import GREY


def plasticity(experiment: Experiment, ax: Axes) -> Axes:
    """Draws learning accuracy (LA) against backward transfer (BWT), a point a method: mean and deviation over seeds.

    ACC = LA + BWT (T - 1) / T, so that methods of the same ACC lie on a line.
    """
    found, looks = groups(experiment), looks_in(experiment)
    for label, group in found.items():
        (x, x_sd), (y, y_sd) = (
            metrics.mean_and_sd(result.summary[key] for result in group) for key in ("la", "bwt")
        )
        if x is None or y is None:
            continue
        bars: dict[str, Any] = (
            {"elinewidth": 0.7, "capsize": 1.5, "capthick": 0.7} if x_sd is not None else {}
        )
        ax.errorbar(
            [x], [y], xerr=x_sd, yerr=y_sd, label=label, linestyle="none", **looks[label].points(), **bars
        )
    ax.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
    ax.margins(0.08)
    style.percent(ax, "x")
    _iso_lines(ax, max(group[0].last for group in found.values()))
    ax.set_xlabel("plasticity: LA (%)")
    ax.set_ylabel("stability: BWT (points)")
    return ax


def _iso_lines(ax: Axes, tasks: int) -> None:
    """Lines of equal ACC, with its value where they leave the plot on the right."""
    part = (tasks - 1) / tasks
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    first, last = right + part * low, right + part * high
    step = next((step for step in (10, 5, 2) if last - first >= 3 * step), 1)
    for acc in range(0, 101, step):
        y = (acc - right) / part
        ax.plot([left, right], [(acc - left) / part, y], color="#dddddd", linewidth=0.6, zorder=0)
        if low <= y <= high:
            ax.text(right, y, f" ACC {acc}", fontsize=style.SMALL, color=GREY, va="center", clip_on=False)
    ax.set_xlim(left, right)
    ax.set_ylim(low, high)


def figure(source: Source) -> Figure | None:
    """One panel."""
    if not any(group[0].last > 1 for group in groups(source.experiment).values()):
        return None
    drawn, (ax,) = style.panels(1, 1, 2.3)
    plasticity(source.experiment, ax)
    style.legend(drawn, style.handles(looks_in(source.experiment), lines=False), length=1.0)
    return drawn
