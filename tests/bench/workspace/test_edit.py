"""Commands create and change the sequence of a workspace."""

from pathlib import Path

import pytest
import yaml

from moextend.bench.run.plan import DEFAULT
from moextend.bench.sequence import find_sequence, read_sequence
from moextend.bench.task import find_task, read_task
from moextend.bench.workspace import edit, new_task
from moextend.errors import InputError, SpecError, UnknownName


@pytest.fixture
def draft(tmp_path: Path) -> edit.Draft:
    return edit.draft(None, tmp_path)


def test_a_new_workspace_gets_the_default_without_its_stages(draft: edit.Draft, tmp_path: Path) -> None:
    default = find_sequence(DEFAULT, tmp_path)
    assert (draft.tasks, draft.sequence.sequence) == ([], "sequence")
    assert draft.sequence.retention == default.retention
    assert draft.sequence.train == default.train
    assert not list(tmp_path.iterdir())  # nothing is written yet
    assert draft.write() == tmp_path / "registry" / "sequence.yaml"
    found = read_sequence(tmp_path / "registry" / "sequence.yaml")
    assert found.memory_file() == default.memory_file()
    memory = found.memory_file()
    assert memory and memory.is_file()


def test_a_change_of_somebody_else_is_not_overwritten(draft: edit.Draft, tmp_path: Path) -> None:
    path = draft.write()
    first, second = (edit.draft(None, tmp_path) for _ in range(2))
    edit.add(first, edit.next_default("vqa", first)).write()
    text = path.read_text()
    with pytest.raises(InputError, match="was changed by somebody else meanwhile"):
        edit.add(second, edit.next_default("vqa", second)).write()
    assert path.read_text() == text
    with pytest.raises(InputError, match="was changed by somebody else meanwhile"):
        draft.write()


def test_the_packages_tasks_come_in_the_order_of_the_default(draft: edit.Draft, tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        task = edit.next_default("vqa", draft)
        names.append(task.task)
        draft = edit.add(draft, task)
    assert names == draft.tasks == [stage.task for stage in find_sequence(DEFAULT, tmp_path).stages]


def test_when_the_package_has_no_more_the_hint_is_own_data(draft: edit.Draft) -> None:
    with pytest.raises(InputError, match=r"all text tasks .* are in the sequence.* --data PATH"):
        edit.next_default("text", draft)


def test_a_task_is_added_once(draft: edit.Draft, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is already in the sequence"):
        edit.add(draft, find_task("tiny-facts", tmp_path))


def test_a_sequence_of_the_package_is_copied_not_changed(tmp_path: Path) -> None:
    before = find_sequence(DEFAULT, tmp_path)
    added = new_task.new_task("text", "arc_easy", tmp_path, name=None, columns={}, scorer=None)
    edit.add(edit.draft(DEFAULT, tmp_path), added).write()
    assert before.path and read_sequence(before.path) == before
    assert find_sequence(DEFAULT, tmp_path).retention == [*before.retention, "arc_easy"]


def test_a_broken_sequence_is_reported_before_it_is_edited(tmp_path: Path) -> None:
    path = tmp_path / "registry" / "sequence.yaml"
    path.parent.mkdir()
    path.write_text("sequence: x\nversion: 1\nbase: {model: tiny}\nstage: []\ntrain: {}\n")
    with pytest.raises(SpecError, match=r"sequence.yaml: "):
        edit.draft(None, tmp_path)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("data/My set.jsonl", "my-set"),
        ("/x/y/folder/", "folder"),
        ("Org/VQAv2", "vqav2"),
        ("a.b.parquet", "a.b"),
        ("world:counting", "counting"),
        ("___.csv", "___"),
        ("...", "task"),
    ],
)
def test_names_made_from_data(data: str, name: str) -> None:
    assert new_task.default_name(data) == name


def test_names_that_are_taken_or_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a task 'tiny-facts' already exists"):
        new_task.free_name("tiny-facts", tmp_path)
    for name in ("../x", "", "a b", "-x"):
        with pytest.raises(InputError, match="is not a name"):
            new_task.free_name(name, tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "mine"
    folder.mkdir()
    rows = ["image,question,answer"]
    for i in range(20):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,what is it {i}?,{'cat' if i % 2 else 'dog'}")
    (folder / "data.csv").write_text("\n".join(rows) + "\n")
    return folder / "data.csv"


def test_a_task_made_from_data_can_be_read_again(data: Path, tmp_path: Path) -> None:
    task = new_task.new_task("vqa", str(data), tmp_path, name="pets", columns={}, scorer=None)
    found = new_task.check(task, tmp_path)
    assert sum(found["items"].values()) == 20
    assert found["answer"] in ("cat", "dog")
    path = new_task.write_task(task)
    assert path == tmp_path / "tasks" / "pets.yaml"
    again = read_task(path)
    assert again == task
    assert new_task.check(again, tmp_path) == found
    assert yaml.safe_load(path.read_text())["data"]["path"] == "../mine/data.csv"


def test_data_of_another_kind_is_reported(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="looks like a vqa task: its columns hold a question"):
        new_task.new_task("caption", str(data), tmp_path, name=None, columns={}, scorer=None)


def test_a_text_task_names_an_lm_eval_task(tmp_path: Path) -> None:
    task = new_task.new_task("text", "arc_easy", tmp_path, name=None, columns={}, scorer=None)
    new_task.write_task(task)
    again = find_task("arc_easy", tmp_path)
    assert again.lm_eval
    assert (again.kind, again.lm_eval.task, again.data) == ("text", "arc_easy", None)


def test_a_file_or_an_unknown_name_is_no_text_task(tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text('{"question": "a?", "answer": "b"}\n')
    with pytest.raises(InputError, match=r"--data: '.*mine.jsonl' is a file; .*lm-eval.*add-task qa --data"):
        new_task.new_task("text", str(data), tmp_path, name=None, columns={}, scorer=None)
    for missing in ("no.jsonl", "no/folder"):
        with pytest.raises(InputError, match=f"--data: there is no folder '{missing}'"):
            new_task.new_task("text", missing, tmp_path, name="mine", columns={}, scorer=None)
    task = new_task.new_task("text", "arc_esay", tmp_path, name="mine", columns={}, scorer=None)
    with pytest.raises(UnknownName, match=r"^--data: no lm-eval task 'arc_esay'. Did you mean 'arc_easy'"):
        new_task.check(task, tmp_path, "tiny")


def test_an_edited_sequence_keeps_its_line_ends(tmp_path: Path) -> None:
    made = edit.new("mine", tmp_path)
    path = edit.add(made, find_task("tiny-counting", tmp_path)).write()
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    edit.add(edit.draft("mine", tmp_path), find_task("tiny-reading", tmp_path)).write()
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) > 3 and all(line.endswith(b"\r\n") for line in lines)
    assert edit.draft("mine", tmp_path).tasks == ["tiny-counting", "tiny-reading"]
