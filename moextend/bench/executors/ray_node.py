"""What a task does on its node of a Ray cluster: it starts `moextend-worker RUN_FOLDER` and waits for its end.

Orders are dictionaries of plain values. Nothing heavy is imported: the work is in the worker's process.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

import moextend
from moextend.bench.run.launch import ending
from moextend.bench.run.progress import STOPPED, cancelled
from moextend.bench.run.rundir import RunDir
from moextend.errors import RunBusy
from moextend.util.children import tethered
from moextend.util.environment import code

GRACE = 15.0
"""Seconds that a worker gets to save its state before it is killed."""
SEEN = 60.0
"""Seconds until a file that another machine wrote must be visible: file systems of networks keep what they know."""
HELD = 180.0
"""Seconds until another process must have left the run."""
TICK = 0.2
NODES = (
    "Install the same moextend on every node, with the dependencies of this machine. The folders of runs and workspace "
    "must be on a file system that all nodes share, at the same path."
)


class Refused(Exception):
    """A node that cannot execute a run: why, and what to do."""


class Lost(Exception):
    """A worker that was killed or stopped, and how: another one goes on with the run."""


class Order(TypedDict):
    """What a node is asked to do."""

    run: str
    """Folder of the run."""
    id: str
    """Id of the run in its config.json."""
    code: dict[str, str | None]
    """`moextend.util.environment.code` of the machine that asks."""
    command: list[str]
    """Command of a worker, without the folder; empty: that of this node's Python."""
    setup: list[str]
    """Shell lines before the worker."""
    environment: dict[str, str]
    """More variables for the worker."""


def work(order: Order) -> int:
    """Executes a run, and returns the exit code of its worker; an interrupt (`ray.cancel`) stops it in order."""
    folder, node = Path(order["run"]), f"node {socket.gethostname()} of the Ray cluster"
    here = code()
    for key, value in order["code"].items():
        if value is not None and here.get(key) is not None and here[key] != value:
            what = f"{node} has another version of moextend: {key} {here[key]} instead of {value}"
            raise Refused(what, NODES)
    if not _waited(lambda: _id(folder) == order["id"], SEEN):
        raise Refused(f"{node} cannot read the folder of this run", NODES)
    if not _waited(lambda: _free(folder), HELD):
        what = f"{node} waited {HELD:.0f} seconds for another process that holds this run"
        raise Refused(what, "Wait for it, or stop it, and run the same command again.")
    command = [*(order["command"] or [sys.executable, "-P", "-m", "moextend.bench.run.worker"]), str(folder)]
    if order["setup"]:
        command = ["bash", "-ec", "\n".join([*order["setup"], 'exec "$@"']), "moextend-worker", *command]
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            tethered(command), stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, env=_environment(order["environment"]), process_group=0,
        )  # fmt: skip
    try:
        while process.poll() is None:
            time.sleep(TICK)
    except BaseException as reason:
        process.terminate()
        try:
            process.wait(timeout=GRACE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if not isinstance(reason, KeyboardInterrupt):
            raise
        return STOPPED
    found = process.returncode
    if found == -signal.SIGINT:  # by hand
        return 130
    if found == STOPPED and not cancelled(folder):
        raise Lost(f"its worker on {node} was stopped")
    if found < 0 or (found > 128 and found != 130):
        raise Lost(f"its worker on {node} {ending(found if found < 0 else 128 - found)}")
    return found


def _environment(more: dict[str, str]) -> dict[str, str]:
    found = {**os.environ, **more, "PYTHONSAFEPATH": "1"}
    paths = [path for path in found.get("PYTHONPATH", "").split(os.pathsep) if path]  # "": the current folder
    # The worker imports what was compared: Ray finds modules also in the folders of whoever submitted the task.
    home = str(Path(moextend.__file__).resolve().parents[1])
    if home not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        paths.insert(0, home)
    return {**found, "PYTHONPATH": os.pathsep.join(paths)}


def _waited(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition holds, within `seconds`."""
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(1.0)
    return found


def _id(folder: Path) -> str | None:
    """Id of the run in a folder; None without a run. The rest of config.json may change: each attempt adds to it."""
    try:
        return str(json.loads((folder / "config.json").read_bytes()).get("id", ""))
    except (OSError, ValueError, AttributeError):
        return None


def _free(folder: Path) -> bool:
    try:
        with RunDir(folder).lock():
            return True
    except RunBusy:
        return False
