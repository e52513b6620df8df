"""Text retention: the text scores of the base, and what is left of them after the last stage."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from moextend.bench.figures import style
from moextend.bench.figures.source import NothingToDraw, Source, groups, looks_of, over_runs
from moextend.bench.report.frame import summary
from moextend.bench.report.table import number


def text(results: DataFrame, ax: Axes) -> Axes:
    """Draws a slope a method from the mean text score of the base to that after the last stage, over seeds.

    Bars are standard deviations over runs.
    """
    looks = looks_of(results)
    for label, own in groups(summary(results)):
        before, _ = over_runs(own["text_before"])
        after, sd = over_runs(own["text_after"])
        if before is None or after is None:
            continue
        ax.plot([0, 1], [before, after], label=label, **looks[label].line())
        if sd:
            ax.errorbar([1], [after], yerr=[sd], color=looks[label].color, elinewidth=0.7, capsize=1.5)
    ax.set_xticks([0, 1], ["base", "last stage"])
    ax.set_xlim(-0.1, 1.1)
    ax.set_ylabel("text score (%)")
    style.percent(ax)
    return ax


def figures(source: Source) -> list[Figure]:
    """One panel; the legend has the changes in points."""
    results = source.cells
    if not (results["role"] == "text").any():
        raise NothingToDraw(
            "no text task is scored.", where="text", hint="Add one to the sequence's `retention`."
        )
    drawn, (ax,) = style.panels(1, 1, 2.2)
    text(results, ax)
    changes = {label: over_runs(own["text_change"])[0] for label, own in groups(summary(results))}
    marks = style.handles(looks_of(results))
    style.legend(
        drawn, {f"{label}  {number(changes[label], signed=True).text}": one for label, one in marks.items()}
    )
    return [drawn]
