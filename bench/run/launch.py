"""Runs in worker processes: one process per run, several at a time.

A crash affects one run, Ctrl-C stops all of them in order, and the peak memory of a process is that of its run. A
process spends some seconds on imports. Forking a process with these imports would save the time, but CUDA does not
survive a fork, and runs would not start from a known state.
"""

from __future__ import annotations

import json
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
from typing import IO, Any, Protocol

from moextend.bench.run import cancelling
from moextend.bench.run.progress import STATUS, mark_failed, read_status
from moextend.bench.run.records import State
from moextend.bench.run.rundir import RunDir
from moextend.errors import MoextendError, RunFailed, last_line
from moextend.util.foreign import explained

WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "moextend.bench.run.worker")
"""Command of a worker: reads a line with a run folder from stdin, answers with a JSON line {"run", "state", "error"}.

-P: modules come from the installation and from PYTHONPATH, never from the current folder, which may not be trusted.
"""

GRACE = 20.0
"""Seconds that a worker gets after an interrupt to save its state before it is killed."""
TICK = 0.25


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


def launch(
    runs: Sequence[Path], *, jobs: int, view: View, command: Sequence[str] | None = None
) -> dict[Path, Outcome]:
    """Executes runs, `jobs` at a time, and returns how each ended; KeyboardInterrupt is raised after all stopped."""
    for run in runs:
        forget_attempt(run)
    with terminations_as_interrupts():
        return Started(runs, jobs=jobs, command=command).follow(view)


def forget_attempt(run: Path) -> None:
    """Removes the status of an ended attempt, and the request to cancel it."""
    cancelling.forget(run)
    if read_status(run).state != "running":
        (run / STATUS).unlink(missing_ok=True)


class Started:
    """Runs in worker processes, which start at once, `jobs` at a time, and end with this process."""

    def __init__(self, runs: Sequence[Path], *, jobs: int, command: Sequence[str] | None = None) -> None:
        self._runs = list(runs)
        self._pool = _Pool([run.resolve() for run in runs], command or WORKER, _environment(jobs))
        self._slots = [
            threading.Thread(target=self._pool.serve, daemon=True) for _ in range(min(jobs, len(runs)))
        ]
        for slot in self._slots:
            slot.start()

    def follow(self, view: View) -> dict[Path, Outcome]:
        """Shows the runs until all ended, and returns how; KeyboardInterrupt is raised after all stopped."""
        try:
            while any(slot.is_alive() for slot in self._slots):
                show(view)
                time.sleep(TICK)
        except BaseException:
            self._pool.stop(self._slots)
            show(view)
            raise
        show(view)
        return {run: self._pool.outcomes[run.resolve()] for run in self._runs}


def show(view: View) -> None:
    """Updates the view."""
    # A terminal that is gone, or a pipe that nobody reads, stops no run: SIGHUP does, unless it is ignored.
    with suppress(OSError):
        view.update()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pool:
    """The queue of runs and the workers on them."""

    def __init__(self, runs: list[Path], command: Sequence[str], environment: dict[str, str]) -> None:
        self.waiting, self.command, self.environment = runs, command, environment
        self.outcomes: dict[Path, Outcome] = {}
        self.workers: set[_Worker] = set()
        self.lock, self.stopped = threading.Lock(), False

    def serve(self) -> None:
        """Executes runs until the queue is empty, with a new worker for each run."""
        while (run := self._next()) is not None:
            if cancelling.cancelled(run):  # while it waited
                self.outcomes[run] = Outcome(run, "interrupted")
                continue
            worker: _Worker | None = None
            try:
                worker = self._worker(run)
                self.outcomes[run] = worker.work()
            except Exception as error:
                self.outcomes[run] = Outcome(run, "failed", str(explained(error)))
            if worker:
                worker.close()

    def stop(self, slots: list[threading.Thread]) -> None:
        """Interrupts all workers, and kills them after the grace time or at a second interrupt."""
        with self.lock:
            self.stopped = True
        self._signal(signal.SIGINT)
        end = time.monotonic() + GRACE
        try:
            while any(slot.is_alive() for slot in slots) and time.monotonic() < end:
                time.sleep(TICK)
        except KeyboardInterrupt:
            pass
        finally:
            self._signal(signal.SIGKILL)
            for slot in slots:
                if slot.is_alive():
                    slot.join(timeout=5)

    def _next(self) -> Path | None:
        with self.lock:
            return self.waiting.pop(0) if self.waiting and not self.stopped else None

    def _worker(self, run: Path) -> _Worker:
        with self.lock:
            worker = _Worker(run, self.command, self.environment)
            self.workers = {old for old in self.workers if old.alive()} | {worker}
        if self.stopped:
            worker.process.kill()
        return worker

    def _signal(self, number: signal.Signals) -> None:
        with self.lock:
            for worker in self.workers:
                worker.stopped = True
                if worker.alive():
                    worker.process.send_signal(number)


class _Worker:
    """The worker process of a run, and the log of its standard error."""

    def __init__(self, run: Path, command: Sequence[str], environment: dict[str, str]) -> None:
        # A process group of its own: Ctrl-C in the terminal reaches it through us, once.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment, process_group=0,
        )  # fmt: skip
        self.run, self.log = run, RunDir(run).log
        self.output, self.stopped = b"", False
        self.pump = threading.Thread(target=self._pump, args=(self.process.stderr,), daemon=True)
        self.pump.start()

    def alive(self) -> bool:
        """Whether the process is running."""
        return self.process.poll() is None

    def work(self) -> Outcome:
        """Makes the worker execute its run, and returns the outcome."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(os.fsencode(self.run) + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return self._died()
        for line in self.process.stdout:
            answer = _answer(line, self.run)
            if answer:
                return answer
            self._note(line)  # something that a library printed
        return self._died()

    def close(self) -> None:
        """Ends the process by closing its input."""
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _died(self) -> Outcome:
        code = self.process.wait()
        self.pump.join(timeout=5)
        if self.stopped or code == -signal.SIGINT:
            return Outcome(self.run, "interrupted")
        last = last_line(self.output)
        error = RunFailed(
            f"the worker {_ending(code)}{f' ({last})' if last else ''}.",
            where=str(self.log),
            hint="Read the log; the same command continues where the run stopped.",
        )
        mark_failed(self.run, error)
        return Outcome(self.run, "failed", str(error))

    def _pump(self, stream: IO[bytes]) -> None:
        for line in stream:
            self.output = (self.output + line)[-2000:]
            self._note(line)

    def _note(self, line: bytes) -> None:
        # A disk that has no room for the log is no reason to stop, nor to leave the worker's output unread.
        with suppress(OSError), self.log.open("ab") as file:
            file.write(line)


def _answer(line: bytes, run: Path) -> Outcome | None:
    try:
        found = json.loads(line)
        if Path(found["run"]) != run:
            return None
        return Outcome(run, found["state"], _text(found.get("error")), bool(found.get("wrong_input")))
    except (ValueError, TypeError, KeyError):
        return None


def _text(error: Any) -> str | None:
    if isinstance(error, dict):
        return str(MoextendError(error.get("what", ""), where=error.get("where"), hint=error.get("hint")))
    return None if error is None else str(error)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    memory = "; the system may have run out of memory" if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{memory}"


def _environment(jobs: int) -> dict[str, str]:
    # Without the number of threads, every worker takes all cores and all of them become slower.
    found = {"OMP_NUM_THREADS": str(max(1, cores() // jobs)), **os.environ, "PYTHONSAFEPATH": "1"}
    found[cancelling.EXECUTOR] = "local"
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
