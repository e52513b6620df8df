"""Ports of servers."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Sequence
from importlib.util import find_spec

from moextend.errors import InputError, listed

LOCAL = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine in a Host header."""
BACKLOG = 128
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?", re.IGNORECASE)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on a port, 0 for a free one.

    Raises:
        InputError: the port is in use, or the host is none of this machine.
    """
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise _no_host(host) from error
    opened = socket.socket(family, kind)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(place)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise _refused(error, host, port) from error
    return opened


def hosts_of(host: str, opened: socket.socket) -> tuple[str, ...] | None:
    """Names that a server at `host` answers, against DNS rebinding; None: any, of an address that others reach."""
    if not is_loopback(str(opened.getsockname()[0])):
        return None
    return (*LOCAL, (f"[{host}]" if ":" in host else host).lower())


def is_answered(header: str, hosts: Sequence[str] | None) -> bool:
    """Whether a request with this Host header is answered; `hosts`: of `hosts_of`."""
    found = _HOST.fullmatch(header)
    return hosts is None or (found is not None and found[1].lower() in hosts)


def is_loopback(address: str) -> bool:
    """Whether an IP address is reached from this machine only."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def url_of(host: str, port: int) -> str:
    """Address of a server, with the name of this machine for all its networks."""
    host = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def check_packages(packages: Sequence[str], *, where: str) -> None:
    """Raises InputError if one of the packages of servers is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(
            f"{listed(missing)} {'are' if len(missing) > 1 else 'is'} not installed.",
            where=where,
            hint="Run: pip install 'moextend[serve]'",
        )


def _no_host(host: str) -> InputError:
    return InputError(
        f"'{host}' is not an address of this machine.",
        where="--host",
        hint="127.0.0.1 is for this machine only, 0.0.0.0 for all networks that it is in.",
    )


def _refused(error: OSError, host: str, port: int) -> InputError:
    if error.errno == errno.EADDRNOTAVAIL:
        return _no_host(host)
    why = {errno.EADDRINUSE: "is in use", errno.EACCES: "requires more rights"}
    what = why.get(error.errno or 0, f"cannot be opened ({error.strerror})")
    return InputError(
        f"port {port} {what}.", where="--port", hint="Choose another one; 0 chooses a free one."
    )
