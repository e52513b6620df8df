"""Mutated image files are decoded or refused: no other exception, no warning, no hang, no excessive memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from . import fuzzing


def fuzz(first: int, count: int) -> None:
    found = subprocess.run(
        [sys.executable, fuzzing.__file__, str(first), str(count)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "default"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    assert "Warning" not in found.stderr and "Traceback" not in found.stderr, "only lines of libtiff"
    *problems, last = [json.loads(line) for line in found.stdout.splitlines()]
    assert not problems and last["decoded"] == count, problems


def test_five_thousand_mutated_images() -> None:
    fuzz(0, 5000)


@pytest.mark.long
@pytest.mark.parametrize("first", range(5_000, 55_000, 10_000))
def test_fifty_thousand_mutated_images(first: int) -> None:
    fuzz(first, 10_000)
