"""A user's own method, from an empty workspace to a row in the table; reports of broken plug-ins."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

EXAMPLE = Path(__file__).parents[2] / "examples" / "methods" / "lora_l2.py"
SMALL = """
sequence: small
version: 1
base: {model: tiny, vision: tiny}
stages: [{task: colours}, {task: shapes}]
train: {steps: 2, batch_size: 4, learning_rate: 0.01}
"""
TASK = """
task: NAME
version: 1
kind: vqa
data: {path: ../NAME}
columns: {image: null}
prompt: "{question}"
"""
TASKS = {"colours": ("what color is thing", "red"), "shapes": ("what shape is thing", "cube")}


@pytest.fixture
def small(cli: Cli, tmp_path: Path, forked_workers: str) -> Cli:
    """The command line with true workers, in a workspace with a small sequence over text."""
    for folder in ("registry", "tasks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "registry" / "sequence.yaml").write_text(SMALL)
    for name, (question, answer) in TASKS.items():
        (tmp_path / "tasks" / f"{name}.yaml").write_text(TASK.replace("NAME", name))
        for split in ("train", "test"):
            lines = [{"question": f"{question} {i} ?", "answer": answer} for i in range(40)]
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return cli


def row(out: str, name: str) -> list[str]:
    (found,) = [line.split() for line in out.splitlines() if line.split()[:1] == [name]]
    return found


@pytest.mark.slow
def test_the_example_runs_from_a_workspace_and_notes_where_it_came_from(small: Cli, tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    shutil.copy(EXAMPLE, tmp_path / "methods")
    found = small("bench", "run", "--method", "lora-l2", "--steps", "2", "--limit", "5", "--jobs", "1")
    assert found.code == 0, found.err
    assert row(found.out, "lora-l2")[1] == "none"
    written = small("bench", "new", "method", "mine")
    assert written.code == 0 and "Next: moextend bench run --method mine" in written.out
    again = small("bench", "new", "method", "mine")
    assert again.code == 2 and "'mine' is taken" in again.err
    made = small("bench", "run", "--method", "mine", "--steps", "2", "--limit", "5", "--jobs", "1")
    assert row(made.out, "mine")[1] == "none"
    (facts,) = tmp_path.glob("runs/small/lora-l2-s0/facts.json")
    assert "code of method 'lora-l2'" in facts.read_text()
    with (tmp_path / "methods" / "lora_l2.py").open("a") as file:
        file.write("# changed\n")
    again = small("bench", "run", "--method", "lora-l2", "--steps", "2", "--limit", "5")
    assert again.code == 2
    assert "the code of method 'lora-l2' changed after this run began" in again.err
    (tmp_path / "methods" / "lora_l2.py").unlink()
    assert row(small("bench", "report").out, "lora-l2")[1] == "none", "a report needs no method"


def test_list_shows_where_methods_and_scorers_come_from(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    shutil.copy(EXAMPLE, tmp_path / "methods")
    (tmp_path / "methods" / "bad.py").write_text("x = (\n")
    assert cli("bench", "new", "scorer", "my-rule").code == 0
    found = cli("bench", "list")
    assert found.code == 0, found.err
    assert row(found.out, "lora-l2")[1:3] == ["workspace", "none"]
    assert "SyntaxError" in found.out and "Traceback" not in found.out + found.err
    listed = cli("bench", "list", "--json").json()
    records = {record["name"]: record for record in [*listed["methods"], *listed["scorers"]]}
    assert (records["lora"]["from"], records["lora"]["file"]) == ("package", None)
    assert records["moextend"]["task_identity"] == "given"
    assert records["lora-l2"]["file"] == "methods/lora_l2.py"
    assert records["my-rule@1"]["from"] == "workspace"
    assert records["exact@1"]["from"] == "package"
    assert "methods/bad.py:1: cannot be imported" in records["bad"]["error"]


def test_a_scorer_of_the_workspace_scores_a_task(cli: Cli, tmp_path: Path) -> None:
    cli("bench", "new", "scorer", "my-rule")
    lines = [f'{{"question": "what color is thing {i} ?", "answer": "dark red"}}\n' for i in range(40)]
    (tmp_path / "qa.jsonl").write_text("".join(lines))
    found = cli("bench", "add-task", "qa", "--data", "qa.jsonl", "--scorer", "my-rule@1")
    assert found.code == 0, found.err
    assert "(scores 1 by my-rule@1)" in found.out
    assert cli("bench", "list", "qa").code == 0
    wrong = cli("bench", "add-task", "qa", "--data", "qa.jsonl", "--name", "x", "--scorer", "my-rul@1")
    assert (wrong.code, "Did you mean 'my-rule@VERSION'" in wrong.err) == (2, True)


def test_run_names_a_broken_plug_in_in_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "bad.py").write_text("raise RuntimeError('boom')\n")
    found = cli("bench", "run", "--method", "bad", "--dry-run")
    assert found.code == 2
    assert found.err.strip() == (
        "error: methods/bad.py:1: cannot be imported (RuntimeError: boom). Correct the file."
    )
    rest = cli("bench", "run", "--method", "all", "--dry-run")
    assert rest.code == 0
    assert "left out: methods/bad.py:1: cannot be imported (RuntimeError: boom)" in rest.err
