"""Accuracy on a task over the stages, one line per method."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from moextend.bench import metrics
from moextend.bench.figures import style
from moextend.bench.figures.source import NothingToDraw, Source, groups, looks_of
from moextend.bench.report.looks import GREY

TEXT = "text"
"""Stands for the mean over the text tasks."""


def accuracy(results: DataFrame, task: str, ax: Axes) -> Axes:
    """Draws the score of `task` after every stage: mean over seeds, and a band of one standard deviation.

    A dotted line marks the stage at which the task is learned. `task` "text" is the mean over the text tasks.
    """
    looks = looks_of(results)
    for label, own in groups(results):
        stages, mean, sd = over_seeds(own, task)
        ax.plot(stages, mean, label=label, clip_on=False, **looks[label].line())
        band = np.clip([mean - sd, mean + sd], 0, 100)
        ax.fill_between(stages, *band, color=looks[label].color, alpha=0.15, linewidth=0)
    learned_at = results.loc[results["task"] == task, "learned_at"]
    for stage in sorted(set(learned_at) - {0}):
        ax.axvline(stage, color=GREY, linestyle=":", linewidth=0.7, zorder=0)
    last = int(results["stage"].max())
    ax.set_xticks(range(0, last + 1, style.step(last)))
    style.percent(ax)
    ax.set_title("mean of text tasks" if task == TEXT else style.name(task, 26))
    return ax


def over_seeds(results: DataFrame, task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stages, and the mean and standard deviation over runs after each; NaN where a run lacks a cell, 0 for one run."""
    own = results[results["role"] == "text"] if task == TEXT else results[results["task"] == task]
    own = own.drop_duplicates(["run", "stage", "task"])
    runs = own.pivot_table(index="stage", columns="run", values="value", aggfunc="mean", observed=True)
    found = [metrics.mean_and_sd(None if v != v else float(v) for v in row) for row in runs.to_numpy()]
    mean = np.array([np.nan if mean is None else mean for mean, _ in found])
    return runs.index.to_numpy(), mean, np.array([sd or 0.0 for _, sd in found])


def figure(source: Source) -> Figure:
    """A panel a learned task, and one for the mean over the text tasks."""
    results = source.cells
    learned = results[results["role"] == "learned"]
    tasks = [str(task) for task in learned.sort_values(["order", "learned_at"])["task"].drop_duplicates()]
    if not tasks:
        raise NothingToDraw("no sequence run has scores.", where="accuracy", hint="Run a sequence first.")
    tasks += [TEXT] * bool((results["role"] == "text").any())
    columns = 2 if len(tasks) <= 12 else 3
    drawn, axes = style.panels(len(tasks), columns, 1.15, sharex=True, sharey=True)
    for task, ax in zip(tasks, axes, strict=True):
        accuracy(results, task, ax)
        ax.grid(axis="y")
    style.outer(axes, columns, "after stage", "accuracy (%)")
    style.legend(drawn, style.handles(looks_of(results)))
    return drawn
