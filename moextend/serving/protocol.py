"""Requests of OpenAI's protocol. Unknown keys are refused, not ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MOST_PROMPTS = 2048
"""Prompts of one request."""
MOST_TOP = 20
"""Most likely tokens that are named at a position."""
MOST_STOPS = 16


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("has a lone surrogate, which is not a character") from error
    return text


Text = Annotated[str, AfterValidator(_encodable)]
Name = Annotated[Text, Field(min_length=1, max_length=1000)]


class Body(BaseModel):
    """A JSON object of exact types, without unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool | None = None
    """Whether a last chunk has the number of tokens."""


class Asked(Body):
    """What requests of completions and of chats have in common."""

    model: Name
    """base, an extension, several joined by +, or auto."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 is greedy. Default: 0."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: Text | Annotated[list[Text], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    user: Text | None = None
    """No effect."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in found if text)


class Completion(Asked):
    """Body of POST /v1/completions."""

    prompt: Text | list[Text] | list[int] | list[list[int]]
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    """Default: 16."""
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, as texts or ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        found = cast("list[Any]", self.prompt)
        return [found] if found and isinstance(found[0], int) else found


class ImageUrl(Body):
    """Place of an image: a data URL."""

    url: Text
    detail: Text | None = None
    """No effect."""


class Sound(Body):
    """A sound in base64."""

    data: Text
    format: Text | None = None
    """No effect: the content decides."""


class TextPart(Body):
    """A text in a message."""

    type: Literal["text"]
    text: Text


class ImagePart(Body):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class SoundPart(Body):
    """A sound in a message."""

    type: Literal["input_audio"]
    input_audio: Sound


Part = Annotated[TextPart | ImagePart | SoundPart, Field(discriminator="type")]


class Message(Body):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part]


class ChatCompletion(Asked):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """Default: the rest of the context, up to a limit of the server."""


class NewExtension(Body):
    """Body of POST /v1/extensions."""

    path: Name
    """Folder of an extension on the server's machine."""
    name: Name | None = None
    """What clients call it: an extension of this name is replaced. Default: its own name."""
    strength: Annotated[float, Field(ge=0, le=1)] | None = None
    """0: the base; 1: the extension as it was made. Default: that of the extension that it replaces, or 1."""
