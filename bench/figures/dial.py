"""Gain against forgetting: the last models with what they learned scaled (`bench run --also rewind`)."""

from __future__ import annotations

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moextend.bench import metrics
from moextend.bench.figures import style
from moextend.bench.figures.source import NothingToDraw, Source, label_looks, labelled
from moextend.bench.report.collect import Experiment, grouped
from moextend.bench.report.forgetting import summary
from moextend.bench.report.variants import Scored, dial

What = Literal["fm", "text_change"]
AXES: dict[What, str] = {"fm": "forgetting: FM (points)", "text_change": "Δ text (points)"}
"""Metrics of the dial -> their name at the axis."""

Curve = list[tuple[float, float, float]]
"""(strength, x, ACC), from the base on; means over seeds."""


def rewind(experiment: Experiment, what: What, ax: Axes) -> Axes:
    """Draws final accuracy (ACC) against forgetting or the change of text, a line per method and a marker per strength.

    The largest marker is the last model as it is, the smallest the base.
    """
    found = curves(experiment, what)
    looks = label_looks(list(grouped(experiment.of("sequence"))))
    for (method, order), curve in found.items():
        look = looks[labelled(method, order)]
        x, y = [point[1] for point in curve], [point[2] for point in curve]
        ax.plot(x, y, label=labelled(method, order), **look.line(), markersize=0, linewidth=0.8)
        for strength, one, other in curve:
            points = look.points() | {"markersize": 1.2 + 3.2 * strength}
            ax.plot([one], [other], linestyle="none", **points)
    ax.margins(0.06)
    style.percent(ax)
    ax.set_xlabel(AXES[what])
    return ax


def curves(experiment: Experiment, what: What) -> dict[tuple[str, str], Curve]:
    """(method, order) -> its curve, of the sequence runs; points without both metrics are left out."""
    found: dict[tuple[str, str], Curve] = {}
    for (mode, method, order), rows in dial(experiment, Scored.of(experiment)).items():
        if mode != "sequence":
            continue
        points = []
        for strength, runs in rows.items():
            known = [summary(run) for run in runs]
            x, _ = metrics.mean_and_sd(own[what] for own in known)
            y, _ = metrics.mean_and_sd(own["acc"] for own in known)
            points += [(strength, x, y)] if x is not None and y is not None else []
        if points:
            found[method, order] = points
    return found


def figures(source: Source) -> list[Figure]:
    """Forgetting and the change of text, side by side, as far as they are known."""
    shown = [what for what in AXES if curves(source.experiment, what)]
    if not shown:
        raise NothingToDraw(
            "no run is scored with its learned change scaled.",
            where="rewind",
            hint="Score the last models: moextend bench run --also rewind.",
        )
    drawn, axes = style.panels(len(shown), 2, 2.0, sharey=True)
    for what, ax in zip(shown, axes, strict=True):
        rewind(source.experiment, what, ax)
    axes[0].set_ylabel("ACC (%)")
    known = {labelled(*pair) for pair in curves(source.experiment, shown[0])}
    looks = label_looks(list(grouped(source.experiment.of("sequence"))))
    style.legend(drawn, style.handles({label: own for label, own in looks.items() if label in known}))
    return [drawn]
