"""Two hosts on one workspace: processes with their own host name and PID namespace, on one kernel.

Each host has a server that forks the command line and its workers (tests/preloaded.py). Their process ids mean nothing
to each other, as between machines; the boot id is the same, as between containers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests import preloaded

UNSHARE = ("unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")


def refused() -> str | None:
    """Why no namespaces can be made here; None where they can."""
    try:
        done = subprocess.run(
            [*UNSHARE, "hostname", "x"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no namespaces: {error}"
    return f"no namespaces: {done.stderr.strip()}" if done.returncode else None


class Host:
    """A host with a name."""

    def __init__(self, name: str, server: str, first: int, own: dict[str, str]) -> None:
        self.name, self.server, self.own = name, server, own
        self._first, self._space = first, _space(first)

    def processes(self) -> list[int]:
        """All its processes but the server, by their numbers in our namespace."""
        found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        return [pid for pid in found if _space(pid) == self._space and pid != self._first]

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to all of them."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def command(self, folder: Path, *arguments: str, **environment: str) -> Command:
        """Starts `moextend ARGUMENTS` in a folder."""
        return Command(self, folder, arguments, {**self.own, **environment})


class Command:
    """A command line on a host."""

    def __init__(
        self, host: Host, folder: Path, arguments: tuple[str, ...], environment: dict[str, str]
    ) -> None:
        order: dict[str, Any] = {**preloaded.order("cli", *arguments, **environment), "folder": str(folder)}
        self.output = folder.with_name(f"output-{host.name}")
        with self.output.open("wb") as output:
            self._client = preloaded.connect(host.server, order, (0, output.fileno(), output.fileno()))
        preloaded.pid_of(self._client)

    def code(self) -> int:
        """Waits for the end; the exit status."""
        return preloaded.status_of(self._client)

    @property
    def text(self) -> str:
        """What it printed so far."""
        return self.output.read_text()


@contextmanager
def host(name: str, folder: Path) -> Iterator[Host]:
    """A host in namespaces of its own."""
    socket = str(folder / name)
    # A suspended process keeps the locks of `datasets` in its cache, which is a host's own.
    own = {"HF_DATASETS_CACHE": str(folder / f"datasets-{name}")}
    serve = [sys.executable, preloaded.__file__, "serve", socket]
    process = subprocess.Popen(
        [*UNSHARE, "sh", "-c", 'hostname "$0" && exec "$@"', name, *serve],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **own},
    )  # fmt: skip
    assert process.stdin and process.stdout
    try:
        assert process.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Host(name, socket, int(children[0]), own)
    finally:
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        process.kill()
        process.wait()


def until(true: Callable[[], object], seconds: float = 120) -> None:
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def _space(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115
    except OSError:
        return None
