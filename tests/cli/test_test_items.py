"""Test items that are in training: `bench run` warns, and `bench tune` refuses."""

import re
import runpy
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

TUTORIAL = Path(__file__).parents[2] / "docs/tutorials/forgetting-table.md"


@pytest.fixture
def tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace of the tutorial, before its run."""
    monkeypatch.chdir(tmp_path)
    text = TUTORIAL.read_text("utf-8")
    for name, content in re.findall(r'^```\w+ title="(.*?)"\n(.*?)^```$', text, re.DOTALL | re.MULTILINE):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(content)
    runpy.run_path("make_data.py", run_name="__main__")
    return tmp_path


@pytest.mark.slow  # the pictures of two tasks are compared three times: 6 s
def test_the_tutorial_has_none_and_an_added_one_is_named(cli: Cli, tutorial: Path) -> None:
    tasks = cli("bench", "audit", "sequence", "--no-base", "--json").json()["tasks"]
    shares = {task["task"]: (task["duplicates"], task["shared"]) for task in tasks if task["train"]}
    assert shares == {"colors": (0, 0), "shapes": (0, 0)}
    train, test = (tutorial / "data/colors" / f"{split}.csv" for split in ("train", "test"))
    row = train.read_text().splitlines()[3]
    test.write_text(test.read_text() + row + "\n")
    words = "test.csv: row 81 is .*train.csv: row 3"
    done = cli("bench", "run", "-m", "lora", "--seed", "1")
    assert done.code == 0 and re.search(
        f"test items of 'colors' are in its training data .*{words}", done.err
    )
    done = cli("bench", "tune", "-m", "lora", "--budget", "1")
    assert done.code == 2 and re.search(words, done.err) and "bench audit" in done.err
