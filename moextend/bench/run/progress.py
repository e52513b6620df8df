"""Progress of a run, and requests to stop it: status.json, which its worker writes, and cancel.json, which it reads.

Whoever starts a run removes an earlier request first. So a worker that finds one at its start was queued before the
request, and stops at once.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from moextend.bench.run.records import RunError, State, Status
from moextend.errors import InputError, MoextendError
from moextend.util import files, lease, processes
from moextend.util.foreign import explained

log = logging.getLogger(__name__)

LEASE = ".lease"
"""Name of the lease in the folder of a run."""
STATUS, CANCEL = "status.json", "cancel.json"
CANCELLED = "cancelled"
"""State for people of a run that stopped, or did not begin, because of a request."""
STOPPED = 75
"""Exit code of a worker that was stopped in order (EX_TEMPFAIL: try again later)."""
EXECUTOR = "MOEXTEND_EXECUTOR"
"""Environment variable with the name of the executor that started a worker; none for one that was started by hand."""
WRITE_EVERY = 0.5
"""Minimum seconds between two writes of the status."""
LOOK_EVERY = 2.0
"""Seconds between two looks of a worker for a request."""
IN_LOG = "The traceback is in the log of the run. If the message does not help, report it as a bug."
"""Hint for an unexpected error."""
DOING = {
    "check": "checking the data", "load": "loading", "prepare": "preparing", "serve": "starting a server",
    "wait": "waiting for another run:", "align": "aligning", "probe": "probing", "train": "learning",
    "merge": "merging", "score": "scoring",
}  # fmt: skip
"""Phase of a run -> words before its task; the first five are between the steps of its units."""
Spent = dict[tuple[str, str | None], tuple[float, int]]
"""(phase, task), and (phase, None) for all tasks -> seconds and steps."""
Phase = Literal["align", "probe", "train", "merge", "score"]


def cancel(run: Path) -> None:
    """Requests that the worker of a run stops."""
    files.write_json(run / CANCEL, {"at": time.time(), "host": socket.gethostname()})


def cancelled(run: Path) -> bool:
    """Whether there is a request."""
    return files.exists(run / CANCEL)


def forget(run: Path) -> None:
    """Removes the request."""
    (run / CANCEL).unlink(missing_ok=True)


@contextmanager
def heeding(run: Path, stop: Callable[[], None]) -> Iterator[None]:
    """Context in which a thread calls `stop` once, soon after a request appears.

    A request that is there already counts only for a worker of an executor: by hand, a run starts nevertheless.

    Raises:
        KeyboardInterrupt: the run was cancelled before it started.
    """
    if cancelled(run):
        if EXECUTOR in os.environ:
            raise KeyboardInterrupt
        forget(run)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_EVERY):
            if cancelled(run):
                stop()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@dataclass(frozen=True)
class Unit:
    """A part of a run: the training of a stage, or the scoring of a cell."""

    phase: Phase
    stage: int
    task: str
    steps: int = 1
    """Steps of a training, or percent of a scoring; the seconds per step are measured for each phase."""


class Progress:
    """Writes status.json during a run; as a context manager it also records how the run ended.

    A unit that is already done (a resumed run) is passed to `finish` without `begin`.
    """

    def __init__(self, folder: Path, plan: Sequence[Unit], *, run: str = "", config: str = "") -> None:
        self.folder, self.plan = folder, list(plan)
        self.run, self.config = run, config
        self._finished: set[Unit] = set()
        self._unit: Unit | None = None
        self._aside: tuple[str, str | None] | None = None
        self._line = ""
        self._step = self._from = 0
        self._began = self._started = time.time()
        self._written = float("-inf")
        self._spent: Spent = {}
        self._error: RunError | None = None
        self._state: State = "running"
        self.waits = False
        """Whether the run ends before its last unit, without an error, because it waits for something."""

    def begin(self, unit: Unit, *, step: int = 0) -> None:
        """Starts a unit; `step`: the first step of a resumed training."""
        self._unit, self._step, self._from, self._began = unit, step, step, time.time()
        self._aside = None
        self._say(unit.phase, unit.task, unit.stage)
        self._write()

    def aside(self, phase: str, task: str | None = None) -> None:
        """What the run does until its next step; may be called often. Without a `task` it is the unit's."""
        task = task or (self._unit.task if self._unit else None)
        if self._aside != (phase, task):
            self._aside = phase, task
            self._say(phase, task)
            self._write()
        self.advance(0)

    def follow(self, unit: Unit) -> Callable[[int, int], None]:
        """Callback for a training, with (steps done, all steps); a resumed training starts at its checkpoint."""
        seen = 0

        def on_step(done: int, total: int) -> None:
            nonlocal seen
            if not seen:
                self.begin(unit, step=done - 1)
            self.advance()
            seen = done

        return on_step

    def advance(self, steps: int = 1) -> None:
        """Adds `steps` done steps to the unit."""
        self._step += steps
        if steps:
            self._aside = None
        if time.monotonic() - self._written >= WRITE_EVERY:
            self._write()

    def finish(self, unit: Unit) -> None:
        """Marks the unit as done."""
        if unit == self._unit:
            _add(self._spent, unit, time.time() - self._began, unit.steps - self._from)
            self._unit = self._aside = None
        self._finished.add(unit)
        self._write()

    def __enter__(self) -> Self:
        log.info(
            "process %d on %s begins, with %d units to do", os.getpid(), socket.gethostname(), len(self.plan)
        )
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "failed" if error else "waiting" if self.waits else "done"
        if isinstance(error, KeyboardInterrupt):
            self._state = "interrupted"
        elif error is not None:
            self._error = described(error, self._place())
        log.info("%s", self._state if self._error is None else f"failed: {self._error}")
        try:
            self._write()
        except (MoextendError, OSError):
            if error is None:  # else the first error is the one to tell
                raise

    def _place(self) -> str | None:
        """Current phase, stage and task of the run."""
        unit = self._unit
        return f"stage {unit.stage}, {unit.task}, {unit.phase}" if unit else None

    def status(self) -> Status:
        """Current status."""
        now, unit = time.time(), self._unit
        phase, task = self._aside or ((unit.phase, unit.task) if unit else (None, None))
        total, left = self._seconds(now)
        fraction = len(self._finished) / len(self.plan) if self.plan else 1.0
        if total and left is not None:
            fraction = 1 - left / total
        return Status(
            state=self._state, pid=os.getpid(), host=socket.gethostname(),
            started=self._started, heartbeat=now, elapsed=now - self._started,
            phase=phase, task=task,
            stage=unit.stage if unit else max((u.stage for u in self._finished), default=0),
            stages=max((u.stage for u in self.plan), default=0),
            step=self._step if unit else 0, steps=unit.steps if unit else 0,
            done=len(self._finished), units=len(self.plan),
            fraction=1.0 if self._state == "done" else fraction,
            left=0.0 if self._state == "done" else left, error=self._error,
            run=self.run, config=self.config,
        )  # fmt: skip

    def _seconds(self, now: float) -> tuple[float | None, float | None]:
        """Seconds of the full plan and of its remaining part; None if a speed is unknown."""
        spent = dict(self._spent)
        if self._unit and self._step > self._from:
            _add(spent, self._unit, now - self._began, self._step - self._from)
        total: float | None = 0.0
        left: float | None = 0.0
        for unit in self.plan:
            # a task's own pace is the best guess (items differ), that of its phase the second best
            seconds, steps = spent.get((unit.phase, unit.task)) or spent.get((unit.phase, None), (0.0, 0))
            to_do = max(unit.steps - (self._step if unit == self._unit else 0), 0)
            to_do = 0 if unit in self._finished else to_do
            total = None if total is None or not steps else total + unit.steps * seconds / steps
            if to_do:
                left = None if left is None or not steps else left + to_do * seconds / steps
        return total, left

    def _say(self, phase: str, task: str | None, stage: int | None = None) -> None:
        """Writes what begins to the log."""
        place = None if stage is None else f"stage {stage}:"
        line = " ".join(filter(None, (place, DOING[phase], task)))
        if line != self._line and processes.is_first():
            log.info("%s", line)
        self._line = line

    def _write(self) -> None:
        if processes.is_first():
            _write(self.folder, self.status())
        self._written = time.monotonic()


