"""What becomes of items from stage to stage: kept, learned, regained, lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from pandas import DataFrame

from moextend.bench.figures import style
from moextend.bench.figures.source import Source, labelled
from moextend.bench.report.fate import FATES, fate_shares
from moextend.bench.report.frame import frame

COLORS = {
    "kept": "#0072B2",
    "learned": "#009E73",
    "regained": "#8FD3BC",
    "lost": "#D55E00",
    "wrong": "#E4E4E4",
}
NODE = 0.12
"""Half the width of the bar of a stage; stages are 1 apart."""


def flows(shares: DataFrame, ax: Axes) -> Axes:
    """Draws the items of the learned tasks from stage to stage, for the runs of one method and order.

    At every stage the dark part of the bar are the right items; bands go on from right or wrong before to right or
    wrong after. Shares are means over tasks and runs.

    Args:
        shares: moextend.bench.report.fate.fate_shares of a frame with items.
    """
    found: dict[Any, dict[Any, float]] = mean_shares(shares).to_dict("index")
    right = {0: found[1]["kept"] + found[1]["lost"]}
    for stage, row in found.items():
        for fate, (start, end) in _bands(row, right[stage - 1]):
            _band(ax, stage, start, end, row[fate], COLORS[fate])
        right[stage] = row["kept"] + row["learned"] + row["regained"]
    stages = list(right)
    ax.bar(stages, list(right.values()), width=2 * NODE, color="#333333", zorder=3)
    rest = [100 - value for value in right.values()]
    ax.bar(stages, rest, width=2 * NODE, bottom=list(right.values()), color="#bbbbbb", zorder=3)
    ax.set_xlim(-NODE, stages[-1] + NODE)
    ax.set_ylim(0, 100)
    ax.set_xticks(range(0, len(stages), style.step(len(stages) - 1)))
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="x", length=0)
    return ax


def mean_shares(shares: DataFrame) -> DataFrame:
    """[stage, fate] per cent of items, mean over learned tasks and runs."""
    own = shares[shares["role"] == "learned"]
    return own.groupby("stage", observed=True)[list(FATES)].mean()


def _bands(row: dict[Any, float], before: float) -> Iterator[tuple[str, tuple[float, float]]]:
    """Fate -> where its band begins before the stage and ends after it; lost ones last, on top of the others."""
    kept, lost = row["kept"], row["lost"]
    gained = row["learned"] + row["regained"]
    yield "wrong", (before + gained, kept + gained + lost)
    yield "kept", (0.0, 0.0)
    yield "learned", (before, kept)
    yield "regained", (before + row["learned"], kept + row["learned"])
    yield "lost", (kept, kept + gained)


def _band(ax: Axes, stage: int, start: float, end: float, size: float, color: str) -> None:
    if size <= 0:
        return
    x = np.linspace(stage - 1 + NODE, stage - NODE, 30)
    t = (x - x[0]) / (x[-1] - x[0])
    low = start + (end - start) * (3 * t**2 - 2 * t**3)
    ax.fill_between(x, low, low + size, color=color, linewidth=0)


def figure(source: Source) -> Figure | None:
    """A panel per method and order."""
    shares = fate_shares(frame([source.experiment]))
    rows = shares[shares["role"] == "learned"].groupby(["method", "order"], observed=True, sort=False)
    own = {labelled(str(method), str(order)): each for (method, order), each in rows}
    if not own:
        return None
    per_row = 2 if int(shares["stage"].max()) <= 6 else 1
    drawn, axes = style.panels(len(own), per_row, 1.15, sharey=True)
    for (label, each), ax in zip(own.items(), axes, strict=True):
        flows(each, ax)
        ax.set_title(style.name(label, 26 if per_row == 2 else 46))
    style.outer(axes, per_row, "after stage (0: base)", "items (%)")
    style.legend(drawn, {fate: Patch(color=color) for fate, color in COLORS.items()}, length=1.2)
    return drawn
