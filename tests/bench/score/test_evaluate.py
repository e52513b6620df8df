"""Scores of a cell, from the YAML to the number."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from PIL import Image
from transformers import PreTrainedTokenizerFast

from moextend.bench.score.evaluate import score_cell, tokenizer_digest
from moextend.bench.score.records import Cell
from moextend.bench.sequence import Scoring
from moextend.bench.task import Data, TaskSpec
from moextend.data.examples import Columns
from moextend.errors import InputError
from moextend.model import generation
from moextend.model.generation import Prompt


class Tokenizer:
    special_tokens_map: ClassVar[dict[str, str]] = {}

    def get_vocab(self) -> dict[str, int]:
        return {"a": 0}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the stubbed model says to each prompt, with the batches it was asked in."""
    asked = []

    def generate(
        model: Any, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int, **_: object
    ) -> list[str]:
        asked.append([prompt.text for prompt in prompts])
        assert all(prompt.media[0].open().size == (2, 2) for prompt in prompts)
        return [model.says for _ in prompts]

    monkeypatch.setattr(generation, "generate", generate)
    return asked


@pytest.fixture
def model() -> Any:
    return SimpleNamespace(
        lm=SimpleNamespace(dtype="float32"), tokenizer=Tokenizer(), device="cpu", says="Red.", modalities={}
    )


@pytest.fixture
def task(tmp_path: Path) -> TaskSpec:
    rows = [
        {"image": f"{i}.png", "question": f"colour {i}?", "answer": ["red", "blue"][i % 2], "kind": "colour"}
        for i in range(10)
    ]
    for i in range(10):
        buffer = io.BytesIO()
        Image.new("RGB", (2, 2), (i, 0, 0)).save(buffer, "PNG")
        (tmp_path / f"{i}.png").write_bytes(buffer.getvalue())
    (tmp_path / "test.json").write_text(json.dumps(rows))
    return TaskSpec(
        task="mini", version=1, kind="vqa", data=Data(path=".", train=None), columns=Columns(kind="kind"),
        prompt="<image> {question}", path=tmp_path / "mini.yaml",
    )  # fmt: skip


WEIGHTS = "-".join(["0123456789abcdef"] * 30)
"""Of a model with 27 extensions: longer than the name of a file may be."""


def score(model: Any, task: TaskSpec, tmp_path: Path, **changes: Any) -> Cell:
    return score_cell(
        model, task, weights=WEIGHTS, folder=tmp_path / "predictions", workspace=tmp_path / "work",
        scoring=Scoring(**{"batch_size": 4} | changes),
    )  # fmt: skip


def test_cell(model: Any, task: TaskSpec, tmp_path: Path, answers: list[list[str]]) -> None:
    cell = score(model, task, tmp_path)
    assert (cell.task, cell.value, cell.n, cell.scorer, cell.weights) == (
        "mini",
        50.0,
        10,
        "exact@1",
        WEIGHTS,
    )
    assert (cell.reused, cell.by_kind, cell.kind_sizes) == (False, {"colour": 50.0}, {"colour": 10})
    assert cell.stderr == pytest.approx(100 * (10 * 0.25 / 9 / 10) ** 0.5)
    assert cell.predictions and (tmp_path / "predictions" / cell.predictions).is_file()
    assert [len(batch) for batch in answers] == [4, 4, 2]
    assert answers[0][0] == "<image> colour 0?"


def test_reuse_and_other_scorer(model: Any, task: TaskSpec, tmp_path: Path, answers: list[list[str]]) -> None:
    first = score(model, task, tmp_path)
    again = score(model, task, tmp_path)
    other = score(model, task.model_copy(update={"scorer": "letter@1"}), tmp_path)
    assert again.reused and other.reused and len(answers) == 3
    assert again.value == first.value and other.scorer == "letter@1"


def test_tokenizer_digest_is_what_the_tokenizer_does(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Core
    from tokenizers import models

    def make(*words: str) -> PreTrainedTokenizerFast:
        core = Core(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
        return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?", pad_token="?")

    one = make("?", "a")
    before = tokenizer_digest(one)
    one(["a", "a a"], padding=True, truncation=True, max_length=1)
    assert (
        tokenizer_digest(one)
        == before
        == tokenizer_digest(make("?", "a"))
        != tokenizer_digest(make("?", "b"))
    )


def names_that_lead_elsewhere() -> list[str]:
    return ["../mine", "/tmp/mine", "a/b", "..", ".hidden", "", "a\\b", "x" * 101, "a b", "line\nbreak", "-x"]


def test_no_predictions_are_written_outside_their_folder(
    tmp_path: Path, task: TaskSpec, model: Any, answers: list[list[str]]
) -> None:
    """Whatever way a task came to its name."""
    folder = tmp_path / "deep" / "predictions"
    for name in names_that_lead_elsewhere():
        renamed = task.model_copy(update={"task": name})
        with pytest.raises(InputError, match="a task's name has at most 100 letters"):
            score_cell(
                model, renamed, weights="w", folder=folder, scoring=Scoring(batch_size=4), workspace=tmp_path
            )
    assert not (tmp_path / "deep").exists() and not answers
