"""Accuracy on a task over the stages, one line per method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moextend.bench import metrics
from moextend.bench.figures import style
from moextend.bench.figures.source import Source, groups, looks_in
from moextend.bench.report.collect import Experiment, Result
from moextend.bench.report.looks import GREY

TEXT = "text"
"""Stands for the mean over the text tasks."""


def accuracy(experiment: Experiment, task: str, ax: Axes) -> Axes:
    """Draws the score of `task` after every stage: mean over seeds, and a band of one standard deviation.

    A dotted line marks the stage at which the task is learned. `task` "text" is the mean over the text tasks.
    """
    found, looks = groups(experiment), looks_in(experiment)
    learned_at, last = set[int](), 0
    for label, group in found.items():
        tasks, stages = group[0].tasks, range(group[0].last + 1)
        mean, sd = over_runs(group, task)
        ax.plot(stages, mean, label=label, clip_on=False, **looks[label].line())
        band = np.clip([mean - sd, mean + sd], 0, 100)
        ax.fill_between(stages, *band, color=looks[label].color, alpha=0.15, linewidth=0)
        learned_at |= {tasks.index(task) + 1} if task in tasks else set()
        last = max(last, group[0].last)
    for stage in sorted(learned_at):
        ax.axvline(stage, color=GREY, linestyle=":", linewidth=0.7, zorder=0)
    ax.set_xticks(range(0, last + 1, style.step(last)))
    style.percent(ax)
    ax.set_title("mean of text tasks" if task == TEXT else style.name(task, 26))
    return ax


def over_runs(group: Sequence[Result], task: str) -> tuple[np.ndarray, np.ndarray]:
    """[stages] mean and standard deviation over runs; NaN where a run lacks a score, 0 for one run."""
    tasks = group[0].text if task == TEXT else [task]
    found = [
        metrics.mean_and_sd(metrics.average(result.row(stage, tasks)) for result in group)
        for stage in range(group[0].last + 1)
    ]
    mean, sd = np.array(found, float).T
    return mean, np.nan_to_num(sd)


def figure(source: Source) -> Figure | None:
    """A panel a learned task, and one for the mean over the text tasks."""
    runs = [result for group in groups(source.experiment).values() for result in group]
    tasks = list(dict.fromkeys(task for result in runs for task in result.tasks))
    if not tasks:
        return None
    tasks += [TEXT] * any(result.text for result in runs)
    columns = 2 if len(tasks) <= 12 else 3
    drawn, axes = style.panels(len(tasks), columns, 1.15, sharex=True, sharey=True)
    for task, ax in zip(tasks, axes, strict=True):
        accuracy(source.experiment, task, ax)
        ax.grid(axis="y")
    style.outer(axes, columns, "after stage", "accuracy (%)")
    style.legend(drawn, style.handles(looks_in(source.experiment)))
    return drawn
