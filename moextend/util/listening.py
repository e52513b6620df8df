"""Ports of servers, and an application that counts and logs its requests."""

from __future__ import annotations

import errno
import ipaddress
import json
import re
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from moextend.errors import InputError, listed

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


LOCAL = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine in a Host header."""
BACKLOG = 128
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?", re.IGNORECASE)
LogFormat = Literal["text", "json"]


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


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


@dataclass
class Counted:
    """An application that answers a number of requests at a time, and writes a line about each to standard error."""

    app: ASGIApp
    most: int
    """Requests at a time; open connections without a request do not count."""
    refusal: ASGIApp
    """Answers those above."""
    log: LogFormat | None = None
    """Form of the lines; None: none are written."""
    active: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, gone = time.monotonic(), 499, False

        async def heard() -> Message:
            nonlocal gone
            message = await receive()
            gone = gone or message["type"] == "http.disconnect"
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start" and not gone:
                status = message["status"]
            await send(message)

        self.active += 1
        try:
            await (self.app if self.active <= self.most else self.refusal)(scope, heard, noted)
        finally:
            self.active -= 1
            if self.log is not None:
                print(_line(self.log, scope, status, time.monotonic() - start), file=sys.stderr, flush=True)


def _line(form: LogFormat, scope: Scope, status: int, seconds: float) -> str:
    """A line about a request, without its query and content; status 499: the client closed the connection."""
    values = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "client": (scope.get("client") or ["-"])[0],
        "method": scope["method"],
        "path": scope["raw_path"].decode("latin-1"),  # as it was sent: without line breaks
        "status": status,
        "seconds": round(seconds, 3),
        "model": scope.get("state", {}).get("model"),
    }
    if form == "json":
        return json.dumps(values)
    model = values.pop("model")
    return " ".join([*map(str, values.values()), *([] if model is None else [json.dumps(model)])])
