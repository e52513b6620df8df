"""The process that holds a lease, and whether it can be judged from here.

A process id means something only on the kernel and in the PID namespace that gave it. Containers of one machine share
the boot id, and machines may share a name, so both are part of the record.
"""

from __future__ import annotations

import math
import os
import socket
import sys
import uuid
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from moextend.errors import InputError
from moextend.util.record import Record

VARIABLE = "MOEXTEND_LEASE_SECONDS"
"""Environment variable: seconds without a heartbeat after which another host takes over."""
SECONDS = 60.0
LIMITS = (2.0, 3600.0)

Life = Literal["alive", "suspended", "dead", "unknown"]
"""unknown: another host or PID namespace, whose processes cannot be looked at."""


class Holder(Record):
    """`.lease-<n>` of a run, `<file>.lease-<n>` of a shared file: the process that works on it."""

    host: str
    """Name of its machine."""
    boot: str
    """Boot id of its kernel. "": not known."""
    namespace: str
    """Number of its PID namespace. "": not known."""
    machine: str
    """Digest of the machine's name, id and network addresses, which a reboot keeps. "": not known."""
    pid: int
    """Process id in its namespace."""
    born: str | None
    """Start time of the process, to distinguish it from a later one with the same id. null: not known."""
    token: str
    """Random text, different for every lease."""
    seconds: float = Field(ge=0, le=LIMITS[1])
    """Seconds without a heartbeat after which another process takes over."""
    beat: int
    """Number of heartbeats. The clocks of hosts need not agree: a process that waits watches this number."""
    released: bool
    """Whether the holder is done with it. The file stays, so that its number is not used again."""

    @classmethod
    def here(cls, seconds: float) -> Self:
        """This process, with a new token."""
        return cls(
            host=socket.gethostname(), boot=_boot(), namespace=_namespace(), machine=_machine(),
            pid=os.getpid(), born=born(os.getpid()), token=uuid.uuid4().hex, seconds=seconds, beat=0, released=False,
        )  # fmt: skip

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def life(self) -> Life:
        """What can be known about the process from here."""
        if not self.boot and not sys.platform.startswith("linux"):
            same = self.machine and self.machine == _machine()
            return "dead" if same and not exists(self.pid) else "unknown"
        if self.boot != _boot():
            rebooted = self.boot and _boot() and self.machine and self.machine == _machine()
            return "dead" if rebooted else "unknown"
        if not self.namespace or self.namespace != _namespace():
            return "unknown"
        return self._life_here()

    def _life_here(self) -> Life:
        if not exists(self.pid):
            return "dead"
        stat = _stat(self.pid)
        if stat is None:  # hidden, as of another user, or gone since
            return "unknown" if exists(self.pid) else "dead"
        if stat[_BORN] != self.born or _ended(stat):
            return "dead"
        return "suspended" if stat[0] in "Tt" else "alive"


_THREADS, _BORN = 17, 19
"""Places in /proc/PID/stat after the name of the process."""


def born(pid: int) -> str | None:
    """Start time of a process in ticks since boot, from /proc; None for a dead process or without /proc.

    psutil returns clock time, which changes when the clock is set: the same process would count as another one.
    """
    stat = _stat(pid)
    return None if stat is None or _ended(stat) else stat[_BORN]


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _ended(stat: list[str]) -> bool:
    # A killed process is a zombie while one of its threads still waits for a disk, and then writes to it.
    return stat[0] in "ZX" and int(stat[_THREADS]) <= 1


def exists(pid: int) -> bool:
    """Whether a process of this machine has this id, also one of another user, or a zombie."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@cache
def _boot() -> str:
    return _text("/proc/sys/kernel/random/boot_id")


def _namespace() -> str:
    """Number of the PID namespace; "" if /proc belongs to another one, as after unshare without --mount-proc."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # noqa: PTH115
            return ""
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return ""


@cache
def _machine() -> str:
    """Digest of what a machine keeps over a reboot; "" if it has no network hardware, as containers have none.

    Clones of a machine may share name and id, but not the addresses of their network hardware.
    """
    if not sys.platform.startswith("linux"):
        addresses = [f"{uuid.getnode():x}"]
    else:
        found = sorted(Path("/sys/class/net").glob("*/device"))
        addresses = [_text(str(path.with_name("address"))) for path in found]
    if not any(addresses):
        return ""
    return sha256(
        "\n".join([socket.gethostname(), _text("/etc/machine-id"), *addresses]).encode()
    ).hexdigest()[:16]


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def seconds() -> float:
    """Seconds without a heartbeat after which another host takes over; InputError for a wrong setting."""
    text = os.environ.get(VARIABLE, "")
    try:
        found = float(text or SECONDS)
    except ValueError:
        found = math.nan
    low, high = LIMITS
    if not low <= found <= high:
        raise InputError(
            f"'{text}' is not a number of seconds from {low:g} to {high:g}.",
            where=VARIABLE,
            hint=f"Unset it ({SECONDS:g} seconds), or use the same value on all hosts.",
        )
    return found
