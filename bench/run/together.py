"""A run on several processes: `torchrun` or `accelerate launch` starts one worker for each device.

All processes execute the run in the same order. The first one owns its folder; the others write their share of the
answers and files of checkpoints, and nothing else. Each process notes in the folder `.processes` of the run that it is
alive, and why it ended. A process whose partner failed or is gone stops, with the partner's error, in bounded time.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from moextend.errors import MoextendError, RunFailed
from moextend.util import files, foreign, processes

if TYPE_CHECKING:
    from moextend.bench.methods.method import Stage

FOLDER = ".processes"
"""Folder in that of the run, during the run: RANK.json."""
BEAT = 1.0
"""Seconds between two notes of a process."""
LOST = 120.0
"""Seconds without a note after which a process is gone."""
NOTICED = 5.0
"""Seconds in which a process is expected to say why it ended, after an exchange with it failed."""
GRACE = 20.0
"""Seconds that a process gets to end by itself after another one ended; an exchange may wait for ever."""

State = Literal["running", "done", "failed", "stopped"]
_LAUNCHER = {
    "ACCELERATE_MIXED_PRECISION": "mixed_precision",
    "FSDP_VERSION": "fsdp_version",
    "FSDP_RESHARD_AFTER_FORWARD": "fsdp_reshard_after_forward",
    "ACCELERATE_DYNAMO_BACKEND": "dynamo_backend",
}
"""Variables of the launcher that are recorded."""
_WATCHES: list[Watch] = []
"""The watch of this process."""


def launched() -> bool:
    """Whether a launcher started several processes."""
    return processes.launched() > 1


def launcher() -> dict[str, Any] | None:
    """The launcher's config for the record of the environment; None for a single process.

    `mixed_precision` is the launcher's; the run's own `bf16` decides.
    """
    if processes.count() == 1:
        return None
    import torch
    from accelerate.utils import parse_flag_from_env

    sharded = parse_flag_from_env("ACCELERATE_USE_FSDP")
    known = {
        name: os.environ[variable]
        for variable, name in _LAUNCHER.items()
        if variable in os.environ and (sharded or not name.startswith("fsdp_"))
    }
    return {
        "distributed_type": "FSDP" if sharded else "DDP",
        "num_processes": processes.count(),
        "num_machines": processes.count() // int(os.environ.get("LOCAL_WORLD_SIZE") or processes.count()),
        "backend": torch.distributed.get_backend(),
        "accelerate": "ACCELERATE_MIXED_PRECISION" in os.environ,
        **known,
    }


@contextmanager
def joined(run: Path, *, on_cpu: Callable[[], bool], fail: Callable[[MoextendError], None]) -> Iterator[None]:
    """Context of one process of a launched run; that of a single process does nothing.

    Args:
        on_cpu: whether the run computes on the CPU.
        fail: records in the run that it failed, where the first process cannot do so itself.
    """
    if not launched():
        yield
        return
    _start(on_cpu())
    watch = Watch(run / FOLDER, fail)
    _WATCHES.append(watch)
    with watch.watching():
        with explained():
            yield
        watch.leave()


@contextmanager
def explained() -> Iterator[None]:
    """Context that raises the error of another process instead of what it led to in this one."""
    if not _WATCHES:
        yield
        return
    with _WATCHES[-1].explaining():
        yield


def _start(on_cpu: bool) -> None:
    """Joins the processes as the training does: NCCL with GPUs, gloo without."""
    from accelerate import PartialState

    if on_cpu:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    PartialState(cpu=on_cpu)


@dataclass
class _Seen:
    """The last note of another process."""

    count: int = -1
    at: float = 0.0
    state: State = "running"
    what: str = ""
    where: str | None = None
    hint: str | None = None


class Watch:
    """Notes that this process is alive, and looks at the notes of the others."""

    def __init__(self, folder: Path, fail: Callable[[MoextendError], None]) -> None:
        self.folder, self.fail = folder, fail
        self.rank, self.count = processes.rank(), processes.count()
        self.attempt = processes.first_says(self._begin)
        self._beats, self._final, self._ended = 0, False, threading.Event()
        self._seen = {other: _Seen(at=time.monotonic()) for other in range(self.count) if other != self.rank}
        self._lock = threading.Lock()

    def _begin(self) -> str:
        with files.disk_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        return f"{os.getpid()}-{time.time()}"

    def note(self, state: State, error: MoextendError | None = None) -> None:
        """Writes the state of this process; the first one that is final counts."""
        with self._lock:
            if self._final:
                return
            self._beats, self._final = self._beats + 1, state != "running"
            sent = {"what": error.what, "where": error.where, "hint": error.hint} if error else {}
            record = {
                "attempt": self.attempt,
                "count": self._beats,
                "pid": os.getpid(),
                "state": state,
                **sent,
            }
            temporary = self.folder / f".{self.rank}"
            with suppress(OSError):  # a full disk is the error of whoever writes results
                temporary.write_text(json.dumps(record) + "\n", encoding="utf-8")
                temporary.replace(self.folder / f"{self.rank}.json")

    def look(self) -> None:
        """Reads the notes of the others."""
        for other, seen in self._seen.items():
            with suppress(OSError, MoextendError, KeyError, TypeError):
                found = files.read_json(self.folder / f"{other}.json")
                if found["attempt"] == self.attempt and found["count"] > seen.count:
                    seen.count, seen.at, seen.state = found["count"], time.monotonic(), found["state"]
                    seen.what, seen.where, seen.hint = (found.get(key) for key in ("what", "where", "hint"))

    def cause(self) -> MoextendError | KeyboardInterrupt | None:
        """Why this process must stop: what another one failed of, that it was stopped, or is gone; None: nothing."""
        self.look()
        for other, seen in self._seen.items():
            if seen.state == "failed":
                return RunFailed(f"process {other} failed: {seen.what}", where=seen.where, hint=seen.hint)
        if any(seen.state == "stopped" for seen in self._seen.values()):
            return KeyboardInterrupt()
        silent = [other for other, seen in self._seen.items() if self._silent(seen, LOST)]
        return _gone(silent) if silent else None

    def _silent(self, seen: _Seen, seconds: float) -> bool:
        return seen.state == "running" and time.monotonic() - seen.at > seconds

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Context with a thread that notes, looks, and ends this process if it hangs after another one ended."""
        self.note("running")
        threading.Thread(target=self._run, daemon=True).start()
        try:
            yield
        finally:
            self._ended.set()

    def _run(self) -> None:
        since: float | None = None
        while not self._ended.wait(BEAT):
            cause = self.cause()
            if cause is None:
                self.note("running")
            elif since is None:
                since = time.monotonic()
            elif time.monotonic() - since > GRACE:
                self._end(cause)

    def _end(self, cause: MoextendError | KeyboardInterrupt) -> None:
        """Ends this process, whose main thread hangs in an exchange. Files survive the end at any moment."""
        if isinstance(cause, KeyboardInterrupt):
            from moextend.bench.run.worker import STOPPED

            self.note("stopped")
            os._exit(STOPPED)
        if self.rank == 0:
            with suppress(Exception):
                self.fail(cause)
        self.note("failed", cause)
        print(f"error: {cause}", file=sys.stderr, flush=True)
        os._exit(1)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Context that raises the error of another process instead of what it led to here."""
        try:
            yield
        except KeyboardInterrupt as error:
            cause = self.cause()
            self.note("stopped")
            if isinstance(cause, RunFailed):  # the launcher stops the others after a failure
                raise cause from error
            raise
        except Exception as error:
            cause = self._awaited() if _is_broken(error) else None
            if cause is None:
                self.note("failed", foreign.explained(error))
                raise
            self.note("stopped")
            raise cause from error

    def _awaited(self) -> MoextendError | KeyboardInterrupt:
        """The cause of a broken exchange."""
        began = time.monotonic()
        while time.monotonic() - began < NOTICED:
            if (cause := self.cause()) is not None:
                return cause
            time.sleep(0.1)
        return _gone([other for other, seen in self._seen.items() if self._silent(seen, NOTICED - 2 * BEAT)])

    def leave(self) -> None:
        """Ends the notes after a run that ended in order; the first process removes them."""
        import torch

        self.note("done")
        processes.wait()
        if self.rank == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        torch.distributed.destroy_process_group()


def _gone(others: list[int]) -> RunFailed:
    named = " and ".join(map(str, others)) or "unknown"
    return RunFailed(
        f"process {named} of the run ended unexpectedly.",
        hint="It was killed, its machine failed, or the connection broke. Run the same command again: the "
        "run continues.",
    )


def _is_broken(error: Exception) -> bool:
    """Whether an exchange between processes failed."""
    import torch

    named = ("gloo", "nccl", "connection", "process group", "timed out", "store", "socket", "broken pipe")
    text = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(name in text for name in named)
    )


@contextmanager
def own_folder(stage: Stage) -> Iterator[Stage]:
    """Context with the stage that a method writes: in the first process to its folder, in others to a temporary one.

    A method, also that of a plug-in, need not know of other processes. All of them find what an interrupted call left.
    """
    if processes.is_first():
        processes.wait()
        yield stage
        processes.wait()
        return
    with tempfile.TemporaryDirectory(prefix="moextend-") as name:
        for path in stage.folder.glob("*.json"):
            shutil.copyfile(path, Path(name) / path.name)
        processes.wait()
        yield replace(stage, folder=Path(name))
        processes.wait()
