"""One tidy frame of results: a row an answered item, with the run and the cell that it belongs to.

pandas is imported where a frame is asked for: tables are made without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from moextend.bench.report.answers import NONE, AnswerReader, Answers
from moextend.bench.report.collect import Experiment, Result
from moextend.bench.report.forgetting import run_metrics

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = {
    "sequence": "The sequence; with what differs, where experiments of one sequence differ in their settings.",
    "run": "Name of the run's folder; its path where two runs of an experiment have one name.",
    "method": "The method with its settings.",
    "seed": "Seed of the run.",
    "order": "Order of the stages: given, reverse or random:N.",
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

ITEM = ("kind", "item", "group", "answer", "score")
"""Columns that differ between the rows of a cell."""
CELL = ("sequence", "run", "stage", "task")
"""Columns that name a cell."""
NUMBERS = {
    "seed": "int64", "stage": "int16", "learned_at": "int16", "n": "int32", "score": "float64", "value": "float64",
    "stderr": "float64",
}  # fmt: skip
"""Columns of numbers -> their type; all others are categories."""


def frame(experiments: Sequence[Experiment], *, items: bool = True) -> DataFrame:
    """The results of experiments; see COLUMNS.

    Args:
        items: whether there is a row an item. Without, there is a row a cell, with its items' columns missing, and
            no predictions are read. A cell whose predictions are not kept has such a row in both cases.
    """
    import numpy as np
    import pandas as pd

    reader, names = AnswerReader(), [name for name in COLUMNS if name not in ITEM]
    rows, found = list[tuple[Any, ...]](), list[Answers | None]()
    for label, run, result in _runs(experiments):
        for stage, task in in_order(result):
            cell = result.cells[stage, task]
            rows.append(_cell(label, run, result, stage, task))
            found.append(reader(result, cell) if items else None)
    cells = pd.DataFrame({name: _column(name, [row[i] for row in rows]) for i, name in enumerate(names)})
    if items:
        counts = [len(answers) if answers else 1 for answers in found]
        cells = cells.take(np.repeat(np.arange(len(rows)), counts)).reset_index(drop=True)
    return cells.assign(**_item_columns(reader, found))[list(COLUMNS)]


def cells(results: DataFrame) -> DataFrame:
    """A row a cell of the matrix, without the columns of items."""
    return results.drop_duplicates(list(CELL)).drop(columns=list(ITEM)).reset_index(drop=True)


def matrix(results: DataFrame) -> DataFrame:
    """A[stage][task] of one run: its learned tasks in learning order, stages from 0 on; NaN where not scored."""
    own = results[results["role"] == "learned"].drop_duplicates(["stage", "task"])
    order = own.drop_duplicates("task").sort_values("learned_at")["task"].astype(str)
    found = own.assign(task=own["task"].astype(str)).pivot(index="stage", columns="task", values="value")
    stages = range(max([len(order), *found.index]) + 1)
    return found.reindex(index=stages, columns=list(order)).rename_axis(columns="task")


def summary(results: DataFrame) -> DataFrame:
    """A row a run: the metrics of the forgetting table, unrounded; missing where a cell is not scored."""
    import pandas as pd

    names = ["sequence", "run", "method", "seed", "order", "mode"]
    found = []
    for _, own in cells(results).groupby(["sequence", "run"], observed=True, sort=False):
        first, last = own.iloc[0], int(own["stage"].max())
        a, text = matrix(own), own[own["role"] == "text"].pivot(index="stage", columns="task", values="value")
        rows = text.dropna(axis="columns", how="all").reindex([0, last])
        before, after = (_known(row) for row in rows.to_numpy())
        metrics = run_metrics(
            [_known(row) for row in a.to_numpy()],
            _known(a.loc[last]),
            before,
            after,
            joint=first["mode"] == "joint",
        )
        found.append({name: first[name] for name in names} | metrics)
    made = pd.DataFrame(found)
    return made.astype({name: "float64" for name in made if name not in names})


def _known(values: Any) -> list[float | None]:
    return [None if value != value else float(value) for value in values]


def _runs(experiments: Sequence[Experiment]) -> Iterator[tuple[str, str, Result]]:
    """Every run with the names of its experiment and of itself."""
    for experiment in experiments:
        label = f"{experiment.name} ({experiment.differs})" if experiment.differs else experiment.name
        twice = Counter(result.name for result in experiment.results)
        for result in experiment.results:
            yield label, str(result.run.folder) if twice[result.name] > 1 else result.name, result


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


def _column(name: str, values: list[Any]) -> Any:
    import pandas as pd

    if name in NUMBERS:
        return pd.Series(values, dtype=NUMBERS[name])
    return pd.Categorical(values, categories=list(dict.fromkeys(values)))


def _item_columns(reader: AnswerReader, found: Sequence[Answers | None]) -> dict[str, Any]:
    import numpy as np
    import pandas as pd

    def joined(name: str, missing: float, kind: str) -> Any:
        parts = [getattr(answers, name) if answers else np.array([missing], kind) for answers in found]
        return np.concatenate([np.array([], kind), *parts])

    columns = {
        name: pd.Categorical.from_codes(joined(name, NONE, "int32"), getattr(reader, name).words())
        for name in ("kind", "item", "group", "answer")
    }
    return {**columns, "score": joined("score", np.nan, "float64")}
