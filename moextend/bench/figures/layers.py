"""Routing by layer: which tokens reach a task's own new experts, and how far routing has drifted."""

from __future__ import annotations

from statistics import fmean
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moextend.bench.figures import style
from moextend.bench.figures.source import Source, groups, looks_in
from moextend.bench.report.collect import Experiment, Result

What = Literal["share", "drift"]
TITLES: dict[What, str] = {
    "share": "tokens that reach\nown experts (%)", "drift": "drift of routing\n(KL, thousandths of a nat)",
}  # fmt: skip


def routing(experiment: Experiment, what: What, ax: Axes) -> Axes:
    """Draws a line per method over the layers, after the last stage: mean over learned tasks and runs.

    Args:
        what: "share", per cent of a task's tokens that reach the new experts that the task was given, or "drift", the
            divergence of the task's choices of experts from those at the stage where it was learned.
    """
    found, looks = by_layer(experiment, what), looks_in(experiment)
    for label, values in found.items():
        ax.plot(range(len(values)), values, label=label, **looks[label].line())
    layers = max((len(values) for values in found.values()), default=1)
    ax.set_xticks(range(0, layers, style.step(layers - 1)))
    ax.set_title(TITLES[what])
    ax.set_ylim(0, 105 if what == "share" else None)
    ax.set_xlabel("layer")
    return ax


def by_layer(experiment: Experiment, what: What) -> dict[str, np.ndarray]:
    """Label -> [layers]; NaN where a layer has no such experts. Methods of which nothing is known are left out."""
    found = {}
    for label, group in groups(experiment).items():
        rows = [row for result in group for row in _rows(result, what)]
        known = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
        if any(known):
            found[label] = np.array([fmean(own) if own else np.nan for own in known])
    return found


def _rows(result: Result, what: What) -> list[list[float | None]]:
    """[tasks][layers] of one run after its last stage."""
    report = result.run.routing().get(result.last)
    tasks = report.tasks if report else {}
    rows: list[list[float | None]] = []
    for name in (name for name in result.tasks if name in tasks):
        if what == "drift":
            rows.append([1000 * kl for kl in tasks[name].drift or []])
        else:
            shares = [block.get(name) for block in tasks[name].reached]
            rows.append([None if share is None else 100 * share for share in shares])
    return [row for row in rows if row]


def figure(source: Source) -> Figure | None:
    """Share and drift, side by side."""
    experiment = source.experiment
    shown = {what: found for what in TITLES if (found := by_layer(experiment, what))}
    if not shown:
        return None
    drawn, axes = style.panels(len(shown), 2, 1.5)
    for what, ax in zip(shown, axes, strict=True):
        routing(experiment, what, ax)
        ax.grid(axis="y")
    labels = {label for found in shown.values() for label in found}
    looks = looks_in(experiment)
    style.legend(drawn, style.handles({label: own for label, own in looks.items() if label in labels}))
    return drawn
