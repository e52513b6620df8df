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
    assert (draft.sequence.stages, draft.sequence.sequence) == ([], "sequence")
    assert draft.sequence.retention == default.retention
    assert draft.sequence.train == default.train
    assert not list(tmp_path.iterdir())  # nothing is written yet
    assert draft.write() == tmp_path / "registry" / "sequence.yaml"
    found = read_sequence(tmp_path / "registry" / "sequence.yaml")
    assert found.memory_file() == default.memory_file()
    memory = found.memory_file()
    assert memory and memory.is_file()


def test_a_task_is_added_once(draft: edit.Draft, tmp_path: Path) -> None:
    for name in ("tiny-facts", "tiny-counting"):
        with pytest.raises(InputError, match="is already in the sequence"):
            edit.add(edit.add(draft, find_task("tiny-counting", tmp_path)), find_task(name, tmp_path))


def test_a_sequence_of_the_package_is_copied_not_changed(tmp_path: Path) -> None:
    before = find_sequence(DEFAULT, tmp_path)
    added = new_task.new_task("text", "arc_easy", tmp_path)
    edit.add(edit.draft(DEFAULT, tmp_path), added).write()
    assert find_sequence(str(before.path), tmp_path) == before
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
    task = new_task.new_task("vqa", str(data), tmp_path, name="pets")
    found = new_task.check(task, tmp_path)
    assert sum(found["items"].values()) == 20
    assert found["answer"] in ("cat", "dog")
    path = new_task.write_task(task)
    assert path == tmp_path / "tasks" / "pets.yaml"
    again = read_task(path)
    assert again == task and new_task.check(again, tmp_path) == found
    with pytest.raises(InputError, match="a task 'pets' already exists"):
        new_task.new_task("vqa", str(data), tmp_path, name="pets")
    with pytest.raises(InputError, match="looks like a vqa task: its columns hold a question"):
        new_task.new_task("caption", str(data), tmp_path)
    assert yaml.safe_load(path.read_text())["data"]["path"] == "../mine/data.csv"


def test_a_file_or_an_unknown_name_is_no_text_task(tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text('{"question": "a?", "answer": "b"}\n')
    with pytest.raises(InputError, match=r"--data: '.*mine.jsonl' is a file; .*lm-eval.*add-task qa --data"):
        new_task.new_task("text", str(data), tmp_path)
    for missing in ("no.jsonl", "no/folder"):
        with pytest.raises(InputError, match=f"--data: '{missing}' is no folder"):
            new_task.new_task("text", missing, tmp_path, name="mine")
    task = new_task.new_task("text", "arc_esay", tmp_path, name="mine")
    with pytest.raises(UnknownName, match=r"^--data: no lm-eval task 'arc_esay'. Did you mean 'arc_easy'"):
        new_task.check(task, tmp_path, "tiny")


def test_an_edited_sequence_keeps_its_line_ends(tmp_path: Path) -> None:
    made = edit.new("mine", tmp_path)
    path = edit.add(made, find_task("tiny-counting", tmp_path)).write()
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    edit.add(edit.draft("mine", tmp_path), find_task("tiny-reading", tmp_path)).write()
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) > 3 and all(line.endswith(b"\r\n") for line in lines)
    stages = edit.draft("mine", tmp_path).sequence.stages
    assert [stage.task for stage in stages] == ["tiny-counting", "tiny-reading"]
