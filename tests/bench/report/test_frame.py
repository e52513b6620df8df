"""The frame of results: what it holds, and that tables say the same numbers."""

import csv
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas import DataFrame

from moextend import bench
from moextend.bench.report import render, tables
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.frame import COLUMNS, NUMBERS, frame
from moextend.bench.run.rundir import RunDir
from tests.bench import ledger
from tests.bench.report.conftest import METHODS, SEEDS

CELL = ["run", "stage", "task"]
"""Columns that name a cell."""


@pytest.fixture
def one(tmp_path: Path) -> RunDir:
    """A run of its own, to be damaged."""
    return ledger.write_run(
        tmp_path / "runs", ledger.Shape(stages=2, texts=1, items=10), "lora", 0, ledger.Kind()
    )


def predictions(folder: Path, task: str) -> list[Path]:
    """The files of the answers to a task, a stage each."""
    return [
        path for path in sorted(folder.glob(f"predictions/*/{task}-*.jsonl")) if "scores" not in path.name
    ]


def test_the_columns_and_their_types(results: DataFrame) -> None:
    assert list(results) == list(COLUMNS)
    for name in COLUMNS:
        assert str(results[name].dtype) == NUMBERS.get(name, "category")
    assert len(results) == len(METHODS) * len(SEEDS) * 4 * 5 * 40
    assert results[["item", "answer", "score", "value", "weights", "scorer"]].notna().all(axis=None)
    assert results.memory_usage(deep=True).sum() / len(results) < 120, "words are kept once"


def test_an_item_is_what_was_predicted(results: DataFrame, runs: Path) -> None:
    path = predictions(runs / "ledger" / "lora-s1", "task2")[0]
    weights = path.parent.name
    own = results[
        (results["run"] == "lora-s1") & (results["task"] == "task2") & (results["weights"] == weights)
    ]
    own = own.set_index("item")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 40
    for line in lines:
        row = own.loc[line["id"]]
        assert (row["answer"], row["kind"], row["group"]) == (line["prediction"], line["kind"], line["group"])
        assert row["score"] == (line["prediction"] in line["answers"])


# -- the numbers agree ---------------------------------------------------------------------------------


def by_hand(results: DataFrame) -> dict[str, dict[str, float]]:
    """Run -> the metrics, from the items' scores alone, with the formulas of docs/statistics.md."""
    found = {}
    means = results.groupby(["run", "stage", "task"], observed=True)["score"].mean() * 100
    for run in results["run"].unique():
        own = means[run].unstack("task")
        a, text = own[["task1", "task2", "task3"]].to_numpy(), own[["text1", "text2"]].to_numpy()
        diagonal = [a[i, i - 1] for i in (1, 2, 3)]
        found[run] = {
            "la": np.mean(diagonal),
            "acc": np.mean(a[3]),
            "bwt": np.mean([a[3, i] - diagonal[i] for i in (0, 1)]),
            "fm": np.mean([max(a[i + 1 : 3, i]) - a[3, i] for i in (0, 1)]),
            "fwt": np.mean([a[i, i] - a[0, i] for i in (1, 2)]),
            "text_change": np.mean(text[3] - text[0]),
        }
    return found


def test_the_forgetting_table_says_the_same(results: DataFrame, experiments: list[Experiment]) -> None:
    shown, expected = tables(experiments), by_hand(results)
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(render(shown, "csv")))}
    runs = pd.DataFrame(expected).T
    methods = results.drop_duplicates("run").set_index("run")["method"].astype(str)
    for method in METHODS:
        own = runs[methods.reindex(runs.index) == method]
        for key in own:
            assert float(rows[method][key]) == pytest.approx(own[key].mean(), abs=1e-9)
            assert float(rows[method][f"{key}_sd"]) == pytest.approx(own[key].std(), abs=1e-9)
    for result in experiments[0].results:
        assert {key: result.summary[key] for key in expected[result.name]} == pytest.approx(
            expected[result.name]
        )


# -- what is missing or odd ----------------------------------------------------------------------------


def test_a_cell_without_predictions_keeps_its_row(one: RunDir) -> None:
    predictions(one.folder, "task1")[0].unlink()
    found = frame(collect([one]))
    rows = found[found["item"].isna()]
    assert len(rows) == 1 and rows[["value", "weights"]].notna().all(axis=None)
    assert rows[["answer", "score", "kind"]].isna().all(axis=None)
    assert len(found.groupby(CELL, observed=True)) == 3 * 3


@pytest.mark.parametrize("edited", ["damaged", "of the same size"])
def test_edited_predictions_are_named_and_hide_nothing_else(one: RunDir, edited: str) -> None:
    path = predictions(one.folder, "task1")[0]
    first, *rest = path.read_text().splitlines(keepends=True)
    record = json.loads(first)
    other = first.replace(f'"id": "{record["id"]}"', f'"id": "{"x" * len(record["id"])}"')
    path.write_text('{"id": 1}\n' * 3 if edited == "damaged" else "".join([other, *rest]))
    (experiment,) = collect([one])
    found = frame([experiment])
    assert found["item"].isna().sum() == 1
    assert any("task1 (damaged" in note for note in experiment.results[0].lacks)


# -- notebooks and files -------------------------------------------------------------------------------


def test_a_notebook_gets_the_frame_by_name_or_folder(runs: Path, results: DataFrame) -> None:
    for given in ("ledger", runs / "ledger", ["ledger"], [runs]):
        found = bench.frame(given, workspace=runs.parent, items=False)
        assert found["value"].tolist() == results.drop_duplicates(CELL)["value"].tolist()
    assert len(bench.frame(workspace=runs.parent)) == len(results)
    assert len(bench.frame("lora-s0", workspace=runs.parent, items=False)) == 4 * 5
    assert [experiment.name for experiment in bench.experiments(workspace=runs.parent)] == ["ledger"]


def test_a_notebook_is_warned_of_what_is_left_out(tmp_path: Path) -> None:
    for seed in (0, 1):
        run = ledger.write_run(tmp_path / "runs", ledger.Shape(items=4), "lora", seed, ledger.Kind())
    (run.folder / "status.json").unlink()
    with pytest.warns(UserWarning, match=r"left out: lora-s1 \(waiting\)") as caught:
        bench.frame(workspace=tmp_path)
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bench.frame(workspace=tmp_path, unfinished=True)["run"].nunique() == 2
