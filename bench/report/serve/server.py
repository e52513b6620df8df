"""The server: an address that is free, and uvicorn on it until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.util.listening import check_packages, hosts_of, is_loopback, listen, url_of

if TYPE_CHECKING:
    import uvicorn

PACKAGES = ("starlette", "uvicorn")
BACKLOG = 128
REQUESTS = 256
"""Maximum number of requests at a time."""
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
        check_packages(PACKAGES, where="bench serve")
        opened = listen(host, port, BACKLOG)
        needed = token or not is_loopback(str(opened.getsockname()[0]))
        return cls(host, opened.getsockname()[1], opened, secrets.token_urlsafe(32) if needed else None)

    @property
    def url(self) -> str:
        """What a browser opens, with the token."""
        return url_of(self.host, self.port) + (f"?token={self.token}" if self.token else "")

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """Names that are answered; None: any, of an address that is not this machine alone."""
        return hosts_of(self.host, self.socket)


def server_of(address: Address, runs: Path, names: Sequence[str], workspace: Path) -> uvicorn.Server:
    """The server of the page; it runs with the address's socket until `should_exit`."""
    from starlette.responses import PlainTextResponse

    from moextend.bench.report.serve.app import application
    from moextend.bench.report.serve.guard import Guard
    from moextend.bench.report.serve.live import Runs
    from moextend.bench.report.serve.watcher import Watcher
    from moextend.util import http

    watcher = Watcher(Runs(runs, names), workspace)
    guard = Guard(application(watcher), address.token, address.hosts, f"moextend-{address.port}")
    busy = PlainTextResponse("Too many requests at a time.\n", 503, {"Retry-After": "5"})
    counted = http.Counted(guard, REQUESTS, busy)
    server = http.Server(http.config_of(counted, grace=GRACE, lifespan="on"))
    watcher.ending = lambda: server.should_exit
    return server


def serve(address: Address, runs: Path, names: Sequence[str], workspace: Path) -> None:
    """Serves the page of the runs until Ctrl-C, which raises KeyboardInterrupt."""
    with address.socket:
        server_of(address, runs, names, workspace).run(sockets=[address.socket])
