"""What a notebook asks for: the experiments in run folders, and their frame."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.report import frame as frames
from moextend.bench.report.collect import Experiment, collect, input_notes, lacking_notes, some
from moextend.bench.run.rundir import find_runs

if TYPE_CHECKING:
    from pandas import DataFrame

Runs = str | Path | Sequence[str | Path]
"""Runs or sequences: names or folders."""


def experiments(
    runs: Runs = (), *, workspace: str | Path = ".", unfinished: bool = False
) -> list[Experiment]:
    """The experiments that runs belong to, each of which is one table of `moextend bench report`.

    Args:
        runs: names of runs or sequences in the workspace, or folders; none: all runs of the workspace.
        workspace: the folder that holds `runs/`.
        unfinished: whether runs that are not done are taken in.

    Raises:
        UnknownName: no such run.  InputError: no run is done.
    """
    found = _experiments(runs, workspace, unfinished)
    _warn([f"left out: {name}" for experiment in found for name in experiment.left_out])
    return found


def frame(
    runs: Runs = (), *, workspace: str | Path = ".", items: bool = True, unfinished: bool = False
) -> DataFrame:
    """The results of runs as a pandas frame: a row an answered item, with its run and its cell.

    The columns are described in moextend.bench.report.frame.COLUMNS; `value` is the score of the cell in percent. What
    is left out or damaged is named in a warning.

    Args:
        runs: as `experiments` takes them.
        workspace: the folder that holds `runs/`.
        unfinished: whether runs that are not done are taken in.
        items: without, there is a row per cell, and no predictions are read.
    """
    found = _experiments(runs, workspace, unfinished)
    made = frames.frame(found, items=items)
    left_out = [f"left out: {name}" for experiment in found for name in experiment.left_out]
    notes = [
        note
        for experiment in found
        for note in (*input_notes(experiment), *lacking_notes(experiment.results))
    ]
    _warn([*left_out, *notes])
    return made


def _experiments(runs: Runs, workspace: str | Path, unfinished: bool) -> list[Experiment]:
    names = [runs] if isinstance(runs, str | Path) else runs
    known = find_runs(Path(workspace) / "runs", [str(name) for name in names])
    return some(collect(known, unfinished=unfinished))


def _warn(notes: Sequence[str]) -> None:
    """One warning, at the line of the notebook, that names all that is left out or damaged."""
    if notes:
        warnings.warn("; ".join(notes), stacklevel=3)
