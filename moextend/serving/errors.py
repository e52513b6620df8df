"""Errors of requests in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moextend.errors import InputError, MoextendError, UnknownName, visible

INVALID = "invalid_request_error"
SERVER = "server_error"


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
        self.status, self.message, self.code = status, encodable(visible(message)), code
        self.param = None if param is None else encodable(visible(param))
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON answer."""
        kind = SERVER if self.status >= 500 else INVALID
        if self.status in (401, 429):
            kind = {401: "authentication_error", 429: "rate_limit_error"}[self.status]
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def encodable(text: str) -> str:
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
    if isinstance(error, MoextendError):
        return ApiError(500, str(error), code="failed")
    return ApiError(500, f"the model failed ({type(error).__name__}).", code="failed")


def no_model(name: str, known: Mapping[str, Any]) -> ApiError:
    """404 for a model that is not served."""
    found = UnknownName("model", name, known)
    return ApiError(404, str(found), code="model_not_found", param="model")


def too_many(seconds: int) -> ApiError:
    """429 for a full queue."""
    return ApiError(
        429,
        f"the queue is full. Try again in {seconds} s.",
        code="queue_full",
        headers={"Retry-After": str(seconds)},
    )


def crowded() -> ApiError:
    """503 for a request above the number that is answered at a time."""
    return ApiError(
        503, "the server answers too many requests.", code="crowded", headers={"Retry-After": "5"}
    )


def too_late(seconds: float) -> ApiError:
    """504 for a request that takes too long."""
    return ApiError(504, f"the request took more than {seconds:g} s.", code="timeout")


def stopping() -> ApiError:
    """503 while the server stops."""
    return ApiError(503, "the server is stopping.", code="stopping", headers={"Retry-After": "5"})


def too_long(asked: int, prompt: int, context: int, param: str) -> ApiError:
    """400 for a prompt, the parameter `param`, that exceeds the context together with its answer."""
    return ApiError(
        400,
        f"this model's context length is {context} tokens, and the request takes {asked} ({prompt} of the prompt, "
        f"{asked - prompt} of the answer). Shorten the prompt, or lower max_tokens.",
        code="context_length_exceeded",
        param="max_tokens" if prompt < context else param,
    )


def too_long_text(characters: int, context: int, why: str, param: str) -> ApiError:
    """400 for a text that is too long to be read."""
    return ApiError(
        400,
        f"this model's context length is {context} tokens, and the prompt has {characters:,} characters: {why}. "
        "Shorten the prompt.",
        code="context_length_exceeded",
        param=param,
    )
