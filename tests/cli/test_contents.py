"""list and add-task from the command line."""

import re
from pathlib import Path

import yaml

from moextend.util import content
from tests.cli.conftest import Cli


def stages(tmp_path: Path) -> list[str]:
    found = yaml.safe_load((tmp_path / "registry/sequence.yaml").read_text())
    return [stage["task"] for stage in found["stages"]]


def test_add_task_makes_a_sequence_and_appends_to_it(cli: Cli, tmp_path: Path) -> None:
    found = cli("bench", "add-task", "tiny-attributes")
    assert found.code == 0, found.err
    assert "tiny-attributes (vqa): " in found.out
    assert "(scores 1 by exact@1)" in found.out
    assert "1. tiny-attributes" in found.out
    assert "Next: moextend bench run" in found.out
    cli("bench", "add-task", "tiny-reading")
    assert stages(tmp_path) == ["tiny-attributes", "tiny-reading"]


def data(tmp_path: Path, rows: int = 20) -> None:
    from PIL import Image

    lines = ["photo,q,label"]
    for i in range(rows):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,what is it {i}?,{'cat' if i % 2 else 'dog'}")
    (tmp_path / "pets.csv").write_text("\n".join(lines) + "\n")


def test_own_data_become_a_task(cli: Cli, tmp_path: Path) -> None:
    data(tmp_path)
    columns = "image=photo,question=q,answer=label"
    found = cli("bench", "add-task", "vqa", "--data", "pets.csv", "--name", "my-pets", "--columns", columns)
    assert found.code == 0, found.err
    assert stages(tmp_path) == ["my-pets"]
    assert yaml.safe_load((tmp_path / "tasks/my-pets.yaml").read_text())["columns"]["image"] == "photo"
    assert "my-pets" in cli("bench", "list").out
    assert "so this is a task about images" not in found.out
    asked = cli("bench", "add-task", "qa", "--data", "pets.csv", "--name", "my-qa", "--columns", columns)
    assert "note: the data have images (column 'photo'), so this is a task about images." in asked.out
    again = cli("bench", "add-task", "vqa", "--data", "pets.csv", "--name", "my-pets")
    assert again.code == 2 and "a task 'my-pets' already exists" in again.err
    for i in range(20):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    broken = cli("bench", "add-task", "vqa", "--data", "pets.csv", "--columns", columns)
    assert broken.code == 2 and "the image is broken" in broken.err
    assert not (tmp_path / "tasks/pets.yaml").exists() and stages(tmp_path) == ["my-pets", "my-qa"]


def test_a_caption_column_may_have_any_name(cli: Cli, tmp_path: Path) -> None:
    data(tmp_path, rows=60)
    for column, more in (("words", ["--columns", "answer=words"]), ("text", [])):
        rows = (tmp_path / "pets.csv").read_text().splitlines()[1:]
        lines = [
            f"image,{column}",
            *(f"{row.split(',')[0]},pet{i} sits on chair{i} with ball{i}" for i, row in enumerate(rows)),
        ]
        (tmp_path / f"{column}.csv").write_text("\n".join(lines) + "\n")
        found = cli("bench", "add-task", "caption", "--data", f"{column}.csv", *more)
        assert found.code == 0, found.err
        columns = yaml.safe_load((tmp_path / f"tasks/{column}.yaml").read_text())["columns"]
        assert (columns["answer"], columns["question"], columns["image"]) == (column, None, "image")


def test_a_sequence_for_another_base_is_made_and_gets_its_first_task(cli: Cli, tmp_path: Path) -> None:
    data(tmp_path)
    own = ["--data", "pets.csv", "--name", "pets", "--columns", "image=photo,question=q,answer=label"]
    assert cli("bench", "new", "sequence", "mine", "--base", "org/model", "--vision", "tiny").code == 0
    found = cli(
        "bench", "add-task", "vqa", *own, "--sequence", "mine", "--prompt", "<image>\nWhich pet? {question}"
    )
    assert found.code == 0, found.err
    assert found.out.endswith("Next: moextend bench run mine\n")
    made = yaml.safe_load((tmp_path / "registry/mine.yaml").read_text())
    assert made["base"] == {"model": "org/model", "vision": "tiny"}
    assert (made["stages"], made["retention"]) == ([{"task": "pets"}], [])
    assert (
        yaml.safe_load((tmp_path / "tasks/pets.yaml").read_text())["prompt"]
        == "<image>\nWhich pet? {question}"
    )
    assert "Which pet? what is it" in found.out


