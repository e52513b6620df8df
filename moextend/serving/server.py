"""The server: routes of OpenAI's protocol over an engine, and uvicorn, until a signal ends it."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moextend.errors import MoextendError
from moextend.serving.answering import Answering, event_of
from moextend.serving.engine import Answers, Options
from moextend.serving.protocol import ApiError, NewExtension, error_of
from moextend.util import http
from moextend.util.environment import __version__
from moextend.util.listening import Counted, hosts_of, is_answered

CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
REQUESTS = 4096
"""Maximum number of requests at a time, whose bodies take memory."""
OPEN = "/health"
"""Path without a key."""
AGAIN = {"Retry-After": "5"}


def application(engine: Answers) -> FastAPI:
    """The routes of an engine."""
    app = FastAPI(title="moextend serve", version=__version__, docs_url=None, redoc_url=None)
    answering, catalogue, started = Answering(engine), engine.catalogue, int(time.time())

    def entry(name: str) -> dict[str, Any]:
        known = catalogue.known
        names = known.names_of(name)
        return {
            "id": name,
            "object": "model",
            "created": started,
            "owned_by": "moextend",
            "system_fingerprint": known.fingerprint(names),
            "extensions": None if names is None else known.shown(names),
        }

    async def changed(change: Callable[[], Any]) -> Any:
        if not engine.options.admin:
            what = "extensions cannot be changed here; start the server with --admin."
            raise ApiError(403, what, code="no_admin")
        return await asyncio.wrap_future(engine.call(change))

    @app.get(OPEN)
    async def health() -> Any:
        """Whether the server answers, and vLLM behind it."""
        await engine.prove()
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> Any:
        """The base, the extensions, and auto."""
        return {"object": "list", "data": [entry(name) for name in catalogue.known.models()]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> Any:
        """One model."""
        return entry(name)

    @app.get("/v1/extensions")
    async def extensions() -> Any:
        """The loaded extensions."""
        known = catalogue.known
        return {"object": "list", "data": [entry(name) for name in known.shown(known.served)]}

    @app.post("/v1/extensions")
    async def attach(body: NewExtension) -> Any:
        """Loads an extension from a folder of the server's machine, also in the place of one with this name."""
        load = partial(catalogue.attach, Path(body.path), body.name, body.strength, replace=True)
        return entry(await changed(load))

    @app.delete("/v1/extensions/{name}")
    async def detach(name: str) -> Any:
        """Unloads an extension after the requests that wait."""
        await changed(partial(catalogue.detach, name))
        return {"id": name, "object": "model", "deleted": True}

    app.post("/v1/completions")(answering.completion)
    app.post("/v1/chat/completions")(answering.chat)
    for kind in (Exception, MoextendError, ApiError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _answer_error)
    return app


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    """Gives all errors OpenAI's shape."""
    if isinstance(error, RequestValidationError):
        return _invalid(error).answer()
    if not isinstance(error, HTTPException):
        return error_of(error).answer()
    status, missing = error.status_code, f"this server has no {request.method} {request.url.path}."
    if status == 400:  # of FastAPI, for a body that is no text or too deep
        return ApiError(400, "the body is not JSON.", code="invalid_json").answer()
    message = missing if status in (404, 405) else str(error.detail)
    return ApiError(status, message, code=CODES.get(status, "invalid_input"), headers=error.headers).answer()


def _invalid(error: RequestValidationError) -> ApiError:
    """The innermost problem of a body, with its place."""
    first = max(error.errors(), key=lambda each: len(each["loc"]))
    path = [str(part) for part in first["loc"][1:]]  # without "body"
    if first["type"] == "json_invalid" or not path:
        what = "the body is not a JSON object with Content-Type: application/json."
        return ApiError(400, what, code="invalid_json")
    place = ".".join(path)
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"unknown parameter: {place}.", code="unknown_parameter", param=place)
    return ApiError(400, f"{place}: {first['msg']}.", code="invalid_value", param=path[0])


@dataclass(frozen=True)
class Guard:
    """An application behind what a request must have: a known host, the key, and a body of bounded size.

    The end of a request, also by a closed connection or the end of the server, frees the places of its jobs.
    """

    app: ASGIApp
    options: Options
    hosts: Sequence[str] | None
    """Names in the Host header that are answered, against DNS rebinding; None: any."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        task, watcher = asyncio.current_task(), None
        left, begun, ended = self.options.body, False, False

        async def watch() -> None:
            nonlocal ended
            while (await receive())["type"] != "http.disconnect":
                pass
            ended = True
            if task is not None:
                task.cancel()

        async def bounded() -> Message:
            nonlocal left, watcher
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:  # FastAPI hands it on
                raise HTTPException(413, f"the body has more than {self.options.body:,} bytes.")
            if watcher is None and not message.get("more_body"):
                watcher = asyncio.create_task(watch())
            return message

        async def noted(message: Message) -> None:
            nonlocal begun, ended
            begun, ended = True, message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        try:
            error = self._error(Request(scope))
            await (error.answer() if error else self.app)(scope, bounded, noted)
        except asyncio.CancelledError:
            # By `watch`, or by uvicorn, which ends what takes longer than the grace.
            stopping = ApiError(503, "the server is stopping.", code="stopping", headers=AGAIN)
            if not (ended or begun):
                await stopping.answer()(scope, receive, send)
            elif not ended:
                await send({"type": "http.response.body", "body": event_of(stopping.body).encode()})
        finally:
            for job in scope.get("state", {}).get("jobs", ()):
                job.over = True
            if watcher is not None:
                watcher.cancel()

    def _error(self, request: Request) -> ApiError | None:
        key = self.options.key
        if not is_answered(request.headers.get("host", ""), self.hosts):
            return ApiError(403, "this server does not answer requests for this host name.", code="host")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if key is None or request.scope["path"] == OPEN:
            return None
        if scheme.lower() == "bearer" and secrets.compare_digest(given.encode(), key.encode()):
            return None
        return ApiError(401, "the API key is missing or wrong.", code="invalid_api_key")


class Server(http.Server):
    """uvicorn that ends quietly: at a signal after the open requests, at a second one at once.

    A thread may still compute or read afterwards, which nothing can interrupt.
    """

    def __init__(self, engine: Answers, opened: socket.socket) -> None:
        """Args: opened: the port."""
        self.engine, options = engine, engine.options
        hosts = hosts_of(options.host, opened) if options.key is None else None
        crowded = ApiError(503, "the server answers too many requests.", code="crowded", headers=AGAIN)
        guard = Guard(application(self.engine), options, hosts)
        counted = Counted(guard, REQUESTS, crowded.answer(), options.log)
        super().__init__(http.config_of(counted, grace=options.grace))
        self.ready: Callable[[], Any] = lambda: None
        """Called once requests and signals are taken."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to take requests."""
        await super().startup(sockets)
        self.ready()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Takes a signal, which is not raised again afterwards."""
        self.should_exit, self.force_exit = True, self.should_exit
