"""The accuracy matrix of a method as a heat map of what every stage changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from moextend.bench.figures import style
from moextend.bench.figures.source import Source, groups
from moextend.bench.figures.stages import TEXT, over_runs
from moextend.bench.report.collect import Experiment, Result

COLORS = "RdBu"
LEAST = 10.0
"""Points: the scale of colours reaches at least so far."""
DARK = 0.55
"""Part of the scale from which numbers are white."""


def matrix(experiment: Experiment, method: str, ax: Axes, *, most: float | None = None) -> Axes:
    """Draws the matrix of a method, mean over seeds: a row per stage, a column per task.

    Colours and signed numbers are changes from row 0, the base, whose row shows its accuracy. Tasks that are not
    learned yet are hatched; bold is the task just learned. The last column is the mean over the text tasks.

    Args:
        method: as tables name it: with its order where that is another one, "lora (reverse)".
        most: change in points at which the scale of colours ends; None: the largest one.
    """
    group = groups(experiment)[method]
    values, learned = scores(group), len(group[0].tasks)
    change = values - values[0]
    most = most or _largest(values)
    ax.imshow(change, cmap=COLORS, norm=Normalize(-most, most), aspect="auto")
    for (stage, place), value in np.ndenumerate(change):
        if 0 < stage <= place < learned:
            ax.add_patch(_hatched(stage, place))
        shown = float(values[0, place] if stage == 0 else value)
        ax.text(
            place, stage, _number(shown, signed=stage > 0), ha="center", va="center", fontsize=style.SMALL,
            fontweight="bold" if stage == place + 1 and place < learned else "normal",
            color="white" if abs(value) > DARK * most else "black",
        )  # fmt: skip
    if learned < change.shape[1]:
        ax.axvline(learned - 0.5, color="white", linewidth=2.5)
    ax.set_xticks(
        range(change.shape[1]), [str(i + 1) if i < learned else TEXT for i in range(change.shape[1])]
    )
    ax.set_yticks(range(len(values)), ["base", *(f"{i}" for i in range(1, len(values)))])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def scores(group: Sequence[Result]) -> np.ndarray:
    """[stage, task] mean over the runs of one method and order; the last column is the mean over the text tasks."""
    columns = [*group[0].tasks, *([TEXT] if group[0].text else [])]
    return np.stack([over_runs(group, column)[0] for column in columns], axis=1)


def _largest(values: np.ndarray) -> float:
    return float(max(LEAST, np.nanmax(np.abs(values - values[0]), initial=0.0)))


def _hatched(stage: int, place: int) -> Rectangle:
    return Rectangle(
        (place - 0.5, stage - 0.5), 1, 1, fill=False, hatch="////", edgecolor="#bbbbbb", linewidth=0
    )


def _number(value: float, *, signed: bool) -> str:
    if np.isnan(value):
        return "–"
    rounded = round(value) + 0
    return f"{rounded:+d}".replace("-", "−") if signed and rounded else str(rounded)


def figure(source: Source) -> Figure | None:
    """A panel per method and order, all with one scale of colours."""
    own = groups(source.experiment)
    if not own:
        return None
    found = [scores(group) for group in own.values()]
    most = max(map(_largest, found))
    rows, columns = found[0].shape
    per_row, height = 2 if columns <= 6 else 1, 0.32 + 0.16 * rows
    note = (
        f"{_tasks(list(own.values()))}\nfirst row: accuracy (%); bold: just learned; hatched: not learned yet"
    )
    drawn, axes = style.panels(len(own), per_row, height)
    for place, (label, ax) in enumerate(zip(own, axes, strict=True)):
        matrix(source.experiment, label, ax, most=most)
        ax.set_title(style.name(label, 26 if per_row == 2 else 46))
        ax.set_ylabel("after stage" if place % per_row == 0 else "")
    _bar(drawn, axes)
    drawn.supxlabel(note, fontsize=style.SMALL)
    drawn.set_figheight(drawn.get_figheight() + 0.45 + 0.1 * note.count("\n"))
    return drawn


def _bar(drawn: Figure, axes: list[Axes]) -> None:
    """The scale of colours, below all panels."""
    thick, height = 0.06, drawn.get_figheight()
    bar = drawn.colorbar(
        axes[0].images[0], ax=axes, location="bottom", fraction=thick / height, aspect=0.8 * style.WIDTH / thick,
        pad=0.06 / height,
    )  # fmt: skip
    bar.set_label("change from the base (points)")
    bar.outline.set_visible(False)


def _tasks(found: Sequence[Sequence[Result]]) -> str:
    """What the columns are, where all panels have the same."""
    orders = {tuple(group[0].tasks) for group in found}
    if len(orders) > 1:
        return "columns: tasks in the order in which they are learned"
    words = ", ".join(f"{i} {task}" for i, task in enumerate(next(iter(orders)), 1))
    return style.name(f"columns: {words}", 62)
