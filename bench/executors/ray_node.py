"""What a task does on its node of a Ray cluster: it starts `moextend-worker RUN_FOLDER` and waits for its end.

Orders and answers are dictionaries of plain values. Nothing heavy is imported: the work is in the worker's process.
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
from typing import Literal, TypedDict

import moextend
from moextend.util import tether
from moextend.util.environment import code

GRACE = 15.0
"""Seconds that a worker gets to save its state before it is killed."""
SEEN = 60.0
"""Seconds until a file that another machine wrote must be visible: file systems of networks keep what they know."""
HELD = 180.0
"""Seconds until a run must be free whose worker was lost."""
TICK = 0.2


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
    again: bool
    """Whether a worker of this run was lost, and may still hold it."""


class Answer(TypedDict):
    """How it went."""

    end: Literal["ended", "unseen", "held", "differs"]
    """The worker ended; this node does not see the run; another process holds it; this node has another moextend."""
    code: int
    """Exit code of the worker, negative for a signal."""
    host: str
    """Name of the node's machine."""
    pid: int
    """Process id of the worker; 0: it was not started."""
    differs: str
    """What differs in the code of a node that has another one; else empty."""


def work(order: Order) -> Answer:
    """Executes a run; an interrupt (`ray.cancel`) stops its worker in order."""
    folder, answer = (
        Path(order["run"]),
        Answer(end="ended", code=0, host=socket.gethostname(), pid=0, differs=""),
    )
    try:
        if differs := difference(order["code"], code()):
            return {**answer, "end": "differs", "differs": differs}
        if not _waited(lambda: _id(folder) == order["id"], SEEN):
            return {**answer, "end": "unseen"}
        if order["again"] and not _waited(lambda: _free(folder), HELD):
            return {**answer, "end": "held"}
    except KeyboardInterrupt:
        return {**answer, "code": -signal.SIGINT}
    process = _executed(order, folder)
    return {**answer, "code": process.returncode, "pid": process.pid}


def difference(wanted: dict[str, str | None], here: dict[str, str | None]) -> str:
    """What differs between two codes in words; "": nothing that is known of both."""
    for key, value in wanted.items():
        if value is not None and here.get(key) is not None and here[key] != value:
            return f"{key} {here[key]} instead of {value}"
    return ""


def _executed(order: Order, folder: Path) -> subprocess.Popen[bytes]:
    """The worker's process, which has ended."""
    command = order["command"] or [sys.executable, "-P", "-m", "moextend.bench.run.worker"]
    command = [*command, str(folder)]
    if order["setup"]:
        lines = "\n".join([*order["setup"], 'exec "$@"'])
        command = ["bash", "-ec", lines, "moextend-worker", *command]
    tethered = [sys.executable, "-I", tether.__file__, str(os.getpid())]
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [*tethered, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env=_environment(order["environment"]), process_group=0,
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
    return process


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
    from moextend.bench.run.rundir import RunDir
    from moextend.errors import RunBusy

    try:
        with RunDir(folder).lock():
            return True
    except RunBusy:
        return False
