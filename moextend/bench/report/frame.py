"""One tidy frame of results: a row an answered item, with the run and the cell that it belongs to; and its files.

pandas is imported where a frame is asked for: tables are made without it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from moextend.bench.report.collect import (
    Experiment,
    Result,
    collect,
    input_notes,
    lacking_notes,
    some,
)
from moextend.bench.report.formats.csv import words
from moextend.bench.report.items import AnswerReader, Answers
from moextend.bench.run.rundir import find_runs
from moextend.bench.score.lines import NONE
from moextend.errors import InputError
from moextend.util import files, lookup

if TYPE_CHECKING:
    from numpy import ndarray
    from pandas import DataFrame

    Array = ndarray[Any, Any]

COLUMNS = {
    "sequence": "The sequence; with a digest of the settings, where experiments of one sequence differ in them.",
    "run": "Name of the run's folder; its path where two runs of an experiment have one name.",
    "method": "The method with its settings.",
    "seed": "Seed of the run.",
    "order": "Order of the stages: given, reverse or random:K, the name of a drawn order.",
    "mode": "sequence, independent or joint.",
    "stage": "Stage after which the cell was scored; 0 is the base.",
    "task": "The task.",
    "role": "learned; text or transfer for tasks that are only scored.",
    "learned_at": "Stage at which the run learns the task; 0 for tasks that are only scored.",
    "kind": "Kind of question, or task of a group of text tasks.",
    "item": "Id of the item in its task. Missing in the one row of a cell whose items are not kept.",
    "group": "What the items of one image share.",
    "answer": "What the model answered.",
    "score": "Score of the item as the scorer counts, 0..1 for most; missing where items are scored together only.",
    "value": "Score of the cell in percent: in every row of the cell. Error rates weigh the items by their words.",
    "stderr": "Standard error of `value` over items, in points.",
    "n": "Items of the cell.",
    "weights": "Fingerprint of the weights that answered.",
    "scorer": "Name and version of the rule that made the scores.",
}
"""Column -> what it holds."""

Runs = str | Path | Sequence[str | Path]
"""Runs or sequences: names or folders."""
FORMATS = ("csv", "parquet")
"""Formats of items."""
ROWS = 1 << 14
"""Rows that are text in memory at once."""
ITEM = ("kind", "item", "group", "answer", "score")
"""Columns that differ between the rows of a cell."""
NUMBERS = {
    "seed": "int64", "stage": "int16", "learned_at": "int16", "n": "int32", "score": "float64", "value": "float64",
    "stderr": "float64",
}  # fmt: skip
"""Columns of numbers -> their type; all others are categories."""


def frame(experiments: Sequence[Experiment], *, items: bool = True) -> DataFrame:
    """The results of experiments; see COLUMNS.

    Args:
        items: whether there is a row per item. Without, there is a row per cell, with its items' columns missing, and
            no predictions are read. A cell whose predictions are not kept has such a row in both cases.
    """
    import pandas as pd

    reader = AnswerReader()
    rows = [
        (label, run, result, key) for label, run, result in _runs(experiments) for key in in_order(result)
    ]
    answers = [reader(result, result.cells[key]) if items else None for _, _, result, key in rows]
    counts = np.array([len(one) if one else 1 for one in answers], np.int64)
    cells = [_cell(label, run, result, *key) for label, run, result, key in rows]
    named = [name for name in COLUMNS if name not in ITEM]
    columns = {name: [cell[place] for cell in cells] for place, name in enumerate(named)}
    made = {
        name: _item_column(name, answers, reader)
        if name in ITEM
        else _cell_column(name, columns[name], counts)
        for name in COLUMNS
    }
    return pd.DataFrame(made, copy=False)


def _runs(experiments: Sequence[Experiment]) -> Iterator[tuple[str, str, Result]]:
    """Every run with the names of its experiment and of itself."""
    for experiment in experiments:
        twice = Counter(result.name for result in experiment.results)
        for result in experiment.results:
            yield experiment.label, str(result.run.folder) if twice[result.name] > 1 else result.name, result


def in_order(result: Result) -> list[tuple[int, str]]:
    """The cells by stage, and the tasks of each as the sequence has them."""
    place = {task: i for i, task in enumerate([*result.tasks, *result.text, *result.config.transfer])}
    return sorted(result.cells, key=lambda key: (key[0], place.get(key[1], len(place)), key[1]))


def _cell(label: str, run: str, result: Result, stage: int, task: str) -> tuple[Any, ...]:
    config, cell = result.config, result.cells[stage, task]
    roles = {"learned": result.tasks, "text": result.text, "transfer": config.transfer}
    role = next((name for name, tasks in roles.items() if task in tasks), "other")
    learned_at = result.tasks.index(task) + 1 if role == "learned" else 0
    if config.mode == "joint":
        learned_at = min(learned_at, 1)
    own = (label, run, config.method, config.seed, config.order, config.mode, stage, task, role, learned_at)
    return (*own, cell.value, cell.stderr, cell.n, cell.weights, cell.scorer)


def _cell_column(name: str, values: Sequence[Any], counts: Array) -> Any:
    """A column of values of cells, each repeated for its items."""
    import pandas as pd

    if name in NUMBERS:
        return np.repeat(np.array(values, NUMBERS[name]), counts)
    one = pd.Categorical(values, categories=list(dict.fromkeys(values)))
    return pd.Categorical.from_codes(np.repeat(one.codes, counts), dtype=one.dtype)


def _item_column(name: str, answers: Sequence[Answers | None], reader: AnswerReader) -> Any:
    """A column of values of items; one missing value for a cell without answers."""
    import pandas as pd

    missing, kind = (np.nan, "float64") if name == "score" else (NONE, "int32")
    parts = [getattr(one, name) if one else np.array([missing], kind) for one in answers]
    values = np.concatenate([np.array([], kind), *parts])
    if name == "score":
        return values
    return pd.Categorical.from_codes(values, pd.Index(getattr(reader, name).words(), dtype="str"))


def read_experiments(
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


def read_frame(
    runs: Runs = (), *, workspace: str | Path = ".", items: bool = True, unfinished: bool = False
) -> DataFrame:
    """The results of runs as a pandas frame: a row an answered item, with its run and its cell.

    The columns are described in COLUMNS; `value` is the score of the cell in percent. What
    is left out or damaged is named in a warning.

    Args:
        runs: as `read_experiments` takes them.
        workspace: the folder that holds `runs/`.
        unfinished: whether runs that are not done are taken in.
        items: without, there is a row per cell, and no predictions are read.
    """
    found = _experiments(runs, workspace, unfinished)
    made = frame(found, items=items)
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


def check_format(form: str, out: Path | None) -> None:
    """Checks what is to be written before results are read.

    Raises:
        UnknownName: no such format.  InputError: Parquet, which is no text, without a file.
    """
    lookup.choose("format of items", form, dict.fromkeys(FORMATS), where="--format")
    if form == "parquet" and out is None:
        raise InputError(
            "parquet cannot be printed.", where="--format parquet", hint="Name a file: --out items.parquet."
        )


def write(results: DataFrame, form: str, out: Path | IO[str]) -> None:
    """Writes a frame to a file, whole or not at all, or as CSV to a stream."""
    if not isinstance(out, Path):
        _csv(results, out)
        return
    with files.atomic(out) as temporary:
        if form == "parquet":
            results.to_parquet(temporary, index=False)
        else:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                _csv(results, file)


def _csv(results: DataFrame, out: IO[str]) -> None:
    """Categories as `words`, so that no spreadsheet takes an answer for a formula; numbers unrounded."""
    for start in range(0, max(len(results), 1), ROWS):
        rows = results.iloc[start : start + ROWS].copy()
        for name in rows.columns.difference(list(NUMBERS)):
            rows[name] = rows[name].astype(object).map(words, na_action="ignore")
        out.write(rows.to_csv(index=False, header=not start, lineterminator="\n"))
