"""A damaged run is repaired, with the same scores, predictions and weights, or refused in one line."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from _pytest.mark import ParameterSet
from safetensors.torch import load_file

from moextend.bench.run import launch
from moextend.bench.run.rundir import RunDir
from moextend.cli import main
from moextend.util import lease
from tests import preloaded

from . import damages, workspace
from .clear import tree, unclear

METHODS = {"lora": "lora", "half": "lora", "auto": "moextend:scope=auto"}
NAMES = {"lora": "lora-s0", "half": "lora-s0", "auto": "moextend+scope-auto-s0"}
CHECKPOINT = "runs/small/lora-s0/stages/2-*/train-in-flight/checkpoint-2/manifest.json"
HANG = 120
"""Seconds after which a command counts as hanging."""
OURS = ("status.json", ".lease", "worker.log", "job.json", "cancel.json")
"""Files of a run that hold no result."""

Cli = Callable[..., SimpleNamespace]


@pytest.fixture
def cli(forked_workers: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Calls `moextend` with workers that are forked."""
    monkeypatch.setattr(launch, "TICK", 0.02)
    monkeypatch.setattr(lease, "SECONDS", 2.0)  # that of another host is waited for
    monkeypatch.setenv("COLUMNS", "200")
    return caller(capfd, monkeypatch)


def caller(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    def late(*_: object) -> None:
        raise TimeoutError("it hangs")

    def call(*arguments: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["moextend", *map(str, arguments)])
        capfd.readouterr()
        before = signal.signal(signal.SIGALRM, late)
        signal.alarm(HANG)
        try:
            main.run()
            code: Any = 0
        except SystemExit as end:
            code = end.code
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return call


@pytest.fixture(scope="module")
def pristine(fork_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Workspaces with done runs, and with one that was killed, and the place where copies of them are damaged."""
    live = tmp_path_factory.mktemp("live") / "w"
    done, half = live.with_name("done"), live.with_name("half")

    def command(method: str, **environment: str) -> None:
        words = ("bench", "run", "small", "-m", method)
        preloaded.run(fork_server, str(live), str(live.parent / "output"), *words, **environment)

    workspace.make(live)
    command("moextend:scope=auto")
    command("lora", KILL_WHEN=CHECKPOINT)
    assert list(live.glob(CHECKPOINT)), (live.parent / "output").read_text()
    shutil.copytree(live, half, symlinks=True)
    command("lora")
    shutil.copytree(live, done, symlinks=True)
    found = {name: results(done / "runs/small" / name) for name in set(NAMES.values())}
    yield SimpleNamespace(live=live, done=done, half=half, results=found)
    shutil.rmtree(live.parent)


def results(folder: Path) -> dict[str, Any]:
    """Scores, predictions and weights of a run."""
    run = RunDir(folder)
    cells = run.cells()
    found: dict[str, Any] = {}
    for (stage, task), cell in sorted(cells.items()):
        found[f"{stage} {task}"] = (cell.value, cell.stderr, cell.n, cell.scorer, cell.by_kind)
        assert cell.predictions
        found[f"{stage} {task} predictions"] = (folder / cell.predictions).read_text()
    for path in sorted(folder.glob("stages/*/extension.safetensors")):
        found[path.parent.name] = {name: tensor.tolist() for name, tensor in load_file(path).items()}
    return found


def plain(folder: Path) -> dict[str, str]:
    """What lies in the workspace, without what holds no result."""
    found = tree(folder, but=(".cache",)).items()
    return {name: kind for name, kind in found if not Path(name).name.startswith(OURS)}


def answered(found: SimpleNamespace, command: str) -> None:
    """The answer is one that a user can read."""
    output = found.out + found.err
    assert "Traceback" not in output, output
    assert found.code in (0, 1, 2), f"{command}: {found.code}"
    if found.code:
        last = found.err.strip().splitlines()
        assert last, f"{command} ended with {found.code} and printed nothing"
        assert not unclear(last[-1]), f"{command}: {unclear(last[-1])}"


def damage_params() -> Iterator[ParameterSet]:
    """All damages; one of ten runs always, the others are long tests."""
    for place, (what, which, damage) in enumerate(damages.DAMAGES):
        yield pytest.param(what, which, damage, id=what, marks=[pytest.mark.long] if place % 10 else [])


@pytest.mark.parametrize("what, which, damage", list(damage_params()))
def test_a_damage(
    what: str,
    which: str,
    damage: damages.Damage,
    pristine: SimpleNamespace,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live, name = pristine.live, NAMES[which]
    shutil.rmtree(live)
    shutil.copytree(pristine.half if which == "half" else pristine.done, live, symlinks=True)
    monkeypatch.chdir(live)
    run = live / "runs/small" / name
    whole = cli("bench", "report").out
    damage(SimpleNamespace(workspace=live, run=run))
    damaged = plain(live)
    for command in ("status", "report"):
        found = cli("bench", command)
        answered(found, command)
        assert plain(live) == damaged, f"{command} wrote something"
        if command == "report" and found.code == 0 and which != "half" and run.is_dir():
            same = numbers(found.out, METHODS[which]) == numbers(whole, METHODS[which])
            assert same or name in found.out + found.err, "a changed report does not say what is wrong"
    found = cli("bench", "run", "small", "-m", METHODS[which])
    answered(found, "run")
    if found.code == 0:
        assert results(run) == pristine.results[name], "it was not healed"
        if which != "half":
            assert cli("bench", "report").out == whole
    else:
        refused(found, damaged, live)


def numbers(report: str, method: str) -> list[str]:
    """The numbers of a method's row."""
    rows = [line.split() for line in report.splitlines()]
    return [word for row in rows if row[:1] == [method] for word in row[2:]]


def refused(found: SimpleNamespace, damaged: dict[str, str], live: Path) -> None:
    """The command named the damage, and took nothing away."""
    now = plain(live)
    grows = (".jsonl", "config.json")  # a worker that began adds lines, and what it was started with
    lost = {name for name, kind in damaged.items() if now.get(name, "") != kind and not name.endswith(grows)}
    assert not lost, f"lost: {lost}"
    signs = {2: "^error: |[^:] failed: ", 1: "[^:] failed: "}[found.code]  # a worker also finds wrong input
    output = [line for line in found.err.splitlines() if re.search(signs, line)]
    assert len(output) == 1 and not unclear(output[0]), f"exit {found.code}: {found.err}"
    by_worker = found.code == 2 and "failed: " in output[0]
    assert not by_worker or "Fix this, and repeat the command" in found.err
