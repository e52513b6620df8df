"""Writes run folders of all states, as data for `bench status`: ``python -m tests.bench.states OUT [RUNS] [STAGES]``.

They have the files, sizes and digests of real runs (see ledger.py). Of ten runs, five are done; one each runs on this
host, runs on another host, is lost, was killed, failed.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from moextend.bench.run.progress import LEASE, STATUS, read_status
from moextend.bench.run.records import RunError, Status
from moextend.bench.run.rundir import RunDir
from tests.bench import ledger

GONE = 2**22 + 1
"""A process id that Linux does not give."""
SILENT = 3600.0


def hold(folder: Path, **changes: Any) -> Path:
    """Leaves a lease in the folder of a run, as a process of another host does; the file."""
    holder = {"pid": 12, "host": "nodeA", "mode": "lease", "token": "0", "duration": 2.0, **changes}
    path = folder / LEASE
    path.unlink(missing_ok=True)
    path.write_text("\n".join(["filelock/2", *(f"{key}={value}" for key, value in holder.items()), ""]))
    return path


def write(runs: Path, count: int, stages: int = 10) -> list[RunDir]:
    """`count` runs in turn of every state."""
    shape = ledger.Shape(stages, texts=stages // 2, items=20)
    found = []
    for number in range(count):
        method = f"lora:rank={1 + number // 5}"
        found.append(ledger.write_run(runs, shape, method, number % 5, ledger.Kind()))
        _become(found[-1], number % 10)
    return found


def _become(run: RunDir, state: int) -> None:
    if state < 5:
        return
    me: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid()}
    elsewhere: dict[str, Any] = {"host": "node-17", "pid": 4711}
    unit: dict[str, Any] = {"state": "running", "phase": "train", "task": "task3", "step": 120, "steps": 400}
    now = time.time()
    if state == 5:
        _put(run, {**unit, **me, "heartbeat": now}, me, now)
    elif state == 6:
        _put(run, {**unit, **elsewhere, "heartbeat": now}, elsewhere, now)
    elif state == 7:
        silent = now - SILENT
        _put(run, {**unit, **elsewhere, "heartbeat": silent}, elsewhere, silent)
    elif state == 8:
        _put(run, {**unit, **me, "pid": GONE, "heartbeat": now}, {**me, "pid": GONE}, now)
    else:
        error = RunError(what="no disk space left.", where="/data", hint="Free some space.")
        _put(run, {"state": "failed", "error": error}, {}, now)


def _put(run: RunDir, status: dict[str, Any], holder: dict[str, Any], beat: float) -> None:
    done = read_status(run.folder)
    changed = {"done": 7, "fraction": 0.3, "left": 3600.0, **status}
    (run.folder / STATUS).write_text(
        Status.model_validate({**done.model_dump(), **changed}).model_dump_json()
    )
    if holder:
        os.utime(hold(run.folder, duration=SILENT / 2, **holder), (beat, beat))


if __name__ == "__main__":
    out, *numbers = sys.argv[1:]
    write(Path(out), *map(int, numbers or ["1000"]))
    if sys.stdin.isatty():
        input("Runs of this process run until Enter is pressed.")
