"""How figures look: one column of a paper, and fonts that are embedded; looks.py has the methods' colours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from moextend.bench.report.looks import Look, renamed
from moextend.bench.report.table import folded
from moextend.errors import visible
from moextend.util import files

WIDTH = 3.3
"""Inches: a column of a paper with two."""
SMALL = 6.0
"""Points of the smallest text."""
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 7, "axes.titlesize": 7, "axes.labelsize": 7, "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5, "legend.fontsize": 6.5, "figure.titlesize": 7, "figure.labelsize": 7,
    "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False,
    "grid.linewidth": 0.4, "grid.color": "#dddddd", "lines.linewidth": 1.0, "lines.markersize": 3.8,
    "lines.markeredgewidth": 0.7, "patch.linewidth": 0.6, "hatch.linewidth": 0.5, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5, "axes.titlepad": 3,
    "axes.labelpad": 2, "legend.frameon": False,
    "legend.handlelength": 2.2, "legend.columnspacing": 1.0, "legend.handletextpad": 0.5, "legend.labelspacing": 0.3,
    "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "moextend", "savefig.dpi": 300,
    "figure.constrained_layout.h_pad": 0.03, "figure.constrained_layout.w_pad": 0.03, "axes.unicode_minus": True,
    "text.usetex": False,
}  # fmt: skip
"""matplotlib's settings; Type 42 embeds TrueType fonts whole, as publishers ask."""
DATELESS: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "ModDate": None},
    "png": {"Software": None},
    "svg": {"Date": None},
}
"""Format -> metadata that leave out what would differ from one day to the next."""


_NAMES: ContextVar[Mapping[str, str]] = ContextVar("names")


@contextmanager
def style(names: Mapping[str, str] | None = None) -> Iterator[None]:
    """The settings of matplotlib while figures are made and saved.

    Args:
        names: method or task -> the name that is shown, where it is another (`report.yaml`).
    """
    before = _NAMES.set(names or {})
    try:
        with matplotlib.rc_context(RC):
            yield
    finally:
        _NAMES.reset(before)


def panels(number: int, columns: int, height: float, **more: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `number` panels, `height` inches each, and its Axes."""
    columns = min(columns, number)
    rows = math.ceil(number / columns)
    figure = Figure(figsize=(WIDTH, rows * height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **more).ravel()
    for empty in grid[number:]:
        empty.remove()
    return figure, list(grid[:number])


def step(last: int) -> int:
    """From one tick to the next on an axis of stages or layers that ends at `last`."""
    return next((step for step in (1, 2, 5, 10, 20) if last / step <= 6), 50)


def outer(axes: Sequence[Axes], columns: int, x: str = "", y: str = "") -> None:
    """Names the axes of a grid that shares them: below the last panel of a column, left of the first of a row."""
    for place, ax in enumerate(axes):
        below, left = place + columns >= len(axes), place % columns == 0
        ax.tick_params(labelbottom=below, labelleft=left)
        ax.set_xlabel(x if below else "")
        ax.set_ylabel(y if left else "")


def percent(ax: Axes, axis: Literal["x", "y"] = "y") -> None:
    """Fits an axis of percentages to what is drawn, also in panels that share it, and ends it at 0."""
    ax.autoscale(axis=axis)
    low, high = ax.get_ylim() if axis == "y" else ax.get_xlim()
    (ax.set_ylim if axis == "y" else ax.set_xlim)(max(low, 0.0), high)


def legend(figure: Figure, handles: Mapping[str, Any], *, length: float = 2.2) -> None:
    """A legend below the panels, in as many columns as its labels leave room for; the figure grows by its height."""
    if not handles:
        return
    labels = [name(label, 55) for label in handles]
    widest = max(len(line) for label in labels for line in label.split("\n"))
    columns = max(1, min(5, len(labels), int(WIDTH * 72 / (widest * 3.7 + 6.5 * length + 10))))
    lines = sum(sorted((label.count("\n") + 1 for label in labels), reverse=True)[::columns])
    figure.set_figheight(figure.get_figheight() + lines * 0.125 + 0.08)
    figure.legend(
        list(handles.values()), labels, loc="outside lower center", ncols=columns, handlelength=length
    )


def handles(methods: Mapping[str, Look], *, lines: bool = True) -> dict[str, Line2D]:
    """What a legend shows of methods."""
    return {
        label: Line2D([], [], **(own.line() if lines else {**own.points(), "linestyle": "none"}))
        for label, own in methods.items()
    }


def name(text: str, width: int = 24) -> str:
    """A name as it is shown, in lines of at most `width` characters: no formula, no control character."""
    return "\n".join(folded(visible(renamed(text, _NAMES.get({}))), width)).replace("$", r"\$")


def rows(names: Sequence[str]) -> dict[str, float]:
    """Name -> the middle of its row on the y axis, the first one on top, in lines of text: long names take several."""
    places, lines = {}, 0.0
    for text in names:
        own = max(1.0, 0.75 * (name(text).count("\n") + 1))
        places[text] = lines + own / 2
        lines += own
    return places


def names_axis(ax: Axes, places: Mapping[str, float]) -> None:
    """Names at their rows of the y axis."""
    ax.set_yticks(list(places.values()), [name(text) for text in places], fontsize=SMALL)
    ax.set_ylim(row_lines(places), 0)
    ax.tick_params(axis="y", length=0)


def row_lines(places: Mapping[str, float]) -> float:
    """The lines of all rows together."""
    ends = [0.0]
    for place in places.values():
        ends.append(2 * place - ends[-1])
    return ends[-1]


def save(figure: Figure, path: Path) -> None:
    """Writes a figure in the format of the file's suffix, whole or not at all; the same figure gives the same bytes."""
    form = path.suffix.lstrip(".")
    more: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if form == "png" else {}
    with style(), files.atomic(path) as temporary:
        figure.savefig(temporary, format=form, metadata=DATELESS.get(form), **more)
