"""Predictions that survive interruptions, and scores of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.data import Item
from moextend.bench.score import vqa
from moextend.bench.score.lines import PredictionLine
from moextend.bench.score.records import Scores
from moextend.bench.sequence import Scoring
from moextend.bench.task import Data, TaskSpec
from moextend.data.examples import Columns
from moextend.model.generation import Prompt

TASK = TaskSpec(task="mini", version=1, kind="vqa", data=Data(path="x"), prompt="{question}")


def items(n: int) -> list[Item]:
    return [
        Item((), f"what is {i}", (f"answer {i % 3}",), id=str(i), kind=["even", "odd"][i % 2], row=f"row {i}")
        for i in range(n)
    ]


class Parrot:
    """Answers that depend on the whole batch, as those of a real model in low precision do."""

    name = None
    served = None

    def __init__(self, stop_after: int | None = None) -> None:
        self.batches: list[list[str]] = []
        self.stop_after = stop_after

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
        if self.stop_after is not None and len(self.batches) == self.stop_after:
            raise KeyboardInterrupt
        self.batches.append([prompt.text for prompt in prompts])
        return [f"{prompt.text} of {len(prompts)} from {prompts[0].text}" for prompt in prompts]

    def rate(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        raise AssertionError("no item has choices")


@pytest.fixture
def every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vqa, "KEPT_EVERY", 0.0)


def run(path: Path, n: int = 10, answer: Parrot | None = None) -> tuple[list[PredictionLine], int]:
    return vqa.predict(TASK, items(n), answer or Parrot(), path, batch_size=4)


def test_predictions_are_kept_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "w" / "mini.jsonl"
    records, made = run(path)
    assert (len(records), made) == (10, 10)
    first = json.loads(path.read_text().splitlines()[1])
    assert first == {
        "id": "1", "prediction": "what is 1 of 4 from what is 0", "answers": ["answer 1"], "question": "what is 1",
        "choices": None, "kind": "odd", "group": None,
    }  # fmt: skip
    silent = Parrot(stop_after=0)
    assert run(path, answer=silent) == (records, 0)


@pytest.mark.parametrize("after", [0, 2])
def test_interrupted_between_batches(after: int, tmp_path: Path, every_batch: None) -> None:
    whole, _ = run(tmp_path / "whole.jsonl")
    path = tmp_path / "cut.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(path, answer=Parrot(stop_after=after))
    again = Parrot()
    records, made = run(path, answer=again)
    assert records == whole and made == 10 - 4 * after
    assert path.read_text() == (tmp_path / "whole.jsonl").read_text()


def test_cut_at_any_byte(tmp_path: Path, every_batch: None) -> None:
    run(tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    path = tmp_path / "cut.jsonl"
    for cut in range(0, len(whole) + 1, 41):
        path.write_bytes(whole[:cut])
        run(path)
        assert path.read_bytes() == whole, f"cut at byte {cut}"


def test_key_names_all_that_predictions_depend_on() -> None:
    base: dict[str, Any] = {"task": TASK, "data": "d", "scoring": Scoring(), "tokenizer": "t", "dtype": "f"}
    keys = {vqa.prediction_key(**base)}
    for change in (
        {"data": "e"}, {"tokenizer": "u"}, {"dtype": "g"}, {"scoring": Scoring(batch_size=8)},
        {"scoring": Scoring(limit=8)}, {"task": TASK.model_copy(update={"prompt": "Q {question}"})},
        {"task": TASK.model_copy(update={"max_new_tokens": 5})},
        {"task": TASK.model_copy(update={"columns": Columns(question="q")})},
    ):  # fmt: skip
        keys.add(vqa.prediction_key(**{**base, **change}))
    assert len(keys) == 9
    other = TASK.model_copy(update={"scorer": "vqa@1", "description": "x"})
    assert vqa.prediction_key(**{**base, "task": other}) in keys, (
        "another scorer asks for no other predictions"
    )


def record(prediction: str, answer: str, kind: str | None = None, id: str = "1") -> PredictionLine:
    return PredictionLine(id, prediction, (answer,), kind=kind)


def scored(records: Sequence[PredictionLine], scorer: str) -> Scores:
    return vqa.score_items(records, scorer)[0]


def test_scores_by_hand() -> None:
    output = [("a", "a", "x"), ("b", "a", "x"), ("a.", "a", "y"), ("A", "a", "y")]
    scores = scored([record(*one, id=str(i)) for i, one in enumerate(output)], "exact@1")
    assert (scores.value, scores.n) == (75.0, 4)
    # s^2 = (3 * 0.25^2 + 0.75^2) / 3 = 0.25; stderr = 100 * 0.5 / 2.
    assert scores.stderr == pytest.approx(25.0)
    assert scores.by_kind == {"x": 50.0, "y": 100.0} and scores.kind_sizes == {"x": 2, "y": 2}
    assert scores.readings == {"strict": 25.0, "normalised": 75.0}


def test_long_questions_come_first_and_the_records_stay_in_order(tmp_path: Path, every_batch: None) -> None:
    asked = [Item((), "x" * (7 * i % 10 + 1), ("a",), id=str(i), row=f"row {i}") for i in range(10)]

    def predict(answer: Parrot, name: str) -> tuple[list[PredictionLine], int]:
        return vqa.predict(TASK, asked, answer, tmp_path / name, batch_size=4)

    parrot = Parrot()
    whole, _ = predict(parrot, "whole.jsonl")
    lengths = [len(text) for batch in parrot.batches for text in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert [record.id for record in whole] == [item.id for item in asked]
    with pytest.raises(KeyboardInterrupt):
        predict(Parrot(stop_after=1), "cut.jsonl")
    assert predict(Parrot(), "cut.jsonl") == (whole, 6)
    assert (tmp_path / "cut.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
