"""Choices that share a text, lack one, or stand in a cell of another form: the gold keeps its letter."""

import json

import pytest

from moextend.bench import vqa
from moextend.bench.data import open_items, target_text
from moextend.bench.scorers import Answered, readings, score_set
from moextend.bench.task import Columns, Data, TaskSpec

LETTERED = ["letter@1", "letter@2", "option@1", "option@2", "coin-scienceqa@1", "circular@1", "circular@2"]


@pytest.fixture
def chosen(tmp_path):
    """A multiple-choice task without images, of rows as given."""

    def make(rows, scorer="option@2", choices="options", **changes):
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
        (["1", "1", "2", "3"], 0, "position", "A"),
        (["1", "1", "2", "3"], "1", "position", "B"),
        (["a", "b", "a", "c"], 2, None, "C"),
        (["a", "b", "a", "c"], "2", None, "C"),
        (["a", "a ", "b"], 1, "position", "B"),
        (["cat", "dog", "cat"], "C", None, "C"),
        (["cat", "dog", "cat"], ["C"], "letter", "C"),
    ],
)
def test_choices_of_one_text(scorer, options, gold, form, right, chosen, tmp_path):
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


def test_lines_keep_the_position_only_where_it_is_needed(chosen, tmp_path):
    rows = [{"options": ["1", "1"], "answer": 1}, {"options": ["1", "1"], "answer": 0}]
    rows += [{"options": ["1", "2"], "answer": 1}]
    task = chosen(rows, answer_as="position")
    items = open_items(task, "test", tmp_path)
    path = tmp_path / "p.jsonl"
    answer = lambda prompts: ["B"] * len(prompts)  # noqa: E731
    records, _ = vqa.predict(task, items, answer, path, batch_size=1)
    assert [record.line().get("position") for record in records] == [1, None, None]
    assert "position" not in records[1].line() and "position" not in records[2].line()
    assert vqa.predict(task, items, answer, path, batch_size=1) == (records, 0)
    assert [item.score for item in vqa.read_scores(path, "option@2")] == [1.0, 0.0, 1.0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps({k: v for k, v in line.items() if k != "position"}) + "\n" for line in lines)
    )
    assert vqa.predict(task, items, answer, path, batch_size=1) == (records, 3), (
        "lines without it are made again"
    )


def test_a_text_that_two_choices_share_names_none_of_them():
    for right in (0, 1):
        item = Answered("1", "", ("red car",), choices=("red car", "red car", "car"), position=right)
        for said in ("red car", "It is the red car."):
            assert score_set("option@2", [Answered.by(said, item_of(item))]).value == 0.0


def item_of(answered):
    from moextend.bench.data import Item

    return Item("1", (), "?", answered.answers, answered.choices, position=answered.position)
