"""Commands that end with this process, with all that they start (tether.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from moextend.util import tether


def tethered(command: Sequence[str]) -> list[str]:
    """The command that starts `command` so that it ends with this process."""
    return [sys.executable, "-I", tether.__file__, str(os.getpid()), *command]


@contextmanager
def running(command: Sequence[str], grace: float, **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Context with a command in a process group of its own, which is ended with all that it started.

    Args:
        grace: seconds that it gets to stop before it is killed.
        how: arguments of `subprocess.Popen`.
    """
    process = subprocess.Popen(
        tethered(command), stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True, **how
    )
    try:
        yield process
    finally:
        stop(process, grace)


def stop(process: subprocess.Popen[bytes], grace: float) -> None:
    """Ends the group of a process: in order, then by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
            break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # what it left behind
