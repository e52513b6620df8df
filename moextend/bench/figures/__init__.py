"""Run folders -> figures for a paper: one column wide, as PDF, PNG or SVG.

Every figure is a function that takes results (a frame or an experiment, see moextend.bench) and a matplotlib Axes,
draws into it and returns it; `figure` of its module makes the whole figure. docs/figures.md shows them.
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
from moextend.bench.figures.source import NothingToDraw, Source
from moextend.bench.figures.stages import accuracy
from moextend.bench.figures.style import save, style
from moextend.util import lookup

__all__ = [
    "FIGURES", "FORMATS", "NothingToDraw", "Source", "accuracy", "cost", "draw", "flows", "forest", "matrix",
    "plasticity", "routing", "save", "style",
]  # fmt: skip

FIGURES: dict[str, Callable[[Source], Figure]] = {
    "accuracy": stages.figure,
    "matrix": heatmap.figure,
    "plasticity": scatter.figure,
    "forest": differences.figure,
    "flows": bands.figure,
    "routing": layers.figure,
    "cost": pareto.figure,
}
"""Name -> what makes the figure."""
FORMATS = ("pdf", "png", "svg")


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
        return FIGURES[name](source)
