"""A run is verified: files, scores, and answers made again by the restored model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from moextend.bench.report.verify import verify
from moextend.bench.run.complete import kept_files
from moextend.bench.run.pack import pack, unpack
from moextend.bench.run.rundir import RunDir
from moextend.bench.score.vqa import scores_path
from moextend.cli.main import app
from moextend.errors import RunConflict
from moextend.util import files
from tests.bench.small import finished, small_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> Path:
    """Workspace with one done run."""
    folder = small_workspace(
        tmp_path_factory.mktemp("verify"), ["tiny-reading"], ["tiny-textqa"], limit=20, together=8
    )
    finished(folder, "lora")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunDir:
    shutil.copytree(made / "runs", tmp_path / "runs")
    return RunDir(tmp_path / "runs" / "small" / "lora-s0")


def predictions(run: RunDir) -> Path:
    path = run.cells()[1, "tiny-reading"].predictions
    assert path is not None
    return run.folder / path


def change_an_answer(run: RunDir) -> None:
    path = predictions(run)
    lines = files.read_lines(path)
    lines[0]["prediction"] = "something else"
    files.write_lines(path, lines)


def change_the_weights(run: RunDir) -> None:
    """Changes weights with all digests of files, which no comparison of files can see."""
    folder = run.stage_folder(1, "tiny-reading")
    path, card = folder / "extension.safetensors", folder / "extension.json"
    tensors = load_file(path)
    name = max(tensors, key=lambda key: tensors[key].numel())
    save_file({**tensors, name: torch.flip(tensors[name], (0,)).contiguous()}, path)
    files.write_json(card, {**files.read_json(card), "sha256": files.sha256(path)})
    cost = run.costs()[1]
    run.write_cost(1, "tiny-reading", cost.model_copy(update={"files": kept_files(folder)}))


def change_a_score(run: RunDir) -> None:
    cell = run.cells()[1, "tiny-reading"]
    run.append_cell(cell.model_copy(update={"value": cell.value + 5}))


def change_an_item_score(run: RunDir) -> None:
    path = scores_path(predictions(run), run.cells()[1, "tiny-reading"].scorer)
    text = path.read_text()
    path.write_text(text.replace('"score": 0.0', '"score": 1.0', 1) if '"score": 0.0' in text else text + "x")


def remove_weights(run: RunDir) -> None:
    (run.stage_folder(1, "tiny-reading") / "extension.safetensors").unlink()


@pytest.mark.slow  # trains and answers: 5 s
def test_an_unchanged_run_answers_the_same_again(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moextend.util.environment._version", lambda package: "another")
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    found = verify(run, batches=1)
    assert found.sound, found
    assert [check.name for check in found.checks] == ["files", "scores", "data", "answers"]
    items, cells = found.checks[3].done.split(" of ", 1)
    assert (
        cells == "4 cells" and 3 * 8 < int(items.split()[0]) <= 4 * 8
    )  # the batch that is drawn may be the last one
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("damage", "wrong", "words"),
    [
        (change_an_answer, {"files", "scores"}, "not the file that was scored"),
        (change_a_score, {"scores"}, "when made again from the predictions"),
        (change_an_item_score, {"scores"}, "the kept scores of its items do not give its score"),
        (remove_weights, {"files"}, "extension.safetensors missing"),
    ],
)
def test_damage_is_found_without_a_model(
    run: RunDir, damage: Callable[[RunDir], None], wrong: set[str], words: str
) -> None:
    damage(run)
    found = verify(run, batches=0)
    assert {check.name for check in found.checks if check.problems} == wrong
    assert words in str(found.checks) and all(check.hint for check in found.checks if check.problems)


def test_other_data_are_to_be_repaired_before_the_command_is_run_again(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(run: RunDir, memo: object) -> None:
        raise RunConflict("the code of scorer 'mine' is another than that of the scores.")

    monkeypatch.setattr("moextend.bench.report.verify.refuse_other_inputs", refused)
    remove_weights(run)
    files, _, data = verify(run, batches=0).checks
    assert "scorer 'mine'" in data.problems[0] and "Restore" in data.hint
    assert files.hint.startswith("Repair what is wrong with the data first. Run the same command")


def test_what_a_pack_leaves_out_is_one_problem_a_check(run: RunDir, tmp_path: Path) -> None:
    pack([run], tmp_path / "r.tar.zst", predictions=False)
    (folder,) = unpack(tmp_path / "r.tar.zst", tmp_path / "there", tmp_path).written
    files, items, scores, answers = verify(RunDir(folder)).checks
    assert files.problems == items.problems == ()
    assert (
        scores.unchecked == "the pack of this run left out predictions" and f"emove {folder}" in scores.hint
    )
    assert answers.unchecked == "the pack of this run left out predictions and weights"
    (folder / "items.json").write_text("{}")
    damaged = verify(RunDir(folder), batches=0).checks[1]
    assert "was edited" in damaged.problems[0] and f"Remove {folder}" in damaged.hint
    (folder / "items.json").unlink()
    assert [check.name for check in verify(RunDir(folder), batches=0).checks] == ["files", "scores"]


@pytest.mark.slow  # loads a model: 2 s each
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change_the_weights, "tiny-reading after stage 1: the restored model has the fingerprint"),
        (remove_weights, "stage 1 (tiny-reading) is not trained yet"),
    ],
)
def test_other_weights_are_found_by_their_fingerprint(
    run: RunDir, damage: Callable[[RunDir], None], words: str
) -> None:
    damage(run)
    found = verify(run, batches=1).checks[3]
    assert words in " ".join(found.problems) and found.hint


def test_the_command_says_what_is_wrong_with_exit_code_1(run: RunDir) -> None:
    words = ["bench", "verify", "small/lora-s0", "--batches", "0", "-w", str(run.folder.parents[2])]
    good = CliRunner().invoke(app, words)
    assert good.exit_code == 0 and "files: ok" in good.output
    remove_weights(run)
    bad = CliRunner().invoke(app, words)
    assert bad.exit_code == 1 and "extension.safetensors missing" in bad.output and "hint:" in bad.output
    record = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert record[0]["sound"] is False and record[0]["checks"][0]["problems"]
