"""How far a run is: status.json, written by the worker, read by the live view and by `status`."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from moextend.errors import InputError, MoextendError
from moextend.util import files
from moextend.util.foreign import explained

State = Literal["waiting", "running", "done", "failed", "interrupted"]

WRITE_EVERY = 0.5
"""Seconds between two writes at the least."""
IN_LOG = "The traceback is in the log of the run. If the message does not help, report it as a bug."
"""The hint for an error that nobody foresaw."""
STALE = 600.0
"""Seconds without a sign of life after which a process that cannot be looked up counts as dead."""


Error = dict[str, str | None]
"""{"what", "where", "hint"}."""
Spent = dict[tuple[str, str | None], tuple[float, int]]
"""(phase, task), and (phase, None) for all tasks -> seconds and steps."""


@dataclass(frozen=True)
class Unit:
    """One piece of a run's work."""

    phase: Literal["align", "probe", "train", "score"]
    stage: int
    task: str
    steps: int = 1
    """Steps of a training, items of a scoring; seconds a step are measured for each phase."""


@dataclass(frozen=True)
class Status:
    """What status.json says."""

    state: State = "waiting"
    pid: int | None = None
    host: str = ""
    born: str | None = None
    """Start time of the process, which tells it from a later one with the same number."""
    started: float | None = None
    """Seconds since 1970; likewise `heartbeat`."""
    heartbeat: float | None = None
    elapsed: float = 0.0
    """Seconds since this process began; earlier attempts are not counted."""
    phase: str | None = None
    stage: int = 0
    stages: int = 0
    task: str | None = None
    step: int = 0
    steps: int = 0
    done: int = 0
    """Units done."""
    units: int = 0
    fraction: float = 0.0
    """Part of the work that is done, 0..1: by time where it is known, else by units."""
    left: float | None = None
    """Seconds left; None while a phase that is still to come has not been measured."""
    error: Error | None = None
    """Of a failed run."""
    run: str = ""
    """Id of the run."""
    config: str = ""
    """Digest of the config that was worked on: "done" holds for that one alone."""


class Progress:
    """Keeps status.json while a run works; as a context manager it also records how the run ended.

    A unit that is already done (a resumed run) is passed to `finish` without `begin`.
    """

    def __init__(self, folder: Path, plan: Sequence[Unit], *, run: str = "", config: str = "") -> None:
        self.folder, self.plan = folder, list(plan)
        self.run, self.config = run, config
        self._finished: set[Unit] = set()
        self._unit: Unit | None = None
        self._step = self._from = 0
        self._began = self._started = time.time()
        self._written = float("-inf")
        self._spent: Spent = {}
        self._error: Error | None = None
        self._state: State = "running"

    def begin(self, unit: Unit, *, step: int = 0) -> None:
        """Starts a unit; `step` is where a resumed training goes on."""
        self._unit, self._step, self._from, self._began = unit, step, step, time.time()
        self._write()

    def follow(self, unit: Unit) -> Callable[[int, int], None]:
        """What a training calls with (steps done, steps in all): a resumed one begins where its checkpoint was."""
        seen = 0

        def on_step(done: int, total: int) -> None:
            nonlocal seen
            if not seen:
                self.begin(unit, step=done - 1)
            self.advance()
            seen = done

        return on_step

    def advance(self, steps: int = 1) -> None:
        """`steps` more steps of the unit are done."""
        self._step += steps
        if time.monotonic() - self._written >= WRITE_EVERY:
            self._write()

    def finish(self, unit: Unit) -> None:
        """The unit is done."""
        if unit == self._unit:
            _add(self._spent, unit, time.time() - self._began, unit.steps - self._from)
            self._unit = None
        self._finished.add(unit)
        self._write()

    def __enter__(self) -> Self:
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "done" if error is None else "failed"
        if isinstance(error, KeyboardInterrupt):
            self._state = "interrupted"
        elif error is not None:
            self._error = described(error, self._place())
        try:
            self._write()
        except (MoextendError, OSError):
            if error is None:  # else the first error is the one to tell
                raise

    def _place(self) -> str | None:
        """What the run is at."""
        unit = self._unit
        return f"stage {unit.stage}, {unit.task}, {unit.phase}" if unit else None

    def status(self) -> Status:
        """The status as of now."""
        now, unit = time.time(), self._unit
        total, left = self._seconds(now)
        fraction = len(self._finished) / len(self.plan) if self.plan else 1.0
        if total and left is not None:
            fraction = 1 - left / total
        return Status(
            state=self._state, pid=os.getpid(), host=socket.gethostname(), born=_born(os.getpid()),
            started=self._started, heartbeat=now, elapsed=now - self._started,
            phase=unit.phase if unit else None, task=unit.task if unit else None,
            stage=unit.stage if unit else max((u.stage for u in self._finished), default=0),
            stages=max((u.stage for u in self.plan), default=0),
            step=self._step if unit else 0, steps=unit.steps if unit else 0,
            done=len(self._finished), units=len(self.plan),
            fraction=1.0 if self._state == "done" else fraction,
            left=0.0 if self._state == "done" else left, error=self._error,
            run=self.run, config=self.config,
        )  # fmt: skip

    def _seconds(self, now: float) -> tuple[float | None, float | None]:
        """Seconds of the whole plan and of what is left of it, each None where a pace is not known."""
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

    def _write(self) -> None:
        _write(self.folder, self.status())
        self._written = time.monotonic()


