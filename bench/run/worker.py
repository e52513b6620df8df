"""A worker process executes one run: that of the folder in its arguments, or in a line of its input.

`moextend-worker RUN_FOLDER` is the contract for schedulers: a folder of `moextend bench run` in, the same folder with
its results out. It goes on where an earlier worker stopped. Exit codes: 0 done; 1 failed; 2 no run folder; 75 stopped
by SIGTERM, SIGHUP, SIGUSR1 or `moextend bench cancel` with its state saved, so that the same command continues; 130
the same by Ctrl-C.

`torchrun` and `accelerate launch` start it once for each device (together.py): one run on many devices.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import FrameType

from moextend.bench.run.cancelling import heeding
from moextend.bench.run.progress import described, mark_failed, read_status
from moextend.bench.run.records import RunError
from moextend.bench.run.rundir import RunDir
from moextend.bench.run.together import joined
from moextend.errors import InputError, MoextendError, RunBusy
from moextend.util.foreign import explained

STOPPED = 75
"""Exit code of a run that was stopped in order (EX_TEMPFAIL: try again later)."""
GRACE = 20.0
"""Seconds that a run gets to save its state after the parent process is gone."""


def main() -> None:
    """Executes one run."""
    if sys.argv[1:]:
        sys.exit(alone(sys.argv[1:], _run))
    serve(_run)


def _run(folder: Path) -> None:
    from moextend.bench.run.runner import run
    from moextend.util.quiet import quiet_process

    quiet_process()
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
    )  # standard error: the log
    logging.getLogger("moextend").setLevel(logging.INFO)
    run(folder)


def alone(arguments: Sequence[str], run: Callable[[Path], None]) -> int:
    """Executes the run in the folder that `arguments` name; returns the exit code (see the module)."""
    if len(arguments) != 1 or arguments[0].startswith("-") or not arguments[0]:
        return _usage()
    folder = Path(arguments[0]).resolve()
    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        # A scheduler may send several: the first one saves the state, and others do not interrupt that.
        if len(signals) == 1 or number == signal.SIGINT:
            raise KeyboardInterrupt

    for number in _heeded() | {getattr(signal, "SIGUSR1", signal.SIGTERM)}:
        signal.signal(number, stop)
    try:
        if not (folder / "config.json").is_file():
            raise InputError(
                "not a run folder: no config.json.",
                where=str(folder),
                hint="Create runs with moextend bench run; they are in runs/ of the workspace.",
            )
        with heeding(folder, lambda: _signal_main(signal.SIGTERM)), _joined(folder):
            run(folder)
    except KeyboardInterrupt:
        return 130 if signals[:1] == [signal.SIGINT] else STOPPED
    except Exception as problem:
        if not isinstance(problem, MoextendError):
            traceback.print_exc()
        print(f"error: {explained(problem)}", file=sys.stderr)
        return 2 if not (folder / "config.json").is_file() else 1
    return 0


def _usage() -> int:
    print("usage: moextend-worker RUN_FOLDER", file=sys.stderr)
    return 2


def _joined(folder: Path) -> AbstractContextManager[None]:
    """Context of one of the processes of a run that `torchrun` or `accelerate launch` started; else it does nothing."""

    def on_cpu() -> bool:
        import torch

        device = RunDir(folder).config.device
        return device == "cpu" or (device == "auto" and not torch.cuda.is_available())

    return joined(folder, on_cpu=on_cpu, fail=lambda error: mark_failed(folder, error, mine=True))


def serve(run: Callable[[Path], None], grace: float = GRACE) -> None:
    """Executes the run in the input with `run`. Exits with code 2 if the input is empty; an interrupt ends it."""
    _heed_signals()
    order = _Order(grace)
    with suppress(KeyboardInterrupt):  # before or after the run
        folder = order.take()
        if folder is None:
            sys.exit(_usage())
        state, error, wrong_input = "done", None, False
        try:
            with heeding(folder, lambda: _signal_main(signal.SIGINT)):
                run(folder)
        except KeyboardInterrupt:
            state = "interrupted"
        except Exception as problem:
            if not isinstance(problem, MoextendError):
                traceback.print_exc()
            state, error = "failed", _recorded(folder, problem)
            wrong_input = isinstance(problem, InputError) and not isinstance(problem, RunBusy)
        order.done()
        _say(folder, state, error, wrong_input=wrong_input)


def _recorded(folder: Path, problem: Exception) -> RunError:
    """The error from the status of the run, which includes its place; else the error itself."""
    status = read_status(folder)
    mine = status.state == "failed" and status.pid == os.getpid()
    return status.error if mine and status.error else described(problem)


class _Order:
    """The input, read by a thread: it ends during the run only if the parent process is gone.

    The run is then interrupted, as by Ctrl-C, so that no orphaned worker remains.
    """

    def __init__(self, grace: float) -> None:
        self._grace, self._busy, self._ended = grace, False, False
        self._lines: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def take(self) -> Path | None:
        """The run folder; None at the end of the input."""
        folder = self._lines.get()
        with self._lock:
            self._busy = folder is not None and not self._ended
            return folder if self._busy else None

    def done(self) -> None:
        """Marks the run as ended."""
        with self._lock:
            self._busy = False

    def _read(self) -> None:
        # Not sys.stdin: a thread that holds its lock while the process ends is a fatal error of Python.
        rest = b""
        while block := os.read(0, 1 << 16):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                self._lines.put(Path(os.fsdecode(line)))
        with self._lock:
            self._ended = True
            if self._busy:
                self._stop()
        self._lines.put(None)

    def _stop(self) -> None:
        # Nobody reads the output any more, and a failed print must not become the run's failure.
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        _signal_main(signal.SIGINT)
        threading.Thread(target=self._end, daemon=True).start()

    def _end(self) -> None:
        time.sleep(self._grace)
        os._exit(1)


def _signal_main(number: signal.Signals) -> None:
    """Sends a signal to the main thread, which interrupts its system calls too."""
    signal.pthread_kill(threading.main_thread().ident or 0, number)


def _heed_signals() -> None:
    """The heeded signals interrupt the run."""
    for number in _heeded():
        signal.signal(number, signal.default_int_handler)


def _heeded() -> set[signal.Signals]:
    """SIGINT, SIGTERM and SIGHUP.

    SIGINT also if it was ignored, as in background jobs of a shell: a worker gets it only from its parent process.
    SIGHUP stays ignored if it was (nohup).
    """
    kept = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
    return {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} - kept


def _say(folder: Path, state: str, error: RunError | None, *, wrong_input: bool) -> None:
    answer = {
        "run": str(folder), "state": state, "error": error and error.model_dump(), "wrong_input": wrong_input,
    }  # fmt: skip
    with suppress(BrokenPipeError):
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
