"""The command line, called like by a user."""

import json
import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run import launch
from moextend.cli import main
from tests import preloaded

FAKE = str(Path(__file__).parent.parent / "bench" / "run" / "fake_worker.py")


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    code: int | str
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Result]


def typed(words: Sequence[str], capfd: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> Result:
    """How a command ends; `moextend` and `python` are run in this process, which saves their imports."""
    program, *others = words
    assert program in ("moextend", "python"), words
    patch.setattr(sys, "argv", others if program == "python" else list(words))
    capfd.readouterr()
    code: int | str = 0
    try:
        if program == "python":
            runpy.run_path(others[0], run_name="__main__")
        else:
            main.run()
    except SystemExit as end:
        code = end.code or 0
    out, err = capfd.readouterr()
    return Result(code, out, err)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cli(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    cache: Path,
    small_world: None,
    fork_server: str,
) -> Cli:
    """Calls `moextend` in the workspace tmp_path, with a worker that computes nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".cache").symlink_to(cache)  # generated data are made once, not once a test
    monkeypatch.setattr(launch, "WORKER", preloaded.client_command(fork_server, FAKE))
    monkeypatch.setattr(launch, "TICK", 0.02)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: object) -> Result:
        return typed(["moextend", *map(str, arguments)], capfd, monkeypatch)

    return call