def _add(spent: Spent, unit: Unit, seconds: float, steps: int) -> None:
    for key in ((unit.phase, unit.task), (unit.phase, None)):
        before = spent.get(key, (0.0, 0))
        spent[key] = (before[0] + seconds, before[1] + steps)


def described(error: BaseException, where: str | None = None) -> RunError:
    """An error as a record of the status, with masked passwords; `where` is used for errors of other packages."""
    found = explained(error, where=where, hint=IN_LOG)
    return RunError(what=found.what, where=found.where, hint=found.hint)


def read_status(folder: Path) -> Status:
    """Status of a run: of a running one by who holds its lease.

    interrupted: the process is gone. lost: it is on another host, or suspended, and gives no sign of life.
    """
    try:
        status = Status.read(folder / STATUS) or Status()
    except InputError:
        return Status(state="interrupted")
    if status.state not in ("running", "lost"):
        return status
    holder = lease.holder_of(folder / LEASE)
    life = holder.life() if holder else "dead"
    if holder is None or life == "dead":
        return status.model_copy(update={"state": "interrupted", "phase": None, "left": None})
    beat = max(holder.beat, status.heartbeat or 0.0)
    found = {"state": "running", "pid": holder.pid, "host": holder.host, "heartbeat": beat}
    if life == "unknown" and time.time() - beat > holder.seconds:
        found |= {"state": "lost", "phase": None, "left": None}
    return status.model_copy(update=found)


def mark_failed(folder: Path, error: MoextendError) -> None:
    """Records that a run failed, for a worker that could not do so itself; not if another process works on it."""
    holder = lease.holder_of(folder / LEASE)
    if holder is None or holder.life() == "dead":
        failed = {"state": "failed", "left": None, "error": described(error)}
        _write(folder, read_status(folder).model_copy(update=failed))


def _write(folder: Path, status: Status) -> None:
    # Not synced: it is written twice a second and worth nothing after a power cut.
    files.may_change(folder / STATUS)
    temporary = folder / f".status.{os.getpid()}"
    with files.disk_errors(folder):
        temporary.write_text(json.dumps(status.model_dump()) + "\n", encoding="utf-8")
        temporary.replace(folder / STATUS)