def test_new_sequence(cli: Cli, tmp_path: Path) -> None:
    found = cli("bench", "new", "sequence", "mine")
    assert found.code == 0 and "Next: moextend bench add-task vqa --data DATA --sequence mine" in found.out
    made = yaml.safe_load((tmp_path / "registry/mine.yaml").read_text())
    assert (made["sequence"], made["stages"], made["base"]["model"]) == ("mine", [], "tiny")
    again = cli("bench", "new", "sequence", "mine")
    assert again.code == 2 and "a sequence 'mine' already exists" in again.err
    refused = cli("bench", "new", "method", "m", "--base", "tiny")
    assert "--base: applies only to a new sequence." in refused.err
    assert cli("bench", "add-task", "tiny-counting", "-s", "mine").code == 0


def test_list_names_everything_and_broken_files_with_their_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/bad.yaml").write_text("task: bad\nverson: 1\n")
    found = cli("bench", "list")
    assert found.code == 0
    assert "tiny *" in found.out
    assert "tiny-counting" in found.out
    assert "coin-hide" in found.out
    listed = cli("bench", "list", "--json").json()
    assert {record["name"]: record["rows"] for record in listed["references"]}["coin"] == 6
    records = {record["name"]: record for record in listed["tasks"]}
    assert records["tiny-counting"]["from"] == "package"
    assert records["bad"]["from"] == "workspace"
    assert "tasks/bad.yaml" in records["bad"]["error"]


def test_list_shows_a_task_a_sequence_and_neither(cli: Cli) -> None:
    assert "scorer: exact@1" in cli("bench", "list", "tiny-counting").out
    assert cli("bench", "list", "tiny", "--json").json()["stages"][0]["task"] == "tiny-attributes"
    found = cli("bench", "list", "tiny-counting", "--example")
    assert "# example" in found.out
    wrong = cli("bench", "list", "tiny-countin", "--example")
    assert (wrong.code, "Did you mean 'tiny-counting'" in wrong.err) == (2, True)
    assert cli("bench", "list", "nothing-like-it").code == cli("bench", "list", "--example").code == 2


def test_list_names_below_a_sequence_what_does_not_exist(cli: Cli, tmp_path: Path) -> None:
    file = content.names("registry", tmp_path)["tiny-dev"]
    text = file.read_text().replace("sequence: tiny-dev", "sequence: mine")
    (tmp_path / "registry").mkdir()
    mine = tmp_path / "registry/mine.yaml"
    mine.write_text(text)
    assert cli("bench", "list", "mine").code == 0
    mine.write_text(
        text.replace("task: tiny-rule-2", "task: tiny-rul-2").replace(
            "settings: {learning_rate: 0.00779}", "settings: {learning_rat: 0.00779}", 1
        )
    )
    for more in ([], ["--json"]):
        found = cli("bench", "list", "mine", *more)
        tasks, methods = found.err.splitlines()
        assert found.code == 2 and "tiny-rule-1" in found.out
        assert "mine.yaml: stages[1].task: no task 'tiny-rul-2'. Did you mean 'tiny-rule-2'?" in tasks
        assert "mine.yaml: tuned.moextend: " in methods and "learning_rat: no such key" in methods


def test_questions_without_images_become_a_task_with_a_note(cli: Cli, tmp_path: Path) -> None:
    lines = [f'{{"question": "what color is thing {i} ?", "answer": "red"}}\n' for i in range(40)]
    (tmp_path / "qa.jsonl").write_text("".join(lines))
    found = cli("bench", "add-task", "qa", "--data", "qa.jsonl")
    assert found.code == 0, found.err
    assert "qa (vqa): " in found.out
    assert "note: there is no column of images or sounds: the questions are only text." in found.out
    assert re.search(r"have [1-9]\d* words that the tokenizer of 'tiny' does not know", found.out)
    assert yaml.safe_load((tmp_path / "tasks/qa.yaml").read_text())["columns"]["image"] is None
