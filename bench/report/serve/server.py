"""The server: an address that is free, and uvicorn on it until Ctrl-C."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.errors import InputError

if TYPE_CHECKING:
    import uvicorn

PACKAGES = ("starlette", "uvicorn")
BACKLOG = 128
CONNECTIONS = 256
"""Maximum number of connections."""
GRACE = 2
"""Seconds that answers may still take after Ctrl-C."""


@dataclass(frozen=True)
class Address:
    """An open socket, and the token that readers need."""

    host: str
    port: int
    socket: socket.socket = field(repr=False)
    token: str | None = field(repr=False, default=None)

    @classmethod
    def opened(cls, host: str, port: int, *, token: bool = False) -> Address:
        """Opens a port, 0 for a free one; a token is needed if asked for, or if `host` is not this machine alone.

        Raises:
            InputError: starlette or uvicorn is missing, the port is in use, or the host is none of this machine.
        """
        _check_packages()
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
        needed = token or not is_loopback(str(place[0]))
        return cls(host, opened.getsockname()[1], opened, secrets.token_urlsafe(32) if needed else None)

    @property
    def url(self) -> str:
        """What a browser opens, with the token."""
        host = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        query = f"?token={self.token}" if self.token else ""
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{query}"

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """Names that are answered; None: any, of an address that is not this machine alone."""
        from moextend.bench.report.serve.guard import LOCAL

        local = is_loopback(str(self.socket.getsockname()[0]))
        own = f"[{self.host}]" if ":" in self.host else self.host
        return (*LOCAL, own.lower()) if local else None


def is_loopback(address: str) -> bool:
    """Whether an IP address is reached from this machine only."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def server_of(address: Address, runs: Path, names: Sequence[str], workspace: Path) -> uvicorn.Server:
    """The server of the page; it runs with the address's socket until `should_exit`."""
    import uvicorn

    from moextend.bench.report.serve.app import application
    from moextend.bench.report.serve.guard import Guard
    from moextend.bench.report.serve.live import Runs
    from moextend.bench.report.serve.watcher import Watcher

    watcher = Watcher(Runs(runs, names), workspace)
    guard = Guard(application(watcher), address.token, address.hosts, f"moextend-{address.port}")
    config = uvicorn.Config(
        guard, access_log=False, log_level="error", lifespan="on", ws="none", server_header=False,
        proxy_headers=False, limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=GRACE,
    )  # fmt: skip
    server = uvicorn.Server(config)
    watcher.ending = lambda: server.should_exit
    return server


def serve(address: Address, runs: Path, names: Sequence[str], workspace: Path) -> None:
    """Serves the page of the runs until Ctrl-C, which raises KeyboardInterrupt."""
    with address.socket:
        server_of(address, runs, names, workspace).run(sockets=[address.socket])


def _check_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not installed.",
            where="bench serve",
            hint="Run: pip install 'moextend[serve]'",
        )


def _no_host(host: str) -> InputError:
    return InputError(
        f"'{host}' is no address of this machine.",
        where="--host",
        hint="127.0.0.1 is for this machine only, 0.0.0.0 for all networks that it is in.",
    )


def _refused(error: OSError, host: str, port: int) -> InputError:
    import errno

    if error.errno == errno.EADDRNOTAVAIL:
        return _no_host(host)
    why = {errno.EADDRINUSE: "is in use", errno.EACCES: "needs more rights"}
    what = why.get(error.errno or 0, f"cannot be opened ({error.strerror})")
    return InputError(f"port {port} {what}.", where="--port", hint="Choose another; 0 takes a free one.")
