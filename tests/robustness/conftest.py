"""A workspace with a small sequence, and workers that are forked from one process that has imported them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import preloaded


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of a process that forks workers and command lines."""
    path = str(tmp_path_factory.mktemp("server") / "socket")
    process = subprocess.Popen(
        [sys.executable, preloaded.__file__, "serve", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert process.stdin and process.stdout
    assert process.stdout.readline() == b"ready\n"
    yield path
    process.stdin.close()
    process.wait(timeout=20)
    Path(path).unlink()
