"""From a number to what it was made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moextend.bench.report.explain import command as command_of
from moextend.bench.report.explain import explain, text
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.rundir import RunDir
from moextend.cli.main import app
from moextend.errors import InputError, UnknownName
from tests.bench.ledger import Kind, Shape, write_runs


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (found,) = write_runs(tmp_path / "runs", Shape(stages=2, texts=1, items=40), {"lora:rank=4": Kind()}, [3])
    return found


def predictions(run: RunDir, task: str) -> Path:
    path = run.cells()[2, task].predictions
    assert path is not None
    return run.folder / path


@pytest.mark.parametrize("task", ["task1", "text1"])
def test_a_sound_score_is_made_again_from_its_answers(run: RunDir, task: str) -> None:
    found = explain(run, 2, task)
    cell = run.cells()[2, task]
    assert found.sound and found.checks == dict.fromkeys(("predictions", "score", "weights"), "ok")
    assert (found.score, found.items, len(found.answers)) == (cell.value, 40, 40)
    right = [answer.score for answer in found.answers]
    assert 100 * sum(score for score in right if score) / 40 == pytest.approx(cell.value)
    assert found.sources["weights"] == cell.weights and found.sources["scorer"] == cell.scorer
    assert "stages/2-task2 sha256 " in found.sources["stage 2 (task2)"]
    assert "--method lora:rank=4 --seed 3" in found.command


def test_changed_answers_are_seen(run: RunDir) -> None:
    path = predictions(run, "task1")
    lines = path.read_text().splitlines(keepends=True)
    right = next(i for i, line in enumerate(lines) if json.loads(line)["prediction"] == "a")
    lines[right] = lines[right].replace('"prediction": "a"', '"prediction": "b"')
    path.write_text("".join(lines))
    found = explain(run, 2, "task1")
    assert found.checks["predictions"] == "not the file that was scored"
    assert found.checks["score"].endswith("when made again from the predictions") and not found.sound


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe", b'{"id": 3}\n'])
@pytest.mark.parametrize("task", ["task1", "text1"])
def test_damaged_answers_are_named_and_raise_nothing(run: RunDir, task: str, content: bytes | None) -> None:
    path = predictions(run, task)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    found = explain(run, 2, task)
    assert not found.sound and found.checks["predictions"] != "ok" and text(found)


def test_changed_weights_are_seen(run: RunDir) -> None:
    weights, card = (run.folder / "stages/1-task1" / f"extension.{end}" for end in ("safetensors", "json"))
    for path, content in ((weights, weights.read_bytes()[:-1] + b"x"), (card, b"{"), (card, None)):
        before = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        assert explain(run, 0, "task1").sound
        found = explain(run, 2, "task1")
        assert found.checks["weights"].startswith("stages/1-task1: ") and not found.sound
        path.write_bytes(before)


def test_weights_that_are_not_here_are_no_damage(run: RunDir) -> None:
    for path in run.folder.rglob("*.safetensors"):
        path.unlink()
    found = explain(run, 2, "task1")
    assert found.sound and "weights" not in found.checks
    assert found.sources["stage 1 (task1)"].endswith(", weights not here")


def test_what_is_not_there_is_named(run: RunDir) -> None:
    with pytest.raises(UnknownName, match="no task 'task'"):
        explain(run, 1, "task")
    with pytest.raises(InputError, match="Name one of 0"):
        explain(run, 3, "task1")
    with pytest.raises(InputError, match="Name one of 0"):
        explain(run, -1, "task1")
    path = run.folder / "scores.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"stage": 1, "task": "task1"' not in line))
    with pytest.raises(InputError, match="was not scored after stage 1 yet"):
        explain(run, 1, "task1")


def command(run: RunDir, *words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["bench", "explain", str(run.folder), *words])
    return found.exit_code, found.stdout


def test_the_command_shows_wrong_answers_first_and_ends_with_1_where_a_check_fails(run: RunDir) -> None:
    code, out = command(run, "2", "task1", "--items", "1")
    assert code == 0 and "answered: b" in out and out.count("expected:") == 1
    code, out = command(run, "2", "task1", "--json")
    assert code == 0 and json.loads(out)["sound"] is True
    predictions(run, "task1").write_text("")
    assert command(run, "2", "task1")[0] == 1


@pytest.mark.parametrize(
    ("asked", "options"), [({}, []), ({"steps": 7}, ["--steps 7"]), ({"limit": 5}, ["--limit 5"])]
)
def test_the_command_gives_the_same_run(asked: dict[str, int], options: list[str], tmp_path: Path) -> None:
    """`tiny` aligns longer than it trains, so that its own steps as an option would make another run."""
    (config,) = resolve(Request(tmp_path, "tiny", ("lora",), **asked))  # type: ignore[arg-type]
    words = command_of(config)
    assert ("--steps" in words, "--limit" in words) == ("steps" in asked, "limit" in asked)
    assert all(option in words for option in options)
