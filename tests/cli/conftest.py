"""The command line, called as a user does."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from moextend.bench.run import launch
from moextend.cli import main

FAKE = [sys.executable, str(Path(__file__).parent.parent / "bench" / "run" / "fake_worker.py")]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd, cache):
    """Calls `moextend` in the workspace tmp_path, with a worker that computes nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".cache").symlink_to(cache)  # generated data are made once, not once a test
    monkeypatch.setattr(launch, "WORKER", FAKE)
    monkeypatch.setattr(launch, "TICK", 0.02)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["moextend", *map(str, arguments)])
        capfd.readouterr()
        try:
            main.run()
            code = 0
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err, json=lambda: json.loads(out))

    return call
