"""The fate of an item, on cases made by hand."""

from pathlib import Path

import numpy as np
import pytest

from moextend.bench.report.collect import collect
from moextend.bench.report.fate import FATES, UNKNOWN, fate_shares, fates, item_fates
from moextend.bench.report.frame import frame
from moextend.bench.run.rundir import find_runs
from tests.bench import ledger


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ("0000", "wrong wrong wrong"),
        ("1111", "kept kept kept"),
        ("0111", "learned kept kept"),
        ("0110", "learned kept lost"),
        ("0101", "learned lost regained"),
        ("1000", "lost wrong wrong"),
        ("1001", "lost wrong regained"),
        ("1101", "kept lost regained"),
        ("0010", "wrong learned lost"),
        ("0?11", "? ? kept"),
        ("1?01", "? ? regained"),
        ("0?01", "? ? learned"),
        ("10", "lost"),
    ],
)
def test_a_history_of_answers_and_its_fates(right: str, expected: str) -> None:
    column = np.array([[np.nan if mark == "?" else float(mark)] for mark in right])
    found = ["?" if place == UNKNOWN else FATES[place] for place in fates(column)[:, 0]]
    assert found == expected.split()


def test_what_is_kept_learned_and_regained_is_the_accuracy(tmp_path: Path) -> None:
    shape = ledger.Shape(stages=3, texts=1, items=40)
    ledger.write_run(tmp_path, shape, "lora", 0, ledger.Kind())
    (experiment,) = collect(find_runs(tmp_path))
    results = frame([experiment])
    shares = fate_shares(results)
    assert len(shares) == 3 * 4, "a row per stage and task, text among them"
    assert shares[list(FATES)].sum(axis=1).to_numpy() == pytest.approx(100)
    values = results.drop_duplicates(["stage", "task"]).set_index(["stage", "task"])["value"].to_dict()
    right = shares[["kept", "learned", "regained"]].sum(axis=1)
    right_before = shares[["kept", "lost"]].sum(axis=1)
    places = list(zip(shares["stage"], shares["task"], strict=True))
    assert list(right) == pytest.approx([values[stage, task] for stage, task in places])
    assert list(right_before) == pytest.approx([values[stage - 1, task] for stage, task in places])


def test_half_of_the_top_is_right(tmp_path: Path) -> None:
    """CIDEr-D goes to 10: 4.9 is wrong, 5 is right; an accuracy of 0.5 is right."""
    run = ledger.write_run(tmp_path, ledger.Shape(stages=1, texts=0, items=3), "lora", 0, ledger.Kind())
    results = frame(collect([run]))
    results["score"] = [0.0, 0.0, 0.0, 4.9, 5.0, 0.5]
    results["scorer"] = results["scorer"].cat.rename_categories({"exact@1": "cider@1"})
    assert list(item_fates(results)["fate"]) == ["wrong", "learned", "wrong"]
    results["scorer"] = results["scorer"].cat.rename_categories({"cider@1": "gone@1"})
    assert list(item_fates(results)["fate"]) == ["learned", "learned", "learned"]
