"""Wrong data: every error names the place and a hint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.data import check_task, open_items
from moextend.bench.data.open import Items
from moextend.bench.task import TaskSpec
from moextend.errors import InputError, SpecError, UnknownName
from tests.bench.data.conftest import MakeTask
from tests.data.small import MakePng, MakeRows, Rows, WriteJsonl


@pytest.fixture
def one_file(pictures: Path, make_rows: MakeRows, make_task: MakeTask, write_jsonl: WriteJsonl) -> MakeTask:
    """A task whose test split is one file with these rows."""

    def make(values: Rows | None = None, **changes: Any) -> TaskSpec:
        path = write_jsonl(pictures / "all.jsonl", make_rows(4) if values is None else values)
        return make_task(path, **({"train": None, "test": "all"} | changes))

    return make


def raised(
    workspace: Path,
    task: TaskSpec,
    kind: type[InputError] = InputError,
    *,
    use: Callable[[Items], object] = lambda items: list(items),
) -> str:
    with pytest.raises(kind) as caught:
        use(open_items(task, "test", workspace))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_missing_column_names_the_near_one_and_all(one_file: MakeTask, workspace: Path) -> None:
    text = raised(workspace, one_file(columns={"question": "aks"}), SpecError)
    assert "mini.yaml: columns.question: no column 'aks' in" in text and "all.jsonl" in text
    assert "Did you mean 'ask'? Columns: qid, picture, ask, reply, sort." in text


def test_unbalanced_braces_in_the_prompt(one_file: MakeTask, workspace: Path) -> None:
    text = raised(workspace, one_file(prompt="<image> {question"), SpecError)
    assert "mini.yaml: prompt: cannot be read" in text and "Write a brace that is text twice" in text


def test_more_images_than_marks(one_file: MakeTask, make_rows: MakeRows, workspace: Path) -> None:
    value = make_rows(1)[0] | {"picture": ["img0.png", "img1.png", "img2.png"]}
    task = one_file([value], prompt="<image> and <image> {question}", columns={"group": None})
    with pytest.raises(SpecError, match=r"has 2 <image> marks, but .*:1 has 3 images"):
        check_task(task, workspace)


@pytest.mark.parametrize(
    ("cell", "what"),
    [
        ("gone.png", r"the image cannot be read \(No such file or directory\)"),
        ("", "holds no image"),
        ("broken.png", "the image is broken, or not PNG, JPEG"),
        (3, "holds int, not an image"),
        ("http://x/y.png", "the image is a web address"),
        ("data:image/png;base64,AAA", "the image is not valid base64"),
    ],
)
def test_images_that_are_none(
    cell: str | int | None,
    what: str,
    one_file: MakeTask,
    make_rows: MakeRows,
    pictures: Path,
    workspace: Path,
    make_png: MakePng,
) -> None:
    (pictures / "broken.png").write_bytes(b"no image")
    first, second = make_rows(2)
    task = one_file([first, second | {"picture": cell}], columns={"group": None})
    with pytest.raises(InputError, match=what) as caught:
        for item in open_items(task, "test", workspace):
            item.media[0].open()
    assert "all.jsonl:2: column 'picture'" in str(caught.value)


@pytest.mark.parametrize("answer", [None, " ", [""], float("nan")])
def test_no_answer(
    answer: str | list[str] | float | None, one_file: MakeTask, make_rows: MakeRows, workspace: Path
) -> None:
    text = raised(workspace, one_file([make_rows(1)[0] | {"reply": answer}]))
    assert "all.jsonl:1: column 'reply': has no answer. Add the answer or remove the row." in text


def test_id_that_is_not_unique(one_file: MakeTask, workspace: Path) -> None:
    text = raised(workspace, one_file(columns={"id": "picture"}))
    assert "all.jsonl:2: column 'picture': id 'img0.png' occurs twice, also at" in text
    assert "set columns.id: null to count the rows" in text


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("x.jsonl", '{"qid": 1}\n{"qid": \n', r"x.jsonl:2: not valid JSON \(Expecting value"),
        ("x.json", '"text"', "x.json: is not a list of rows"),
        ("x.json", "[1, 2]", "x.json: entry 1: holds int, not an object with columns"),
        ("x.jsonl", "", "x.jsonl: has no rows"),
        ("x.csv", "a,b\n1,2\n1\n", r"x.csv: row 2: has more or fewer cells than the header"),
        ("x.csv", b"a,b\n\xff\xfe,1\n", r"x.csv: cannot be read as CSV \(.*Save it as UTF-8"),
        ("x.parquet", b"PAR1 no", "x.parquet: cannot be read as parquet"),
        ("x.docx", b"", r"x.docx: unknown data format. Known: .parquet"),
    ],
)
def test_broken_files(
    name: str, content: str | bytes, what: str, tmp_path: Path, make_task: MakeTask, workspace: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=what):
        list(open_items(make_task(path, train=None, test="all"), "test", workspace))


def test_no_such_path(tmp_path: Path, make_task: MakeTask, workspace: Path, one_file: MakeTask) -> None:
    one_file()
    text = raised(workspace, make_task(tmp_path / "data" / "al.jsonl", train=None))
    assert "data.path: no file or folder '" in text and "Relative paths start at the YAML" in text


def test_split_that_there_is_not(
    pictures: Path, make_rows: MakeRows, make_task: MakeTask, write_jsonl: WriteJsonl, workspace: Path
) -> None:
    write_jsonl(pictures / "testmini.jsonl", make_rows(2))
    write_jsonl(pictures / "train.jsonl", make_rows(2))
    text = raised(workspace, make_task(pictures), UnknownName)
    assert (
        "data.test" in text
        and "no split 'test'. Did you mean 'testmini'? Available: testmini, train." in text
    )


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"conversations": [{"from": "human", "value": "?"}]}, "entry 1: has 1 messages"),
        ({"conversations": "hello"}, "entry 1: is not a list of messages"),
        (
            {"conversations": [{"from": "human"}, {}]},
            "is not a list of messages, each with 'from' and 'value'",
        ),
        (
            {"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}]},
            "entry 1, turn 1: is a message of 'gpt' that is answered by 'human'",
        ),
    ],
)
def test_invalid_conversations_are_refused(
    entry: dict[str, Any],
    what: str,
    tmp_path: Path,
    make_task: MakeTask,
    workspace: Path,
) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([entry]))
    with pytest.raises(InputError, match=what):
        open_items(make_task(path, train=None, test="all"), "test", workspace)


def test_hub_that_does_not_answer(
    make_task: MakeTask, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'some/data' on the Hub (offline)")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    text = raised(workspace, make_task("some/data"))
    assert "data.path: no file or folder 'some/data', and the hub has no such data set" in text
    assert "offline, download it first, or name a local folder" in text


def test_task_without_a_train_split(one_file: MakeTask, workspace: Path) -> None:
    with pytest.raises(InputError, match=r"data.train: is null: this task is only scored"):
        open_items(one_file(), "train", workspace)


def test_scorer_that_does_not_fit(one_file: MakeTask, workspace: Path) -> None:
    with pytest.raises(InputError, match=r"scorer: 'pope@2' gives an item's own answer at most 0.00, not 1"):
        check_task(one_file(scorer="pope@2"), workspace)
