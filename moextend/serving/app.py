"""The application: routes of OpenAI's protocol over an engine."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from moextend.errors import MoextendError
from moextend.serving import errors
from moextend.serving.answering import Answering, Gone
from moextend.serving.engine import Engine
from moextend.serving.errors import ApiError
from moextend.serving.protocol import ChatCompletion, Completion, NewExtension
from moextend.util.environment import __version__

T = TypeVar("T")
CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
STARTED = int(time.time())
"""Unix time of the start, which clients expect of every model."""
LOADING = 600
"""Seconds at most that attaching or detaching takes."""


@dataclass(frozen=True)
class Options:
    """Settings of the application."""

    timeout: float = 600
    """Seconds from the arrival of a request to its last token."""
    max_new_tokens: int = 1024
    """Maximum number of tokens per answer."""
    admin: bool = False
    """Whether extensions may be attached and detached."""


def application(engine: Engine, options: Options) -> FastAPI:
    """The application; the engine is started and closed by the caller."""
    app = FastAPI(title="moextend serve", version=__version__, docs_url=None, redoc_url=None)
    answering = Answering(engine, options.timeout, options.max_new_tokens)
    _answer_errors(app)

    @app.get("/health")
    def health() -> Response:
        """Whether the server answers."""
        ok = engine.is_open
        return JSONResponse({"status": "ok" if ok else "stopping"}, 200 if ok else 503)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        """The base, the extensions, and auto."""
        return {"object": "list", "data": [_entry(engine, name) for name in engine.catalogue.known.models()]}

    @app.get("/v1/models/{name}")
    def model(name: str) -> Any:
        """One model."""
        return _entry(engine, name)

    @app.post("/v1/completions")
    async def completions(body: Completion, request: Request) -> Response:
        """Continues texts."""
        return await answering.completion(body, request)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatCompletion, request: Request) -> Response:
        """Answers the last message of a chat."""
        return await answering.chat(body, request)

    async def allowed(future: Future[T]) -> T:
        return await asyncio.wait_for(asyncio.wrap_future(future), LOADING)

    def check_admin() -> None:
        if not options.admin:
            raise ApiError(
                403, "extensions cannot be changed here; start the server with --admin.", code="no_admin"
            )

    @app.get("/v1/extensions")
    def extensions() -> dict[str, Any]:
        """The loaded extensions."""
        known = engine.catalogue.known.extensions()
        return {"object": "list", "data": [_entry(engine, name) for name in known]}

    @app.post("/v1/extensions")
    async def attach(body: NewExtension) -> Any:
        """Loads an extension from a folder of the server's machine, also in the place of one with this name."""
        check_admin()
        return _entry(engine, await allowed(engine.attach(Path(body.path), body.name, body.strength)))

    @app.delete("/v1/extensions/{name}")
    async def detach(name: str) -> Any:
        """Refuses new requests for an extension, which is unloaded after those that it answers."""
        check_admin()
        await allowed(engine.detach(name))
        return {"id": name, "object": "model", "deleted": True}

    return app


def _entry(engine: Engine, name: str) -> dict[str, Any]:
    """Entry of /v1/models."""
    known = engine.catalogue.known
    names = known.names_of(name)
    return {
        "id": name,
        "object": "model",
        "created": STARTED,
        "owned_by": "moextend",
        "system_fingerprint": known.fingerprint(names),
        "extensions": None if names is None else [known.served[each].model for each in names],
    }


def _answer_errors(app: FastAPI) -> None:
    """Gives all errors OpenAI's shape."""

    @app.exception_handler(Exception)
    @app.exception_handler(MoextendError)
    @app.exception_handler(ApiError)
    async def any_(request: Request, error: Exception) -> JSONResponse:
        return errors.of(error).answer()

    @app.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> Response:
        return Response(status_code=499)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _invalid(error).answer()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # of FastAPI, for a body that is no text or too deep
            return ApiError(400, "the body is not JSON.", code="invalid_json").answer()
        code, message = CODES.get(error.status_code, "invalid_input"), str(error.detail)
        if error.status_code in (404, 405):
            found = [route for route in app.routes if isinstance(route, APIRoute)]
            there = ", ".join(
                f"{method} {route.path}" for route in found for method in sorted(route.methods or ())
            )
            message = f"this server has no {request.method} {request.url.path}. It has: {there}."
        return ApiError(error.status_code, message, code=code, headers=error.headers).answer()


def _invalid(error: RequestValidationError) -> ApiError:
    """The innermost problem of a body, with its place."""
    first = max(error.errors(), key=lambda each: len(each["loc"]))
    path = [str(part) for part in first["loc"][1:]]  # without "body"
    if first["type"] == "json_invalid" or not path:
        what = "is not a JSON object with Content-Type: application/json"
        return ApiError(400, f"the body {what}.", code="invalid_json")
    place = ".".join(path)
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"unknown parameter: {place}.", code="unknown_parameter", param=place)
    return ApiError(400, f"{place}: {first['msg']}.", code="invalid_value", param=path[0])
