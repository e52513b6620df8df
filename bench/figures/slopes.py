"""Text retention: the text scores of the base, and what is left of them after the last stage."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from moextend.bench.figures import style
from moextend.bench.figures.source import NothingToDraw, Source, groups, looks_of, over_runs
from moextend.bench.report.frame import summary
from moextend.bench.report.table import number

GAP = 0.115
"""Inches from one line of a label to the next."""
AROUND = 0.35
"""Inches of the figure above and below its axis."""


def text(results: DataFrame, ax: Axes) -> Axes:
    """Draws a slope a method from the mean text score of the base to that after the last stage, over seeds.

    Bars are standard deviations over runs; the number is the change in points.
    """
    looks, ends = looks_of(results), []
    for label, own in groups(summary(results)):
        before, _ = over_runs(own["text_before"])
        after, sd = over_runs(own["text_after"])
        change, _ = over_runs(own["text_change"])
        if before is None or after is None or change is None:
            continue
        ax.plot([0, 1], [before, after], label=label, **looks[label].line())
        if sd:
            ax.errorbar([1], [after], yerr=[sd], color=looks[label].color, elinewidth=0.7, capsize=1.5)
        ends.append((after, label, number(change, signed=True).text.replace("-", "−")))
    ax.set_xticks([0, 1], ["base", "last stage"])
    ax.set_xlim(-0.1, 1.05)
    ax.set_ylabel("text score (%)")
    style.percent(ax)
    _label_ends(ax, ends, {label: own.color for label, own in looks.items()})
    return ax


def _label_ends(ax: Axes, ends: list[tuple[float, str, str]], colors: dict[str, str]) -> None:
    """Names at the right of the slopes, moved apart where they would overlap, with a thin line to the end."""
    ends = sorted(ends, key=lambda end: end[0])
    names = [_named(label, change) for _, label, change in ends]
    low, high = ax.get_ylim()
    height = float(ax.figure.bbox.height) / float(ax.figure.dpi) - AROUND  # the layout is not made yet
    unit = (high - low) / height
    room = [GAP * unit * (name.count("\n") + 1) for name in names]
    places = apart([value for value, _, _ in ends], room, low, high)
    for (value, label, _), name, place in zip(ends, names, places, strict=True):
        ax.plot([1.02, 1.12], [value, place], color=colors[label], linewidth=0.5, clip_on=False)
        ax.text(1.14, place, name, color=colors[label], fontsize=style.SMALL, va="center", clip_on=False)
    ax.set_ylim(low, high)
    ax.set_yticks([tick for tick in ax.get_yticks() if low <= tick <= min(high, 100)])


def _named(label: str, change: str) -> str:
    return style.name(f"{label}  {change}", 28)


def apart(values: list[float], room: list[float], bottom: float, top: float) -> list[float]:
    """Places near sorted `values`, with `room` around each: pushed down from the top, then up from the bottom."""
    places = list(values)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], top - room[i] / 2)
        top = places[i] - room[i] / 2
    for i in range(len(places)):
        places[i] = max(places[i], bottom + room[i] / 2)
        bottom = places[i] + room[i] / 2
    return places


def figures(source: Source) -> list[Figure]:
    """One panel."""
    results = source.cells
    if not (results["role"] == "text").any():
        raise NothingToDraw(
            "no text task is scored.", where="text", hint="Add one to the sequence's `retention`."
        )
    lines = sum(_named(label, "−00.0").count("\n") + 1 for label in looks_of(results))
    drawn, (ax,) = style.panels(1, 1, max(2.2, AROUND + GAP * (lines + 1)))
    text(results, ax)
    return [drawn]
