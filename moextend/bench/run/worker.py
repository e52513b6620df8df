"""`moextend-worker RUN_FOLDER` executes one run: a folder of `moextend bench run` in, the same with its results out.

It goes on where an earlier worker stopped. Exit codes: 0 done; 1 failed; 2 wrong input, or no run folder; 75 stopped by
SIGTERM, SIGHUP, SIGUSR1 or `moextend bench cancel` with its state saved, so that the same command continues; 130 the
same by Ctrl-C.

`torchrun` and `accelerate launch` start it once for each device (together.py): one run on many devices.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from moextend.bench.run.progress import STOPPED, heeding
from moextend.bench.run.rundir import RunDir
from moextend.bench.run.together import joined
from moextend.errors import InputError, MoextendError, RunBusy
from moextend.util.foreign import explained
from moextend.util.quiet import quiet_process


def main() -> None:
    """Executes one run."""
    sys.exit(work(sys.argv[1:], _run))


def _run(folder: Path) -> None:
    from moextend.bench.run.runner import run

    quiet_process()
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
    )  # standard error: the log
    logging.getLogger("moextend").setLevel(logging.INFO)
    run(folder)


def work(arguments: Sequence[str], run: Callable[[Path], None]) -> int:
    """Executes the run in the folder that `arguments` name with `run`; returns the exit code (see the module)."""
    if len(arguments) != 1 or arguments[0].startswith("-") or not arguments[0]:
        print("usage: moextend-worker RUN_FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0]).resolve()
    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        # A scheduler may send several: the first one saves the state, and others do not interrupt that.
        if len(signals) == 1 or number == signal.SIGINT:
            raise KeyboardInterrupt

    # SIGINT also if it was ignored, as in background jobs of a shell. SIGHUP stays ignored if it was (nohup).
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
    for number in {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1} - ignored:
        signal.signal(number, stop)

    def cancel() -> None:  # the signal interrupts system calls of the main thread, too
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    try:
        if not (folder / "config.json").is_file():
            raise InputError(
                "not a run folder: no config.json.",
                where=str(folder),
                hint="Create runs with moextend bench run; they are in runs/ of the workspace.",
            )
        with heeding(folder, cancel), joined(on_cpu=lambda: _on_cpu(folder)):
            run(folder)
    except KeyboardInterrupt:
        return 130 if signals[:1] == [signal.SIGINT] else STOPPED
    except Exception as problem:
        if not isinstance(problem, MoextendError):
            traceback.print_exc()
        print(f"error: {explained(problem)}", file=sys.stderr)
        return 2 if isinstance(problem, InputError) and not isinstance(problem, RunBusy) else 1
    return 0


def _on_cpu(folder: Path) -> bool:
    import torch

    device = RunDir(folder).config.device
    return device == "cpu" or (device == "auto" and not torch.cuda.is_available())


if __name__ == "__main__":
    main()
