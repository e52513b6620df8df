"""Errors of requests in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import JSONResponse

from moextend.errors import InputError, MoextendError, UnknownName, visible

KINDS = {401: "authentication_error", 429: "rate_limit_error"}
"""Types of errors by status, where they are neither of the request nor of the server."""


class ApiError(Exception):
    """An error that a client gets: a status and `{"error": {"message", "type", "param", "code"}}`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, _encodable(visible(message)), code
        self.param = None if param is None else _encodable(visible(param))
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON answer."""
        kind = KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def answer(self) -> JSONResponse:
        """The answer with the error."""
        return JSONResponse(self.body, self.status, headers=self.headers)


def _encodable(text: str) -> str:
    """The text with lone surrogates escaped ("\\ud800"): no encoding has them."""
    return text.encode(errors="backslashreplace").decode()


def of(error: Exception) -> ApiError:
    """An error of the library as one of a request: wrong input is 400, all others are 500."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UnknownName):
        return ApiError(404, str(error), code="not_found")
    if isinstance(error, InputError):
        return ApiError(400, str(error), code="invalid_input")
    message = (
        str(error) if isinstance(error, MoextendError) else f"the model failed ({type(error).__name__})."
    )
    return ApiError(500, message, code="failed")


def no_model(name: str, known: Iterable[str]) -> ApiError:
    """404 for a model that is not served."""
    return ApiError(404, str(UnknownName("model", name, known)), code="model_not_found", param="model")


def busy(status: int, message: str, code: str, *, again: int = 5) -> ApiError:
    """An error that passes; `again`: seconds until the client may ask again."""
    return ApiError(status, message, code=code, headers={"Retry-After": str(again)})


def stopping() -> ApiError:
    """503 while the server stops."""
    return busy(503, "the server is stopping.", "stopping")
