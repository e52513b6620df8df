"""The scores of items in a pack are those that the predictions give."""

from __future__ import annotations

import pytest

from moextend.bench.run.items import items_of, read_items
from moextend.bench.run.rundir import RunDir
from moextend.bench.score.lines import PredictionLine
from moextend.bench.score.vqa import score_items
from moextend.util import files
from tests.bench.cells import cell_of
from tests.bench.conftest import TASKS, MakeRun

TASK = TASKS[0]
SPOKEN = {"a": "one two three", "b": "four", "c": "five six"}


def score(run: RunDir, stage: int, answers: dict[str, str]) -> None:
    """A cell of transcripts, whose score weighs items by their words; `answers` are item -> prediction."""
    lines = [
        PredictionLine(item, answer, (SPOKEN[item],), group=f"clip {item in 'ab'}")
        for item, answer in answers.items()
    ]
    path = run.predictions / f"{stage}.jsonl"
    files.write_lines(path, [line.line() for line in lines])
    value = score_items(lines, "wer@1")[0].value
    where = f"predictions/{path.name}"
    run.append_cell(
        cell_of(stage, TASK, value, n=len(lines), folder=run.folder, scorer="wer@1", predictions=where)
    )


def test_items_have_their_weights_and_one_order(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run("lora")
    score(run, 0, {"a": "one two", "b": "four"})
    score(run, 1, {"c": "five six", "b": "for", "a": "one two three"})
    found = items_of(run)
    task = found.tasks[TASK]
    assert task.items == ["a", "b", "c"] and task.images == ["clip True", "clip True", "clip False"]
    assert [cell.stage for cell in task.cells] == [0, 1]
    assert task.cells[0].scores == [pytest.approx(2 / 3), 1, None] and task.cells[0].weights == [3, 1, 0]
    assert task.cells[1].scores == [1, 0, 1] and task.cells[1].weights == [3, 1, 2]
    assert found.of(1, TASK) == (task, task.cells[1])
    assert found.of(2, TASK) is None and found.of(1, TASKS[1]) is None

    (run.folder / "items.json").write_text(found.model_dump_json())
    assert read_items(run) == found
    (run.predictions / "1.jsonl").write_text("{}\n")
    for kept in run.predictions.glob("1.*scores*"):
        kept.unlink()
    assert [cell.stage for cell in items_of(run).tasks[TASK].cells] == [0]
    assert f"{TASK} after stage 1: no scores of items" in caplog.text
    for path in run.predictions.iterdir():
        path.unlink()
    assert items_of(run).tasks == {} and "no such file" in caplog.text
