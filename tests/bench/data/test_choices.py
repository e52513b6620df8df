"""Choices with equal texts, missing choices, or other forms of cells: the gold keeps its letter."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.data import open_items, prompt_text, target_text
from moextend.bench.scorers import Answered, readings, score_set
from moextend.bench.task import Data, TaskSpec
from moextend.data.examples import Columns
from moextend.errors import InputError
from tests.bench.scorers.single import score

LETTERED = [
    *("letter@1", "option@4", "coin-scienceqa@1"),
]


@pytest.fixture
def chosen(tmp_path: Path) -> Callable[..., TaskSpec]:
    """A multiple-choice task without images, of rows as given."""

    def make(
        rows: Iterable[Mapping[str, object]],
        scorer: str = "option@4",
        choices: str | None = "options",
        **changes: Any,
    ) -> TaskSpec:
        path = tmp_path / "all.jsonl"
        path.write_text("".join(json.dumps({"question": "which?", **row}) + "\n" for row in rows))
        data = Data(path=str(path), train=None, test="all", **changes.pop("data", {}))
        return TaskSpec(
            task="chosen", version=1, kind="vqa", data=data, scorer=scorer, path=tmp_path / "chosen.yaml",
            columns=Columns(image=None, choices=choices), prompt="{question}\n{choices}\nThe option's letter.",
            **changes,
        )  # fmt: skip

    return make


@pytest.mark.parametrize("scorer", LETTERED)
@pytest.mark.parametrize(
    ("options", "gold", "form", "right"),
    [
        (["1", "1", "2", "3"], 1, "position", "B"),
        (["1", "1", "2", "3"], "B", "letter", "B"),
        (["a", "b", "a", "c"], 2, None, "C"),
        (["a", "a ", "b"], 1, "position", "B"),
        (["cat", "dog", "cat"], "C", None, "C"),
    ],
)
def test_choices_of_one_text(
    scorer: str,
    options: list[str],
    gold: int | str | list[str],
    form: str | None,
    right: str,
    chosen: Callable[..., TaskSpec],
    tmp_path: Path,
) -> None:
    task = chosen([{"options": options, "answer": gold}], scorer, answer_as=form)
    (item,) = open_items(task, "test", tmp_path)
    assert target_text(task, item) == right
    for letter in "ABCD"[: len(options)]:
        answered = Answered.by(letter, item)
        assert score_set(scorer, [answered]).value == float(letter == right)
        likelihoods = [float(letter == other) for other in "ABCD"[: len(options)]]
        found = readings(letter, item, likelihoods=likelihoods)
        assert found["likelihood"] == float(letter == right)
        assert found["strict"] == float(letter == right or letter in item.answers)


@pytest.mark.parametrize(
    "options", [{"A": "red", "B": "blue"}, {"B": "blue", "A": "red"}, {"1": "blue", "0": "red"},
                {"a": "red", "b": "blue", "c": None}, "{'A': 'red', 'B': 'blue'}", {"text": ["red", "blue"]}]
)  # fmt: skip
def test_choices_by_letter(
    options: Any,
    chosen: Callable[..., TaskSpec],
    tmp_path: Path,
) -> None:
    task = chosen([{"options": options, "answer": "blue"}, {"options": {}, "answer": "2"}])
    item, free = open_items(task, "test", tmp_path)
    assert free.choices is None
    assert item.choices == ("red", "blue") and target_text(task, item) == "B"
    assert "\nA. red\nB. blue\n" in prompt_text(task, item)


@pytest.mark.parametrize(
    "options", [{"first": "red", "second": "blue"}, {"1": "red", "2": "blue"}, {"A": "red", "C": "blue"},
                {"text": "red"}]
)  # fmt: skip
def test_choices_of_other_keys_are_refused(
    options: dict[str, str], chosen: Callable[..., TaskSpec], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"all.jsonl:1: column 'options': .*choices"):
        list(open_items(chosen([{"options": options, "answer": "red"}]), "test", tmp_path))


def test_an_empty_column_takes_no_letter_from_the_others(
    chosen: Callable[..., TaskSpec], tmp_path: Path
) -> None:
    """MMBench writes "nan" for a choice that is not there."""
    row = {"A": "red", "B": "nan", "C": "blue", "D": "nan", "answer": "C"}
    task = chosen([row], choices="A,B,C,D", answer_as="letter", data={"absent": ["nan"]})
    (item,) = open_items(task, "test", tmp_path)
    assert "which?\nA. red\nC. blue\nThe" in prompt_text(task, item)
    assert target_text(task, item) == "C"
    assert [score("option@4", output, item) for output in ("C", "blue", "A", "B")] == [1, 1, 0, 0]
    with pytest.raises(InputError, match="has no answer"):
        list(open_items(chosen([{**row, "answer": "B"}], choices="A,B,C,D", answer_as="letter",
                               data={"absent": ["nan"]}), "test", tmp_path))  # fmt: skip


def test_open_answers_written_as_a_list_are_several(chosen: Callable[..., TaskSpec], tmp_path: Path) -> None:
    """MMMU writes the golds of an open question so; its choices are "[]"."""
    rows = [{"options": "[]", "answer": "['24/7', '3.429']"}, {"options": "[]", "answer": "[0.1, 2]"}]
    rows += [{"options": "['a', 'b']", "answer": "B"}, {"options": "[]", "answer": "[open"}]
    items = list(open_items(chosen(rows, answer_as="letter"), "test", tmp_path))
    assert [item.answers for item in items] == [("24/7", "3.429"), ("[0.1, 2]",), ("b",), ("[open",)]
    assert [score("option@4", output, items[0]) for output in ("24/7", "3.429", "['24/7', '3.429']")] == [
        1,
        1,
        0,
    ]
