"""Runs in worker processes: one process per run, several at a time.

A crash affects one run, Ctrl-C stops all of them in order, and the peak memory of a process is that of its run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from moextend.bench.run.progress import (
    EXECUTOR,
    STATUS,
    STOPPED,
    cancelled,
    forget,
    mark_failed,
    read_status,
)
from moextend.bench.run.records import State
from moextend.bench.run.rundir import RunDir
from moextend.errors import RunFailed, last_line, short
from moextend.util.children import tethered
from moextend.util.foreign import explained

WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "moextend.bench.run.worker")
"""Command of a worker, without the folder of its run.

-P: modules come from the installation and from PYTHONPATH, never from the current folder, which may not be trusted.
"""
GRACE = 20.0
"""Seconds that a worker gets after an interrupt to save its state before it is killed."""
TICK = 0.25
ERROR = "error: "
"""Start of the last line of a worker that failed."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: Path
    state: State
    error: str | None = None
    wrong_input: bool = False
    """Whether it failed because of the user's input: a repetition alone does not help."""


class View(Protocol):
    """Shows the progress of runs."""

    def update(self) -> None:
        """Called several times a second; reads the run folders."""


def forget_attempt(run: Path) -> None:
    """Removes the status of an ended attempt, and the request to cancel it."""
    forget(run)
    if read_status(run).state != "running":
        (run / STATUS).unlink(missing_ok=True)


def show(view: View) -> None:
    """Updates the view."""
    # A terminal that is gone, or a pipe that nobody reads, stops no run: SIGHUP does, unless it is ignored.
    with suppress(OSError):
        view.update()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Started:
    """Runs in worker processes, which start at once, `jobs` at a time, and end with this process."""

    def __init__(self, runs: Sequence[Path], *, jobs: int) -> None:
        self._runs, self._waiting = list(runs), list(runs)
        self._environment = _environment(jobs)
        self._outcomes: dict[Path, Outcome] = {}
        self._workers: set[subprocess.Popen[bytes]] = set()
        self._lock, self._stopped = threading.Lock(), False
        self._slots = [threading.Thread(target=self._serve, daemon=True) for _ in range(min(jobs, len(runs)))]
        for slot in self._slots:
            slot.start()

    def follow(self, view: View) -> dict[Path, Outcome]:
        """Shows the runs until all ended, and returns how; KeyboardInterrupt is raised after all stopped."""
        try:
            while self._at_work():
                show(view)
                time.sleep(TICK)
        except BaseException:
            self._stop()
            show(view)
            raise
        show(view)
        return {run: self._outcomes[run] for run in self._runs}

    def _at_work(self) -> bool:
        return any(slot.is_alive() for slot in self._slots)

    def _serve(self) -> None:
        """Executes runs until none waits, with a new worker for each run."""
        while (run := self._next()) is not None:
            try:
                gone = cancelled(run)  # while it waited
                self._outcomes[run] = Outcome(run, "interrupted") if gone else self._work(run)
            except Exception as error:
                self._outcomes[run] = Outcome(run, "failed", str(explained(error)))

    def _next(self) -> Path | None:
        with self._lock:
            return self._waiting.pop(0) if self._waiting and not self._stopped else None

    def _work(self, run: Path) -> Outcome:
        with RunDir(run).log.open("ab") as log:
            start = log.tell()
            with self._lock:
                # A process group of its own: Ctrl-C in the terminal reaches it through us, once.
                worker = subprocess.Popen(
                    tethered([*WORKER, str(run.resolve())]), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env=self._environment, process_group=0,
                )  # fmt: skip
                self._workers.add(worker)
                if self._stopped:
                    worker.kill()
            code = worker.wait()
        with self._lock:
            self._workers.discard(worker)
        if code == 0:
            return Outcome(run, "done")
        if self._stopped or code in (STOPPED, 130, -signal.SIGINT):
            return Outcome(run, "interrupted")
        return _failed(run, code, start)

    def _stop(self) -> None:
        """Interrupts all workers, and kills them after the grace time or at a second interrupt."""
        with self._lock:
            self._stopped = True
        self._signal(signal.SIGINT)
        end = time.monotonic() + GRACE
        try:
            while self._at_work() and time.monotonic() < end:
                time.sleep(TICK)
        except KeyboardInterrupt:
            pass
        finally:
            self._signal(signal.SIGKILL)
            for slot in self._slots:
                slot.join(timeout=5)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            for worker in self._workers:
                worker.send_signal(number)


def _failed(run: Path, code: int, start: int) -> Outcome:
    """The outcome of a worker that ended with this code, and whose log begins at byte `start`."""
    status, log = read_status(run), RunDir(run).log
    if status.state == "failed" and status.error:
        return Outcome(run, "failed", str(status.error), code == 2)
    tail = log.read_bytes()[start:][-8000:]
    errors = [line for line in tail.decode(errors="replace").splitlines() if line.startswith(ERROR)]
    if errors:  # not always the last line: another host may have taken the run over, and gone on with its log
        return Outcome(run, "failed", short(errors[-1].removeprefix(ERROR), 1000), code == 2)
    last = last_line(tail, 1000)
    error = RunFailed(
        f"the worker {ending(code)}{f' ({last})' if last else ''}.",
        where=str(log),
        hint="Read the log; the same command continues where the run stopped.",
    )
    mark_failed(run, error)
    return Outcome(run, "failed", str(error))


def ending(code: int) -> str:
    """How a process ended, by its exit code, negative for a signal, in words."""
    if code >= 0:
        return f"ended with code {code}"
    name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
    return f"was killed by {name}{'; the system may have run out of memory' * (name == 'SIGKILL')}"


def _environment(jobs: int) -> dict[str, str]:
    # Without the number of threads, every worker takes all cores and all of them become slower.
    found = {"OMP_NUM_THREADS": str(max(1, cores() // jobs)), **os.environ, "PYTHONSAFEPATH": "1"}
    found[EXECUTOR] = "local"
    if "PYTHONPATH" in found:  # an empty entry ("$PYTHONPATH:/x") is the current folder
        found["PYTHONPATH"] = os.pathsep.join(filter(None, found["PYTHONPATH"].split(os.pathsep)))
    return found


@contextmanager
def terminations_as_interrupts() -> Iterator[None]:
    """Context in which a closed terminal, `kill` and Ctrl-\\ act as Ctrl-C; ignored signals (nohup) stay ignored."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
