"""The application: routes of OpenAI's protocol over an engine."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from moextend.errors import MoextendError
from moextend.serving import errors
from moextend.serving.answering import Answering
from moextend.serving.engine import Engine
from moextend.serving.errors import ApiError
from moextend.serving.exchange import Gone
from moextend.serving.guard import refusal
from moextend.serving.metrics import Metrics
from moextend.serving.protocol import ChatCompletion, Completion, NewExtension
from moextend.serving.replies import model_entry

CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
KIND = re.compile(r"str|function-after.*|int|float|bool|list\[.*|dict\[.*|constrained-.*|nullable\[.*")
"""Parts of pydantic's places that name an alternative of a type."""
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


def application(engine: Engine, metrics: Metrics, options: Options) -> FastAPI:
    """The application; the engine is started and closed by the caller."""
    from moextend.util.release import __version__

    app = FastAPI(title="moextend serve", version=__version__, docs_url=None, redoc_url=None)
    answering = Answering(engine, options.timeout, options.max_new_tokens)
    _answer_errors(app)

    @app.get("/health")
    def health() -> Response:
        """Whether the server answers."""
        ok = engine.is_open
        return JSONResponse({"status": "ok" if ok else "stopping"}, 200 if ok else 503)

    @app.get("/metrics")
    def numbers() -> Response:
        """Numbers for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        """The base, the extensions, and auto."""
        return {"object": "list", "data": _models(engine)}

    @app.get("/v1/models/{name}")
    def model(name: str) -> Any:
        """One model."""
        known = engine.catalogue.known
        names = known.names_of(name)
        return model_entry(known, name, names)

    @app.post("/v1/completions")
    async def completions(body: Completion, request: Request) -> Response:
        """Continues texts."""
        return await answering.completion(body, request)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatCompletion, request: Request) -> Response:
        """Answers the last message of a chat."""
        return await answering.chat(body, request)

    _add_extensions(app, engine, options.admin)
    return app


def _models(engine: Engine) -> list[Any]:
    known = engine.catalogue.known
    return [model_entry(known, name, names) for name, names in known.models().items()]


def _add_extensions(app: FastAPI, engine: Engine, admin: bool) -> None:
    """Adds the routes that attach and detach extensions."""

    def check() -> None:
        if not admin:
            raise ApiError(
                403, "extensions cannot be changed here; start the server with --admin.", code="no_admin"
            )

    @app.get("/v1/extensions")
    def extensions() -> dict[str, Any]:
        """The loaded extensions."""
        data = [each for each in _models(engine) if each["extensions"]]
        return {"object": "list", "data": data}

    @app.post("/v1/extensions")
    async def attach(body: NewExtension) -> Any:
        """Loads an extension from a folder of the server's machine, also in the place of one of the same name."""
        check()
        future = engine.attach(Path(body.path), body.name, body.strength)
        name = await asyncio.wait_for(asyncio.wrap_future(future), LOADING)
        return next(each for each in _models(engine) if each["id"] == name)

    @app.delete("/v1/extensions/{name}")
    async def detach(name: str) -> Any:
        """Unloads an extension, after the requests that it answers."""
        check()
        await asyncio.wait_for(asyncio.wrap_future(engine.detach(name)), LOADING)
        return {"id": name, "object": "model", "deleted": True}


def _answer_errors(app: FastAPI) -> None:
    """Gives all errors OpenAI's shape."""

    @app.exception_handler(ApiError)
    async def own(request: Request, error: ApiError) -> JSONResponse:
        return refusal(error)

    @app.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> Response:
        return Response(status_code=499)

    @app.exception_handler(MoextendError)
    async def known(request: Request, error: MoextendError) -> JSONResponse:
        return refusal(errors.of(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return refusal(_invalid(error))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # of FastAPI, for a body that is no text or too deep
            return refusal(ApiError(400, "the body is not JSON.", code="invalid_json"))
        code, message = CODES.get(error.status_code, "invalid_input"), str(error.detail)
        if error.status_code in (404, 405):
            there = ", ".join(_routes(app))
            message = f"this server has no {request.method} {request.url.path}. It has: {there}."
        return refusal(ApiError(error.status_code, message, code=code, headers=error.headers))

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        return refusal(errors.of(error))


def _routes(app: FastAPI) -> list[str]:
    """The routes that an unknown one may be mistaken for."""
    found = [route for route in app.routes if isinstance(route, APIRoute)]
    return [f"{method} {route.path}" for route in found for method in sorted(route.methods or ())]


def _invalid(error: RequestValidationError) -> ApiError:
    """The innermost problem of a body, with its place: of alternatives, that of the one that was meant."""
    first = max(error.errors(), key=lambda each: len(each["loc"]))
    path = [str(part) for part in first["loc"] if part != "body" and not KIND.fullmatch(str(part))]
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {first['ctx']['error']}.", code="invalid_json")
    if not path:
        return ApiError(
            400, "the body is not a JSON object with Content-Type: application/json.", code="invalid_json"
        )
    place = ".".join(path)
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"unknown parameter: {place}.", code="unknown_parameter", param=place)
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{place}: {message}.", code="invalid_value", param=path[0])
