"""Paired differences to a baseline, with intervals and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moextend.bench.figures import style
from moextend.bench.figures.source import Source, looks_in
from moextend.bench.report.collect import TITLES, Experiment
from moextend.bench.report.looks import BLACK
from moextend.bench.report.notes import UNTOUCHED
from moextend.bench.report.table import Value
from moextend.bench.report.views import MARGIN
from moextend.bench.report.views.comparison import NOT_KEPT, comparison_table

SHOWN = (TITLES["acc"], TITLES["text_change"])
"""Metrics of the figure."""
SURE = ("better", "worse")

Row = Mapping[str, Value]


def forest(experiment: Experiment, baseline: str, ax: Axes) -> Axes:
    """Draws every method less the baseline in ACC: the difference and its interval, as `--baseline` prints them.

    Filled markers: better or worse; open ones: equivalent, undecided or from one seed only. The band is the margin.
    """
    return _forest(ax, comparison_table(experiment, baseline).records, experiment, TITLES["acc"])


def _forest(ax: Axes, found: Sequence[Row], experiment: Experiment, metric: str) -> Axes:
    looks, places = looks_in(experiment), _places(found)
    ax.axvspan(-MARGIN, MARGIN, color="#eeeeee", linewidth=0, zorder=0)
    ax.axvline(0, color=BLACK, linewidth=0.6, zorder=1)
    for row in found:
        value, own, y = row["difference"].number, looks[row["method"].words], places[row["method"].text]
        if row["metric"].text != metric or value is None:
            continue
        low, high = row["low"].number, row["high"].number
        if low is not None and high is not None:
            ax.plot([low, high], [y, y], color=own.color, linewidth=1.0, solid_capstyle="butt")
        face = own.color if row["verdict"].text in SURE else "white"
        ax.plot([value], [y], linestyle="none", **{**own.points(), "markerfacecolor": face}, markersize=4.5)
        if UNTOUCHED in row["difference"].after:
            ax.annotate(UNTOUCHED, (value, y), (4, 0), textcoords="offset points", fontsize=style.SMALL)
    style.names_axis(ax, places)
    ax.set_xlabel(f"{metric} (points)")
    ax.spines["left"].set_visible(False)
    return ax


def _places(found: Sequence[Row]) -> dict[str, float]:
    return style.rows(list(dict.fromkeys(row["method"].text for row in found)))


def figure(source: Source) -> Figure | None:
    """ACC and the change of text, side by side."""
    experiment, baseline = source.experiment, source.compared_with
    table = comparison_table(experiment, baseline)
    found = [row for row in table.records if row["difference"].number is not None]
    shown = [metric for metric in SHOWN if any(row["metric"].text == metric for row in found)]
    if not shown:
        return None
    drawn, axes = style.panels(len(shown), len(shown), 1.0, sharey=True)
    for ax, metric in zip(axes, shown, strict=True):
        _forest(ax, found, experiment, metric)
        ax.grid(axis="x")
    drawn.set_figheight(0.85 + 0.15 * style.row_lines(_places(found)))
    drawn.suptitle(style.name(f"difference from {baseline}", 60))
    notes = "lines: 95% intervals of all tests together;\nfilled: better or worse; grey band: no difference"
    if any(row["verdict"].text == NOT_KEPT for row in found):
        notes += f";\nno line: {NOT_KEPT}"
    if any(UNTOUCHED in row["difference"].after for row in found):
        notes += f";\n{UNTOUCHED}: by construction"
    drawn.supxlabel(notes, fontsize=style.SMALL)
    return drawn
