"""Requests of OpenAI's protocol, as bodies and as prompts of the model, and their errors.

Unknown keys are refused, not ignored; null is the default.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, cast

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from moextend.data.images import ImageRef
from moextend.data.sounds import AudioRef
from moextend.errors import InputError, MoextendError, UnknownName, visible
from moextend.model.batches import piece_ids
from moextend.model.generation import Prompt, message_ids
from moextend.model.messages import BETWEEN, Message, Part, media_of, no_encoder
from moextend.model.multimodal import MultimodalLM
from moextend.util import files

KINDS = {401: "authentication_error", 429: "rate_limit_error"}
"""Types of errors by status, where they are neither of the request nor of the server."""
PIXELS = 32_000_000
"""Most pixels of an image."""
Name = Annotated[str, Field(min_length=1, max_length=1000)]


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
        self.status, self.headers = status, headers
        kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
        texts = {"message": message, "type": kind, "param": param, "code": code}
        # Without control characters, and without lone surrogates, which no encoding has.
        shown = {key: text and visible(text).encode(errors="backslashreplace") for key, text in texts.items()}
        self.body = {"error": {key: text and text.decode() for key, text in shown.items()}}

    def answer(self) -> JSONResponse:
        """The answer with the error."""
        return JSONResponse(self.body, self.status, headers=self.headers)


def error_of(error: Exception) -> ApiError:
    """An error of the library as one of a request: wrong input is 400, all others are 500."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InputError):
        return ApiError(400, str(error), code="invalid_input")
    known = isinstance(error, MoextendError)
    what = str(error) if known else f"the model failed ({type(error).__name__})."
    return ApiError(500, what, code="failed")


def no_model(name: str, known: Iterable[str]) -> ApiError:
    """404 for a model that is not served."""
    return ApiError(404, str(UnknownName("model", name, known)), code="model_not_found", param="model")


class Body(BaseModel):
    """A JSON object of exact types, without unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, value: Any) -> Any:
        given = isinstance(value, dict)
        return {key: each for key, each in value.items() if each is not None} if given else value


class Asked(Body):
    """What requests of completions and of chats have in common."""

    model: Name
    """base, an extension, several joined by +, or auto."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] = ""
    stream: bool = False
    stream_options: dict[Literal["include_usage"], bool] = {}
    """include_usage: a last chunk has the number of tokens."""
    n: Literal[1] = 1
    user: str = ""
    """No effect."""

    @property
    def stops(self) -> list[str]:
        """Texts that end an answer."""
        return [text for text in ([self.stop] if isinstance(self.stop, str) else self.stop) if text]


class Completion(Asked):
    """Body of POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: Annotated[int, Field(ge=0)] = 16
    """0: only the prompt is scored."""
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, as texts or ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        found = cast("list[Any]", self.prompt)
        return [found] if found and isinstance(found[0], int) else found


class Said(Body):
    """A message of a chat: a text, or parts, which `of_chat` reads."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]


class ChatCompletion(Asked):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[Said], Field(min_length=1, max_length=10_000)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The newer name. Default: the rest of the context, up to a limit of the server."""


class NewExtension(Body):
    """Body of POST /v1/extensions."""

    path: Name
    """Folder of an extension on the server's machine."""
    name: Name | None = None
    """What clients call it: an extension of this name is replaced. Default: its own name."""
    strength: Annotated[float, Field(ge=0, le=1)] | None = None
    """0: the base; 1: the extension as it was made. Default: that of the extension that it replaces, or 1."""


def of_chat(model: MultimodalLM, messages: Sequence[Said]) -> tuple[Prompt, list[int]]:
    """Prompt of a chat, for the inference of extensions, and its ids.

    Raises ApiError or InputError if the model cannot take it.
    """
    read = [_read(message, f"messages[{place}]") for place, message in enumerate(messages)]
    media = media_of(read)
    for medium in media:
        if medium.modality not in model.modalities:  # no word on what only the server's owner can do
            raise _refused(f"messages: {no_encoder(medium).what}")
    roles = [one.role for one in read if one.role != "system"]
    if "assistant" in (*roles[:1], read[-1].role):
        raise _refused("the first or last message is from the assistant; answers are not continued.")
    first = next((i for i in range(len(read), 0, -1) if read[i - 1].role == "assistant"), 0)
    text = BETWEEN.join(one.text for one in read[first:] if one.role == "user")
    system = BETWEEN.join(one.text for one in read if one.role == "system")
    ids = message_ids(model, read)[0]
    if not ids:
        raise _refused("the messages have no token.")
    return Prompt(text, tuple(media), system=system), ids


def of_completion(model: MultimodalLM, asked: str | list[int]) -> tuple[Prompt, list[int]]:
    """Prompt of a completion, for the inference of extensions, and its ids."""
    if isinstance(asked, str):
        prompt, ids = Prompt(asked), list(piece_ids(model.tokenizer, asked, True))
    else:
        vocabulary = int(model.lm.get_input_embeddings().weight.shape[0])
        wrong = next((token for token in asked if not 0 <= token < vocabulary), None)
        if wrong is not None:
            raise _refused(f"{wrong} is not a token; tokens are 0 to {vocabulary - 1}.", "prompt")
        prompt, ids = Prompt(model.tokenizer.decode(asked, skip_special_tokens=True)), asked
    if not ids:
        raise _refused("a prompt has no token.", "prompt")
    return prompt, ids


def _read(said: Said, where: str) -> Message:
    """A message with its media in place."""
    parts: list[Part] = []
    for place, part in enumerate([said.content] if isinstance(said.content, str) else said.content):
        here = f"{where}.content[{place}]"
        own: Part
        match part:
            case str(text) | {"type": "text", "text": str(text)}:
                files.refuse_surrogates(text, where=here)
                own = text
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                own = _image(url, here)
            case {"type": "input_audio", "input_audio": {"data": str(data)}}:
                own = AudioRef(data=_decoded(data, here), where=here)
                assert own.header  # raises InputError if it cannot be read
            case _:
                raise _refused(f"{here} is none of text, image_url and input_audio.")
        if not isinstance(own, str) and said.role != "user":
            raise _refused(f"{where} has media, but its role is '{said.role}'.")
        if own != "":
            parts += [" ", own] if parts and not (_spaced(parts[-1], -1) or _spaced(own, 0)) else [own]
    return Message("system" if said.role == "developer" else said.role, tuple(parts))


def _spaced(part: Part, place: int) -> bool:
    """Whether a part has white space at its start (0) or end (-1)."""
    return isinstance(part, str) and part[place].isspace()


def _image(url: str, where: str) -> ImageRef:
    head, base, data = url.partition(";base64,")
    if not (base and head.startswith("data:")):
        raise _refused(f"{where}: this server downloads nothing. Give the image as data:image/png;base64,...")
    image = ImageRef(data=_decoded(data, where), where=where)
    width, height = image.size()
    if width * height > PIXELS:
        raise _refused(f"{where}: the image has {width:,} x {height:,} pixels, more than {PIXELS:,}.")
    return image


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise _refused(f"{where}: the data are not valid base64.") from error


def _refused(message: str, param: str = "messages") -> ApiError:
    return ApiError(400, message, code="invalid_input", param=param)
