"""Item scores that are kept next to predictions, and what becomes of damaged and edited ones."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moextend.bench.run.rundir import RunDir
from moextend.bench.score import vqa
from moextend.bench.score.kept import ScoreReader
from moextend.bench.score.lines import PredictionLine, Words
from moextend.bench.score.records import Cell
from moextend.errors import SpecError
from moextend.util.files import read_lines, write_lines
from tests.bench import ledger
from tests.bench.cells import cell_of


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return ledger.write_run(tmp_path, ledger.Shape(stages=1, texts=0, items=20), "lora", 0, ledger.Kind())


@pytest.fixture
def cell(run: RunDir) -> Cell:
    return run.cells()[1, "task1"]


@pytest.fixture
def kept(run: RunDir, cell: Cell) -> Path:
    return vqa.scores_path(run.folder / str(cell.predictions), cell.scorer)


def read(run: RunDir, cell: Cell) -> dict[str, float]:
    ids = Words()
    found = ScoreReader(ids)(run.folder, cell, run.folder)
    names = ids.words()
    return {names[item]: score for item, score in zip(found.item, found.score.tolist(), strict=True)}


def test_kept_scores_that_give_the_score_of_the_cell_are_read(
    run: RunDir, cell: Cell, kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = {line["id"]: line["score"] for line in read_lines(kept)[:-1]}
    monkeypatch.setattr("moextend.bench.score.kept.score_items", lambda *_: pytest.fail("computed again"))
    assert read(run, cell) == expected and not caplog.records


def _exchange(lines: list[Any]) -> None:
    """Two items that differ get each other's score, which leaves the mean as it was."""
    first = lines[0]
    other = next(line for line in lines[:-1] if line["score"] != first["score"])
    first["score"], other["score"] = other["score"], first["score"]


EDITS: dict[str, Callable[[list[Any]], object]] = {
    "another score": lambda lines: lines[0].update(score=1.0 - lines[0]["score"]),
    "no key": lambda lines: lines[0].pop("score"),
    "a word": lambda lines: lines[0].update(score="right"),
    "scores exchanged": lambda lines: _exchange(lines),
    "no record": lambda lines: lines.__setitem__(0, 3),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_file_is_named_and_computed_again(
    run: RunDir, cell: Cell, kept: Path, edit: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected, whole = read(run, cell), kept.read_bytes()
    lines = read_lines(kept)
    EDITS[edit](lines)
    write_lines(kept, lines)
    with caplog.at_level(logging.WARNING):
        assert read(run, cell) == expected
    (record,) = caplog.records
    assert str(kept) in record.getMessage() and "computed again from the predictions" in record.getMessage()
    assert sorted(kept.read_bytes().splitlines()) == sorted(whole.splitlines())
    caplog.clear()
    assert read(run, cell) == expected and not caplog.records, "the file is as it was"


def test_lost_scores_are_computed_again_without_a_word(
    run: RunDir, cell: Cell, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = read(run, cell)
    kept.unlink()
    assert read(run, cell) == expected and kept.is_file() and not caplog.records


def test_predictions_that_do_not_give_the_score_of_the_cell_are_an_error(
    run: RunDir, cell: Cell, kept: Path
) -> None:
    path = run.folder / str(cell.predictions)
    lines = read_lines(path)
    for line in lines:
        line["prediction"] = "c"
    write_lines(path, lines)
    kept.unlink()
    with pytest.raises(SpecError, match="is not the file that was scored") as caught:
        read(run, cell)
    assert caught.value.where == str(path) and not kept.exists()


def test_items_that_count_only_with_others_have_no_score(tmp_path: Path) -> None:
    turned = [PredictionLine(str(i * 1_000_000), "AB"[i], ("AB"[i],), "?", ("x", "y")) for i in range(2)]
    write_lines(tmp_path / "p.jsonl", [line.line() for line in turned])
    cell = cell_of(0, "t", 100.0, n=1, scorer="circular@4", predictions="p.jsonl")
    for _ in range(2):  # computed, and read
        found = ScoreReader(Words())(tmp_path, cell, tmp_path)
        assert found.score[0] == 1.0 and np.isnan(found.score[1])
