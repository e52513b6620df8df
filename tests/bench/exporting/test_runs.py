"""Exports of a run's stages give the cells of its text tasks, scored by lm-eval with plain transformers or peft."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import moextend
from moextend.bench.exporting import stage
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError, UnknownName
from tests.bench.small import finished, small_workspace

LIMIT = 40
PAPER = "moextend:routing=paper,calibration=false,layers=all,scope=all"
SCORE = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
if sys.argv[2] != "stock": import moextend; moextend.register_auto_classes()
else: sys.modules["moextend"] = None
found = simple_evaluate(model="hf", model_args=json.loads(sys.argv[1]), tasks=["tiny_textqa", "tiny_facts"],
    task_manager=TaskManager(include_path="tasks", include_defaults=False), limit={limit}, batch_size=10, device="cpu")
print("RESULT", json.dumps({{name: 100 * each["acc,none"] for name, each in found["results"].items()}}))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> dict[str, RunDir]:
    stages, text = ["tiny-attributes", "tiny-counting"], ["tiny-textqa", "tiny-facts"]
    folder = small_workspace(
        tmp_path_factory.mktemp("exports"), stages, text, limit=LIMIT, steps=8, batch_size=8
    )
    return {"lora": finished(folder, "lora"), "paper": finished(folder, PAPER)}


def exported(source: Path, form: str, out: Path, *more: str) -> None:
    from moextend.cli.main import app

    words = ["export", str(source), "--as", form, "--out", str(out), *more]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0


def scored(form: str, arguments: str, folder: Path) -> dict[str, float]:
    """Scores in a fresh process, by lm-eval's own class for transformers."""
    import json

    packaged = (Path(moextend.__file__).parent / "content" / "tasks" / "tiny" / "lm_eval").resolve()
    (folder / "tasks").mkdir(exist_ok=True)
    for path in packaged.glob("*.yaml"):
        (folder / "tasks" / path.name).write_text(path.read_text().replace("{folder}", str(packaged)))
    (folder / "score.py").write_text(SCORE.format(limit=LIMIT))
    done = subprocess.run(
        [sys.executable, "score.py", arguments, form], cwd=folder, capture_output=True, text=True, timeout=600,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    found: dict[str, float] = json.loads(line.removeprefix("RESULT "))
    return found


@pytest.mark.long
@pytest.mark.parametrize(("run", "form"), [("paper", "stock"), ("paper", "moextend"), ("lora", "peft")])
def test_exports_reproduce_the_cells_of_text_tasks(
    run: str, form: str, runs: dict[str, RunDir], tmp_path: Path
) -> None:
    found = runs[run]
    source = found.folder / "stages" / "2-tiny-counting"
    exported(source, form, tmp_path / "out")
    arguments = f'{{"pretrained": "{tmp_path / "out"}"}}'
    if form == "peft":
        base = (Path(moextend.__file__).parent / "content" / "registry" / "models" / "tiny" / "lm").resolve()
        arguments = f'{{"pretrained": "{base}", "peft": "{tmp_path / "out"}"}}'
    cells = found.cells()
    expected = {name.replace("-", "_"): cells[2, name].value for name in ("tiny-textqa", "tiny-facts")}
    assert scored(form, arguments, tmp_path) == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_a_stage_is_named_by_its_run_or_its_folder(
    tmp_path_factory: pytest.TempPathFactory, small_world: None, tmp_path: Path
) -> None:
    folder = small_workspace(
        tmp_path_factory.mktemp("named"),
        ["tiny-attributes", "tiny-counting"],
        [],
        limit=2,
        steps=1,
        batch_size=2,
    )
    run = finished(folder, "lora")
    parent, named = run.folder.parent.parent, f"small/{run.folder.name}"
    assert (stage.find(f"{named}:1", parent).stage, stage.find(named, parent).stage) == (1, 0)
    source = run.folder / "stages" / "2-tiny-counting"
    found = stage.find(str(source), Path("nowhere"))
    assert (found.run.folder, found.stage) == (run.folder, 2)
    with pytest.raises(UnknownName, match="no run 'lora-s7'"):
        stage.find("lora-s7:1", parent)
    with pytest.raises(InputError, match="stages 1 to 2, not 3"):
        stage.opened(stage.find(f"{named}:3", parent))
    with pytest.raises(UnknownName, match="no task of the run 'nothing'"):
        stage.opened(stage.find(named, parent), "nothing")
    with pytest.raises(InputError, match="the stage has no extensions"):
        exported(source, "moextend", tmp_path / "out")
    with pytest.raises(InputError, match="are written as float32"):
        exported(source, "stock", tmp_path / "out", "--dtype", "bfloat16")
    assert not (tmp_path / "out").exists()
