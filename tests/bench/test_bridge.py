"""A run's model in lm-eval gives the numbers of the run's own table."""

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

import moextend
from moextend.bench import bridge
from moextend.bench.run.models import restored
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError
from tests.bench.small import finished, small_workspace

LIMIT = 10


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> RunDir:
    stages = ["tiny-attributes", "tiny-counting"]
    folder = tmp_path_factory.mktemp("bridge")
    return finished(small_workspace(folder, stages, ["tiny-textqa"], limit=LIMIT), "lora")


@pytest.mark.slow
def test_a_stage_is_restored_bit_for_bit(run: RunDir) -> None:
    ids = torch.tensor([[1, 20, 30, 40, 50]])
    with torch.no_grad():
        logits = [restored(run, stage=stage).lm(ids).logits for stage in (0, 1, 2, 2)]
    assert not torch.equal(logits[0], logits[1]) and not torch.equal(logits[1], logits[2])
    assert torch.equal(logits[2], logits[3])
    assert torch.equal(logits[0], moextend.load("tiny").lm(ids).logits)
    with pytest.raises(InputError, match="the run has stages 0 to 2, not 3"):
        restored(run, stage=3)


def printed() -> list[str]:
    """The words of the lm-eval command in docs/serving.md."""
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith("moextend lm-eval "))
    return shlex.split(line, comments=True)


@pytest.mark.long  # 24 s
def test_the_lm_eval_command_of_the_page_gives_the_numbers_of_the_table(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is printed, on a task that needs no network and with where to find it and to write."""
    from moextend.cli.main import app

    packaged = Path(moextend.__file__).parent / "content" / "tasks" / "tiny" / "lm_eval"
    folder = packaged.resolve()
    (tmp_path / "tasks").mkdir()
    for path in folder.glob("*.yaml"):
        (tmp_path / "tasks" / path.name).write_text(path.read_text().replace("{folder}", str(folder)))
    words = ["tiny_textqa" if word == "arc_easy" else word for word in printed()]
    (named,) = (word.removeprefix("run=") for word in words if word.startswith("run="))
    (tmp_path / named).parent.mkdir(parents=True)
    (tmp_path / named).symlink_to(run.folder.resolve())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    where = ["--include_path", "tasks", "--limit", str(LIMIT), "--batch_size", "10", "--output_path", "out"]
    done = CliRunner().invoke(app, words[1:] + where, catch_exceptions=False)
    assert done.exit_code == 0 and "tiny_textqa" in words
    (path,) = (tmp_path / "out").rglob("results*.json")
    found = json.loads(path.read_text())["results"]["tiny_textqa"]["acc,none"]
    assert 100 * found == pytest.approx(run.cells()[2, "tiny-textqa"].value)


def test_what_lm_eval_needs_is_supplied_where_it_is_not_given() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    given = ["--model_args", "run=x", "--tasks", "y"]
    assert bridge.completed(given) == [*given, "--model", "moextend", "--device", device]
    assert bridge.completed(["run", "--device=cpu"]) == ["run", "--device=cpu", "--model", "moextend"]
    for whole in (["ls", "tasks"], ["--help"], ["--config", "c.yaml"], [], ["-M", "hf", "--device", "cpu"]):
        assert bridge.completed(whole) == whole


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ("Tasks not found: arc_esay", "--tasks: no lm-eval task 'arc_esay'. Did you mean 'arc_easy'?"),
        ("No tasks specified", "--tasks: no task is named."),
    ],
)
def test_wrong_tasks_are_refused_in_one_line(
    says: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked() -> None:
        raise ValueError(says)

    monkeypatch.setattr("moextend.bench.bridge.cli_evaluate", asked)
    monkeypatch.setattr("moextend.bench.bridge.TaskManager", lambda: SimpleNamespace(all_tasks=["arc_easy"]))
    before = sys.argv
    with pytest.raises(InputError) as error:
        bridge.main(["--tasks", "x"])
    assert message in str(error.value) and sys.argv is before


def test_arguments_that_name_no_model_are_refused() -> None:
    with pytest.raises(InputError, match="give exactly one of run and pretrained"):
        bridge.MoextendLM()
    with pytest.raises(InputError, match="not a run folder"):
        bridge.MoextendLM(run="nowhere")
