"""Tasks guessed from their data."""

from pathlib import Path

import pytest

from moextend.bench.data import check_task, guess_task
from moextend.bench.task import TaskSpec
from moextend.errors import InputError
from tests.data.small import MakeRows, Rows, WriteJsonl


@pytest.fixture
def usual(make_rows: MakeRows) -> MakeRows:
    """Rows with the names that most data use."""

    def make(n: int, start: int = 0) -> Rows:
        names = {
            "qid": "question_id",
            "picture": "image",
            "ask": "question",
            "reply": "answer",
            "sort": "question_type",
        }
        return [{names[key]: value for key, value in row.items()} for row in make_rows(n, start)]

    return make


def guess(
    data: Path | str, workspace: Path, columns: dict[str, str] | None = None, scorer: str | None = None
) -> TaskSpec:
    return guess_task(str(data), name="mine", workspace=workspace, columns=columns or {}, scorer=scorer)


def test_folder_with_splits(
    pictures: Path, usual: MakeRows, write_jsonl: WriteJsonl, workspace: Path
) -> None:
    write_jsonl(pictures / "train.jsonl", usual(6))
    write_jsonl(pictures / "validation.jsonl", usual(4))
    task = guess(pictures, workspace)
    assert task.data
    assert (task.data.path, task.data.train, task.data.test) == (pictures.as_posix(), "train", "validation")
    assert task.columns.model_dump() == {
        "image": "image", "question": "question", "answer": "answer", "id": "question_id", "group": None,
        "kind": "question_type", "choices": None,
    }  # fmt: skip
    assert (task.kind, task.scorer, task.path) == ("vqa", "exact@1", workspace / "tasks" / "mine.yaml")
    checked = check_task(task, workspace)
    assert checked.items == {"train": 6, "test": 4}
    assert checked.prompt == "<image>\nwhat is 0\nAnswer the question using a single word or phrase."
    assert checked.answer == "red"


def test_choices_annotators_and_groups(
    pictures: Path, usual: MakeRows, write_jsonl: WriteJsonl, workspace: Path
) -> None:
    values = [value | {"options": ["red", "blue"], "image_id": value["image"]} for value in usual(6)]
    write_jsonl(pictures / "test.jsonl", values)
    task = guess(pictures, workspace)
    assert (task.scorer, task.columns.choices, task.columns.group) == ("letter@1", "options", "image_id")
    assert check_task(task, workspace).answer == "A"
    write_jsonl(pictures / "test.jsonl", [value | {"answer": ["red"] * 10} for value in usual(6)])
    assert guess(pictures, workspace).scorer == "vqa@2"


def test_captions(pictures: Path, usual: MakeRows, write_jsonl: WriteJsonl, workspace: Path) -> None:
    values = [{"file_name": value["image"], "caption": "a thing"} for value in usual(4)]
    write_jsonl(pictures / "metadata.jsonl", values)
    task = guess(pictures, workspace)
    assert (task.kind, task.columns.question, task.columns.image) == ("caption", None, "file_name")


def test_column_that_cannot_be_guessed(
    pictures: Path, make_rows: MakeRows, write_jsonl: WriteJsonl, workspace: Path
) -> None:
    write_jsonl(pictures / "test.jsonl", make_rows(4))
    with pytest.raises(
        InputError, match=r"which column holds the answer\? Columns of .*: qid, picture, ask"
    ) as caught:
        guess(pictures, workspace)
    assert "Name it: --columns answer=COLUMN." in str(caught.value)


def test_plain_text_is_no_task(tmp_path: Path, workspace: Path) -> None:
    (tmp_path / "own.txt").write_text("one\ntwo\n")
    with pytest.raises(
        InputError, match=r"own\.txt holds plain text; a task needs questions .* 'moextend extend'"
    ):
        guess(tmp_path / "own.txt", workspace)
