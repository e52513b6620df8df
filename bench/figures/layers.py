"""Routing by layer: which tokens reach a task's own new experts, and how far routing has drifted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moextend.bench.figures import style
from moextend.bench.figures.source import NothingToDraw, Source, label_looks, labelled
from moextend.bench.report.collect import Experiment, Result, grouped

if TYPE_CHECKING:
    from moextend.bench.run.records import RoutingReport, TaskRouting

What = Literal["share", "drift"]
TITLES: dict[What, str] = {
    "share": "tokens that reach\nown experts (%)", "drift": "drift of routing\n(KL, thousandths of a nat)",
}  # fmt: skip


def routing(experiment: Experiment, what: What, ax: Axes, *, task: str | None = None) -> Axes:
    """Draws a line per method over the layers, after the last stage: mean over learned tasks and runs.

    Args:
        what: "share", per cent of a task's tokens that reach the new experts that the task was given, or "drift", the
            divergence of the task's choices of experts from those at the stage where it was learned.
        task: one learned task instead of the mean.
    """
    found = by_layer(experiment, what, task)
    looks = label_looks(list(grouped(experiment.of("sequence"))))
    for label, values in found.items():
        ax.plot(range(len(values)), values, label=label, **looks[label].line())
    layers = max((len(values) for values in found.values()), default=1)
    ax.set_xticks(range(0, layers, style.step(layers - 1)))
    ax.set_title(TITLES[what])
    ax.set_ylim(0, 105 if what == "share" else None)
    ax.set_xlabel("layer")
    return ax


def by_layer(experiment: Experiment, what: What, task: str | None = None) -> dict[str, np.ndarray]:
    """Label -> [layers]; NaN where a layer has no such experts. Methods of which nothing is known are left out."""
    found = {}
    for (method, order), group in grouped(experiment.of("sequence")).items():
        rows = [row for result in group for row in _rows(result, what, task)]
        if rows and any(value is not None for row in rows for value in row):
            values = np.array([[np.nan if value is None else value for value in row] for row in rows])
            known = ~np.isnan(values)
            total = np.where(known, values, 0).sum(0)
            found[labelled(method, order)] = np.where(
                known.any(0), total / np.maximum(known.sum(0), 1), np.nan
            )
    return found


def _rows(result: Result, what: What, task: str | None) -> list[list[float | None]]:
    """[tasks][layers] of one run after its last stage."""
    report: RoutingReport | None = result.run.routing().get(result.last)
    known = report.tasks if report else {}
    read: dict[What, Callable[[str, TaskRouting], Sequence[float | None]]] = {
        "share": lambda name, own: [_percent(block.get(name)) for block in own.reached],
        "drift": lambda _, own: [1000 * kl for kl in own.drift or []],
    }
    rows = [read[what](name, known[name]) for name in result.tasks if name in known and task in (None, name)]
    return [list(row) for row in rows if row]


def _percent(part: float | None) -> float | None:
    return None if part is None else 100 * part


def figures(source: Source) -> list[Figure]:
    """Share and drift, one below the other."""
    experiment = source.experiment
    shown = {what: found for what in TITLES if (found := by_layer(experiment, what))}
    if not shown:
        raise NothingToDraw(
            "no run has records of its routing.",
            where="routing",
            hint="Routing is recorded while a sequence is trained, on a base with experts.",
        )
    drawn, axes = style.panels(len(shown), 2, 1.5)
    for what, ax in zip(shown, axes, strict=True):
        routing(experiment, what, ax)
        ax.grid(axis="y")
    looks = label_looks(list(grouped(experiment.of("sequence"))))
    labels = {label for found in shown.values() for label in found}
    style.legend(drawn, style.handles({label: own for label, own in looks.items() if label in labels}))
    return [drawn]