def _add(spent: Spent, unit: Unit, seconds: float, steps: int) -> None:
    for key in ((unit.phase, unit.task), (unit.phase, None)):
        before = spent.get(key, (0.0, 0))
        spent[key] = (before[0] + seconds, before[1] + steps)


def described(error: BaseException, where: str | None = None) -> Error:
    """{"what", "where", "hint"} of an error, passwords masked; `where` is added to one that is not ours."""
    found = explained(error, where=where, hint=IN_LOG)
    return {"what": found.what, "where": found.where, "hint": found.hint}


def read_status(folder: Path) -> Status:
    """The status of a run; a running one whose process is gone counts as interrupted."""
    path = folder / "status.json"
    try:
        values = files.read_json(path)
        error = values.get("error") if isinstance(values, dict) else None
        if isinstance(error, dict) and "mend" in error:  # as early versions wrote it
            error["hint"] = error.pop("mend")
        status = Status(**values)
    except FileNotFoundError:
        return Status()
    except (InputError, TypeError):
        return Status(state="interrupted")
    if not _sound(status):
        return Status(state="interrupted")
    if status.state == "running" and not _alive(status):
        return _with(status, state="interrupted", phase=None, left=None)
    return status


def mark_failed(folder: Path, error: MoextendError) -> None:
    """Records that a run failed, for a worker that could not do so itself."""
    _write(folder, _with(read_status(folder), state="failed", left=None, error=described(error)))


def _with(status: Status, **changes: Any) -> Status:
    return Status(**{**asdict(status), **changes})


def _write(folder: Path, status: Status) -> None:
    # Not synced: it is written twice a second and worth nothing after a power cut.
    temporary = folder / f".status.{os.getpid()}"
    with files.disk_errors(folder):
        temporary.write_text(json.dumps(asdict(status)) + "\n", encoding="utf-8")
        temporary.replace(folder / "status.json")


def _sound(status: Status) -> bool:
    """Whether what was read is what `Progress` writes."""
    numbers = (status.elapsed, status.fraction)
    counts = (status.step, status.steps, status.stage, status.stages, status.done, status.units)
    times = (status.left, status.heartbeat, status.started)
    texts = (status.phase, status.task, status.born)
    return (
        status.state in get_args(State)
        and all(_finite(x) for x in numbers)
        and all(isinstance(x, int) for x in (*counts, status.pid or 0))
        and all(x is None or _finite(x) for x in times)
        and all(x is None or isinstance(x, str) for x in texts)
        and all(isinstance(x, str) for x in (status.host, status.run, status.config))
        and (status.error is None or _is_error(status.error))
    )


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_error(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"what", "where", "hint"}:
        return False
    return all(part is None or isinstance(part, str) for part in value.values())


def _alive(status: Status) -> bool:
    if status.host == socket.gethostname() and status.pid:
        born = _born(status.pid)
        if born is not None or Path("/proc/self/stat").exists():
            return born is not None and born == status.born
        try:
            os.kill(status.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    return status.heartbeat is not None and time.time() - status.heartbeat < STALE


def _born(pid: int) -> str | None:
    """Start time of a process in ticks since boot, where /proc tells it; None for a dead one or elsewhere.

    psutil tells it in seconds by the clock, which may be set meanwhile: the same process would count as another one.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in "ZX" else after_name[19]
