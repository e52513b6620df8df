"""The commands of Slurm, written down: each call is a line of `calls`, and files say what they answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

ANSWERS = {
    "sbatch": """
        [ -f "$FAKE/refuse" ] && { cat "$FAKE/refuse" >&2; exit 1; }
        id=$(($(cat "$FAKE/id" 2>/dev/null || echo 100) + 1)); echo $id >"$FAKE/id"
        echo "$id$(cat "$FAKE/cluster" 2>/dev/null)"
    """,
    "squeue": """
        [ -f "$FAKE/hang" ] && exec sleep 60
        [ -f "$FAKE/away" ] && { echo "slurm_load_jobs error: Unable to contact" >&2; exit 1; }
        cat "$FAKE/queue" 2>/dev/null || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
    """,
    "scontrol": """
        case "$1 $2" in
        "show config") cat "$FAKE/config" 2>/dev/null ;;
        esac
    """,
    "scancel": "",
}


@pytest.fixture(scope="module", autouse=True)
def signals() -> Iterator[None]:
    """Ray leaves a handler of SIGTERM in the process, which other tests do not expect."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the answers; the commands are first on the PATH."""
    folder = tmp_path / "fake slurm"
    (folder / "bin").mkdir(parents=True)
    for name, text in ANSWERS.items():
        command = folder / "bin" / name
        command.write_text(f'#!/bin/bash\necho "{name} $*" >>"$FAKE/calls"\n{text}\n')
        command.chmod(0o755)
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return folder


def calls(slurm: Path) -> list[str]:
    """The calls so far; none remain."""
    path = slurm / "calls"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found
