"""Columns of every form: images, answers, choices, labels, ids."""

from pathlib import Path

from moextend.bench.data import open_items, prompt_text
from tests.bench.data.conftest import MakeTask
from tests.data.small import MakePng, MakeRows, WriteJsonl


def test_base64_and_data_addresses(
    pictures: Path,
    encoded: str,
    make_rows: MakeRows,
    make_task: MakeTask,
    write_jsonl: WriteJsonl,
    make_png: MakePng,
    workspace: Path,
) -> None:
    first, second = make_rows(2)
    values = [first | {"picture": encoded}, second | {"picture": f"data:image/png;base64,{encoded}"}]
    path = write_jsonl(pictures / "all.jsonl", values)
    items = open_items(make_task(path, train=None, test="all", columns={"group": None}), "test", workspace)
    assert [item.media[0].read() for item in items] == [make_png(7)] * 2


def test_answers_of_annotators_numbers_and_choices(
    pictures: Path, make_rows: MakeRows, make_task: MakeTask, write_jsonl: WriteJsonl, workspace: Path
) -> None:
    value = make_rows(1)[0]
    replies = [
        [{"answer": "a", "answer_id": 1}, {"answer": "b", "answer_id": 2}], ["x", "y"], 3, 2.5, True, "one",
    ]  # fmt: skip
    path = write_jsonl(
        pictures / "all.jsonl", [value | {"reply": r, "qid": i} for i, r in enumerate(replies)]
    )
    items = open_items(make_task(path, train=None, test="all"), "test", workspace)
    assert [item.answers for item in items] == [("a", "b"), ("x", "y"), ("3",), ("2.5",), ("true",), ("one",)]
    chosen = [
        value | {"reply": 1, "options": ["cat", "dog"], "qid": 0},
        value | {"reply": "cat", "options": "['cat', 'dog']", "qid": 1},
        value | {"reply": "dog", "options": {"label": ["A", "B"], "text": ["cat", "dog"]}, "qid": 2},
    ]
    path = write_jsonl(pictures / "choices.jsonl", chosen)
    task = make_task(
        path, train=None, test="all", columns={"choices": "options"}, prompt="<image>\n{choices}"
    )
    items = open_items(task, "test", workspace)
    assert [item.answers for item in items] == [("dog",), ("cat",), ("dog",)]
    assert {item.choices for item in items} == {("cat", "dog")}
    assert prompt_text(task, items[0]) == "<image>\nA. cat\nB. dog"


def test_class_labels_by_name(
    tmp_path: Path, make_rows: MakeRows, make_task: MakeTask, workspace: Path
) -> None:
    import datasets

    values = [value | {"reply": i % 2} for i, value in enumerate(make_rows(4))]
    labelled = datasets.Dataset.from_list(values).cast_column(
        "reply", datasets.ClassLabel(names=["no", "yes"])
    )
    labelled.to_parquet(tmp_path / "test.parquet")
    items = open_items(make_task(tmp_path, train=None, columns={"group": None}), "test", workspace)
    assert [item.answers for item in items] == [("no",), ("yes",), ("no",), ("yes",)]
