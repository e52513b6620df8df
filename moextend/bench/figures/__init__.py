"""Run folders -> figures for a paper: one column wide, as PDF, PNG or SVG.

Every figure is a function that takes an experiment (see moextend.bench) and a matplotlib Axes, draws into it and
returns it; `figure` of its module makes the whole figure, None where the runs do not have what it shows.
docs/figures.md shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from moextend.bench.figures import (
    bands,
    differences,
    heatmap,
    layers,
    pareto,
    scatter,
    stages,
)
from moextend.bench.figures.bands import flows
from moextend.bench.figures.differences import forest
from moextend.bench.figures.heatmap import matrix
from moextend.bench.figures.layers import routing
from moextend.bench.figures.pareto import cost
from moextend.bench.figures.scatter import plasticity
from moextend.bench.figures.source import Source
from moextend.bench.figures.stages import accuracy
from moextend.bench.figures.style import save, style
from moextend.errors import InputError
from moextend.util import lookup

__all__ = [
    "FIGURES", "FORMATS", "NothingToDraw", "Source", "accuracy", "cost", "draw", "flows", "forest", "matrix",
    "plasticity", "routing", "save", "style",
]  # fmt: skip

FIGURES: dict[str, Callable[[Source], Figure | None]] = {
    "accuracy": stages.figure,
    "matrix": heatmap.figure,
    "plasticity": scatter.figure,
    "forest": differences.figure,
    "flows": bands.figure,
    "routing": layers.figure,
    "cost": pareto.figure,
}
"""Name -> what makes the figure."""
NO_SCORES = ("no sequence run has scores.", "Run a sequence first.")
NOTHING = {
    "accuracy": NO_SCORES,
    "matrix": NO_SCORES,
    "plasticity": (
        "no run learned two tasks.",
        "Stability needs a sequence of at least two stages.",
    ),
    "forest": ("no method shares a seed with {baseline}.", "Name another --baseline METHOD."),
    "flows": (
        "the items of the learned tasks have no scores of their own, or these are not stored.",
        "Use a scorer that scores each item alone, and keep the folder predictions, or items.json of a pack.",
    ),
    "routing": (
        "no run has records of its routing.",
        "Routing is recorded while a sequence is trained, on a base with experts.",
    ),
    "cost": ("no run has records of its costs.", "Costs are recorded while a stage is trained."),
}
"""Figure -> why it is not made where the runs do not have what it shows, and the hint."""
FORMATS = ("pdf", "png", "svg")


class NothingToDraw(InputError):
    """The runs do not have what a figure shows."""


def chosen(names: Sequence[str]) -> list[str]:
    """The figures of these names, all where there is none; UnknownName for one that does not exist."""
    for name in names:
        lookup.choose("figure", name, FIGURES, where="--only")
    return list(names or FIGURES)


def draw(name: str, source: Source) -> Figure:
    """The figure of a name.

    Raises:
        NothingToDraw: the runs do not have what it shows.
    """
    with style(source.names):
        drawn = FIGURES[name](source)
    if drawn is None:
        what, hint = NOTHING[name]
        raise NothingToDraw(what.format(baseline=source.compared_with), where=name, hint=hint)
    return drawn
