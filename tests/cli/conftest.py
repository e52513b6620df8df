"""The command line, called like by a user."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run import launch
from moextend.cli import main

FAKE = [sys.executable, str(Path(__file__).parent.parent / "bench" / "run" / "fake_worker.py")]


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    code: int | str | None
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Result]


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
) -> Cli:
    """Calls `moextend` in the workspace tmp_path, with a worker that computes nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".cache").symlink_to(cache)  # generated data are made once, not once a test
    monkeypatch.setattr(launch, "WORKER", FAKE)
    monkeypatch.setattr(launch, "TICK", 0.02)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["moextend", *map(str, arguments)])
        capfd.readouterr()
        try:
            main.run()
            code: int | str | None = 0
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call
