"""A server that a run starts for some weights, and stops when others are needed."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from moextend.bench.score.served.client import Client, ServerFailed
from moextend.bench.scoring import filled
from moextend.errors import RunFailed, last_line, short
from moextend.util import tether

POLL = 0.5
"""Seconds between two questions whether a server answers."""
GRACE = 10.0
"""Seconds that a server gets to stop."""


def free_port() -> int:
    """A port of this host that nobody uses now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(
    command: str,
    client: Callable[[int], Client],
    log: Path,
    *,
    patience: float,
    tick: Callable[[], None],
    **words: str,
) -> Iterator[Client]:
    """Context with a server that the command starts; its output goes to `log`.

    Args:
        client: the client of a server at a port of this host.
        patience: seconds until it must answer.
        tick: called while it starts.
        words: values of the placeholders besides {port}.

    Raises:
        RunFailed: the command does not exist, ends, or does not answer in time.
    """
    port = free_port()
    arguments = [filled(word, port=str(port), **words) for word in shlex.split(command)]
    with ExitStack() as stack:
        output = stack.enter_context(log.open("ab"))
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", tether.__file__, str(os.getpid()), *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise _failed(f"the server cannot be started ({error.strerror})", arguments, log) from error
        stack.callback(stop, process)
        found = client(port)
        end = time.monotonic() + patience
        while not found.is_ready():
            tick()
            if process.poll() is not None:
                raise _failed(
                    f"the server ended with code {process.returncode} before it answered", arguments, log
                )
            if time.monotonic() > end:
                raise _failed(f"the server does not answer within {patience:g} seconds", arguments, log)
            time.sleep(POLL)
        yield found


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a server with all that it started: in order, then by force."""
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # what the server left behind


def _failed(what: str, arguments: list[str], log: Path) -> RunFailed:
    line = last_line(log.read_bytes()) if log.exists() else ""
    last = f" Its last line: {line}" if line else ""
    return ServerFailed(
        f"{what}.{last}", where=short(shlex.join(arguments), 200), hint=f"Its output is in {log}."
    )
