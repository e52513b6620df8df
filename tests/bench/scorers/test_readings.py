"""Strict, normalised and likelihood readings, item by item and in the summary, and the two keyed stages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moextend.bench.data import Item
from moextend.bench.score import vqa
from moextend.bench.score.lines import PredictionLine
from moextend.bench.scorers import Answered, readings
from moextend.bench.task import Data, TaskSpec
from moextend.data.examples import Columns
from moextend.model.generation import Prompt
from tests.bench.scorers.single import SINGLE, score

CHOICES = ("cat", "dog", "fox")


def one(
    prediction: str,
    answers: str | Sequence[str],
    choices: tuple[str, ...] | None = None,
    likelihoods: tuple[float, ...] | None = None,
    right: bool = False,
) -> dict[str, float]:
    answers = (answers,) if isinstance(answers, str) else tuple(answers)
    return readings(
        prediction, Answered("1", "", answers, choices=choices), right=right, likelihoods=likelihoods
    )


@pytest.mark.parametrize(
    ("prediction", "answers", "choices", "strict", "normalised"),
    [
        ("red", "red", None, 1, 1), ("Red", "red", None, 0, 1), ("red.", "red", None, 0, 1),
        ("It is red", "red", None, 0, 1), ("the color of the car is red.", "Red", None, 0, 1),
        ("redder", "red", None, 0, 0), ("blue", "red", None, 0, 0), ("", "red", None, 0, 0),
        ("two dogs", "2", None, 0, 1), ("12 dogs", "2", None, 0, 0), ("there are\n2", "two", None, 0, 1),
        ("dark red car", "red car", None, 0, 1), ("red dark car", "red car", None, 0, 0),
        ("couch", ["sofa", "couch"], None, 1, 1), ("a couch", ["sofa", "couch"], None, 0, 1),
        ("the", "a", None, 0, 1), ("dog", "a", None, 0, 0), ("-", "-", None, 1, 1), ("-", "+", None, 0, 0),
        ("B", "dog", CHOICES, 1, 1), ("dog", "dog", CHOICES, 1, 1), ("b)", "dog", CHOICES, 0, 1),
        ("the answer is (B)", "dog", CHOICES, 0, 1), ("a dog and a cat", "dog", CHOICES, 0, 0),
        ("A", "dog", CHOICES, 0, 0),
    ],
)  # fmt: skip
def test_strict_and_normalised(
    prediction: str,
    answers: str | Sequence[str],
    choices: tuple[str, ...] | None,
    strict: int,
    normalised: int,
) -> None:
    assert one(prediction, answers, choices) == {"strict": strict, "normalised": normalised}


@pytest.mark.parametrize(
    ("likelihoods", "value"),
    [((-3.0, -1.0, -2.0), 1), ((-1.0, -3.0, -2.0), 0), ((-1.0, -1.0, -2.0), 0), ((-2.0, -1.0, -1.0), 1)],
)
def test_likelihood(likelihoods: tuple[float, ...] | None, value: int) -> None:
    assert one("nonsense", "dog", CHOICES, likelihoods)["likelihood"] == value
    assert one("nonsense", "B", CHOICES, likelihoods)["likelihood"] == value


WORDS = "a The red Red. 2 two dogs it's ? B"
texts = st.lists(st.sampled_from(WORDS.split()), max_size=4).map(" ".join)


@given(texts, texts.filter(str.strip), st.sampled_from(SINGLE))
def test_strict_implies_normalised_and_full_marks_do(prediction: str, gold: str, name: str) -> None:
    item = Answered("1", prediction, (gold,))
    full = score(name, prediction, item) == 1.0
    found = readings(prediction, item, right=full)
    assert found["strict"] <= found["normalised"] and full <= found["normalised"]


RECORDS = [
    PredictionLine("0", "B", ("dog",), "?", CHOICES, "x", (-2.0, -1.0, -3.0)),
    PredictionLine("1", "(b)", ("dog",), "?", CHOICES, "x", (-2.0, -1.0, -3.0)),
    PredictionLine("2", "who knows", ("dog",), "?", CHOICES, "y", (-2.0, -1.0, -3.0)),
    PredictionLine("3", "A", ("dog",), "?", CHOICES, "y"),
]


def test_item_scores_and_summary() -> None:
    scores, items = vqa.score_items(RECORDS, "letter@1")
    assert [tuple(item.line().values()) for item in items] == [
        ("0", 1.0, 1.0, 1.0, 1.0), ("1", 0.0, 0.0, 1.0, 1.0), ("2", 0.0, 0.0, 0.0, 1.0), ("3", 0.0, 0.0, 0.0, None)
    ]  # fmt: skip
    # The form was lost on one, and what to say on another, though the choice was still the likeliest on both.
    assert scores.readings == {"strict": 25.0, "normalised": 50.0, "likelihood": 100.0}
    assert (scores.value, scores.n, scores.by_kind) == (25.0, 4, {"x": 50.0, "y": 0.0})


def asked(prompt: str) -> TaskSpec:
    return TaskSpec(
        task="t",
        version=1,
        kind="vqa",
        data=Data(path="x"),
        columns=Columns(choices="options"),
        prompt=prompt,
    )


@pytest.mark.parametrize(
    ("prompt", "predicted"),
    [("{question}\n{choices}", ["A", "B", "C"]), ("{question}", ["cat", "dog", "fox"])],
)
def test_predictions_keep_the_likelihoods_of_choices(
    tmp_path: Path, prompt: str, predicted: list[str]
) -> None:
    free = Item((), "how many?", ("2",), id="1")
    chosen = [Item((), "what?", ("dog",), CHOICES, id=str(i)) for i in (0, 2)]
    seen = []

    class Rating:
        name = None
        served = None

        def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
            return ["x"] * len(prompts)

        def rate(
            self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]
        ) -> list[tuple[float, ...]]:
            seen.append([list(own) for own in choices])
            return [(-2.0, -1.0, -3.0) for _ in prompts]

    def run() -> Any:
        items = [chosen[0], free, chosen[1]]
        return vqa.predict(asked(prompt), items, Rating(), tmp_path / "p.jsonl", batch_size=2)

    records, made = run()
    assert made == 3 and [own for batch in seen for own in batch] == [predicted, predicted], (
        "only items with choices are rated"
    )
    before = len(seen)
    assert [record.likelihoods for record in records] == [(-2.0, -1.0, -3.0), None, (-2.0, -1.0, -3.0)]
    assert run() == (records, 0) and len(seen) == before, "kept, and found again"
    assert vqa.score_items(records, "option@1")[0].readings["likelihood"] == 100.0
