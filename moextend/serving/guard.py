"""What a request must have before it is read: a known host, the key, and a body of bounded size."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moextend.serving import errors
from moextend.serving.errors import ApiError
from moextend.serving.metrics import Metrics
from moextend.util.listening import is_answered

OPEN = ("/health", "/metrics")
"""Paths without a key."""


@dataclass(frozen=True)
class Guard:
    """An application behind the checks; it also counts requests."""

    app: ASGIApp
    metrics: Metrics
    key: str | None = None
    """Key of the API; None: none is needed."""
    hosts: Sequence[str] | None = None
    """Names in the Host header that are answered, against DNS rebinding; None: any."""
    most: int = 32 << 20
    """Bytes of a body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, status = Request(scope), 499

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            body = _Body(receive, self.most)
            error = self._error(request)
            if error is not None:
                await refusal(error)(scope, receive, counted)
                return
            await self.app(scope, body.receive, counted)
        except asyncio.CancelledError:  # uvicorn ends what takes longer than the grace
            if status == 499:
                await refusal(errors.stopping())(scope, receive, counted)
        finally:
            route = scope.get("route")  # not the path, of which clients can make any number
            self.metrics.request(getattr(route, "path", "other"), status)

    def _error(self, request: Request) -> ApiError | None:
        if not is_answered(request.headers.get("host", ""), self.hosts):
            return ApiError(403, "this server does not answer requests for this host name.", code="host")
        if self.key is not None and request.scope["path"] not in OPEN:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            same = secrets.compare_digest(given.encode(), self.key.encode())
            if scheme.lower() != "bearer" or not same:
                return ApiError(401, "the API key is missing or wrong.", code="invalid_api_key")
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.most:
            return ApiError(413, _too_large(self.most), code="body_too_large")
        return None


class _Body:
    """Receives a body up to a number of bytes."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most, self._left = receive, most, most

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(413, _too_large(self._most))  # which FastAPI hands on
        return message


def _too_large(most: int) -> str:
    return f"the body has more than {most:,} bytes."


def refusal(error: ApiError) -> JSONResponse:
    """The answer with an error."""
    return JSONResponse(error.body, error.status, headers=error.headers)
