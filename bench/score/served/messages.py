"""Prompts with media as messages of /chat/completions."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from moextend.data.marks import split_at_marks
from moextend.errors import InputError

if TYPE_CHECKING:
    from moextend.data.media import MediaRef
    from moextend.model.generation import Prompt

Message = dict[str, Any]
_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}
"""First bytes of an image -> its type, of those that every server reads."""


def messages(prompt: Prompt) -> list[Message]:
    """The turns of a prompt as messages; each medium is a part at the place of its mark.

    Raises:
        InputError: the protocol has no part for a modality.
    """
    media = iter(prompt.media)
    found: list[Message] = []
    for question, answer in prompt.before:
        found += [_user(question, media), {"role": "assistant", "content": answer}]
    return [*found, _user(prompt.text, media)]


def _user(text: str, media: Any) -> Message:
    pieces = split_at_marks(text)
    if len(pieces) == 1:
        return {"role": "user", "content": text}
    parts: list[Message] = []
    for place, piece in enumerate(pieces):
        if place:
            parts.append(part_of(next(media)))
        if piece:
            parts.append({"type": "text", "text": piece})
    return {"role": "user", "content": parts}


def part_of(medium: MediaRef) -> Message:
    """A medium as a part of a message: the bytes of its file.

    Raises:
        InputError: the protocol has no part for its modality.
    """
    if medium.modality not in ("image", "audio"):
        raise InputError(
            f"the OpenAI protocol has no part for {medium.noun.removeprefix('the ')}.",
            where=medium.place,
            hint="Score such tasks in process: set 'tasks: text' under scoring.",
        )
    data = medium.read()
    if medium.modality == "image":
        kind = next((kind for start, kind in _KINDS.items() if data.startswith(start)), None)
        if kind is None:  # another format, or a frame of a video
            kind, data = "png", _png(medium.open())
    coded = base64.b64encode(data).decode("ascii")
    if medium.modality == "image":
        return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{coded}"}}
    kind = "wav" if data.startswith(b"RIFF") else "flac" if data.startswith(b"fLaC") else "mp3"
    return {"type": "input_audio", "input_audio": {"data": coded, "format": kind}}


def _png(image: Any) -> bytes:
    with io.BytesIO() as file:
        image.save(file, format="PNG")
        return file.getvalue()
