"""Batches that several processes answered are merged in order, whoever answered them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from moextend.bench.data import Item
from moextend.bench.score.lines import PredictionLine
from moextend.bench.score.vqa import Parts
from moextend.util import processes

ITEMS = [Item((), f"what is {i}", ("yes",), id=str(i), kind=None, row=f"row {i}") for i in range(11)]
BATCHES = [range(3), range(3, 6), range(6, 9), range(9, 11)]


def lines(batch: Sequence[Item]) -> list[PredictionLine]:
    return [PredictionLine.of(item, f"é {item.id}", (0.1, -1e-7)) for item in batch]


def parts_of(path: Path) -> Parts:
    return Parts(path, ITEMS, BATCHES)


def answer(path: Path, numbers: Sequence[int]) -> None:
    """One process answers some batches."""
    mine = parts_of(path)
    mine.start()
    for number in numbers:
        mine.add(number, lines(mine.batch(number)))
    mine.save()


def several(monkeypatch: pytest.MonkeyPatch, rank: int, count: int) -> None:
    monkeypatch.setattr(processes, "count", lambda: count)
    monkeypatch.setattr(processes, "rank", lambda: rank)


@pytest.fixture
def alone(tmp_path: Path) -> bytes:
    """The file of a single process."""
    path = tmp_path / "alone.jsonl"
    answer(path, range(len(BATCHES)))
    assert len(parts_of(path).finish()) == len(ITEMS)
    return path.read_bytes()


@pytest.mark.parametrize("seed", range(2))
def test_any_processes_with_any_interruptions_make_the_same_file(
    tmp_path: Path, alone: bytes, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    path, drawn = tmp_path / "a[1].jsonl", random.Random(seed)
    left = list(range(len(BATCHES)))
    while left:  # attempts of one to three processes, each of which answers some batches and is gone
        count = drawn.randint(1, 3)
        with monkeypatch.context() as patch:
            several(patch, 0, count)
            known = parts_of(path).start()
            left = [number for number in range(len(BATCHES)) if number not in known]
            for rank in range(count):
                several(patch, rank, count)
                own = left[rank::count]
                answer(path, own[: drawn.randint(0, len(own))])
    assert [line.id for line in parts_of(path).finish()] == [str(i) for i in range(11)]
    assert path.read_bytes() == alone and not list(tmp_path.glob("*.part-*"))


def test_what_is_damaged_or_of_other_items_is_answered_again(
    tmp_path: Path, alone: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    several(monkeypatch, 1, 2)
    answer(path, [1, 3])
    part = tmp_path / "a.part-1.jsonl"
    text = part.read_text()
    part.write_text(text + '{"batch": 2, "lines": [')  # torn
    assert parts_of(path).start() == {1, 3}
    part.write_text(text + json.dumps({"batch": 2, "lines": [{"id": "0"}]}) + "\n")
    assert parts_of(path).start() == set() and not part.exists()
    other = json.loads(text.splitlines()[0]) | {"batch": 2}
    part.write_text(json.dumps(other) + "\n" + json.dumps({**other, "batch": 99}) + "\n")
    assert parts_of(path).start() == set()
    several(monkeypatch, 0, 1)
    again = parts_of(path)
    left = [number for number in range(len(BATCHES)) if number not in again.start()]
    for number in left:
        again.add(number, lines(again.batch(number)))
    again.save()
    again.finish()
    assert path.read_bytes() == alone
