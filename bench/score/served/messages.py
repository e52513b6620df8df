"""Prompts with media as messages of /chat/completions."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from moextend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moextend.data.media import MediaRef
    from moextend.model.generation import Prompt
    from moextend.model.messages import Part

Message = dict[str, Any]
_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}
"""First bytes of an image -> its type, of those that every server reads."""


def messages(prompt: Prompt) -> list[Message]:
    """The messages of a prompt; each medium is a part at the place of its mark.

    Raises:
        InputError: the protocol has no part for a modality.
    """
    return [{"role": one.role, "content": _content(one.parts)} for one in prompt.messages()]


def _content(parts: Sequence[Part]) -> str | list[Message]:
    if all(isinstance(part, str) for part in parts):
        return "".join(map(str, parts))
    texts = ({"type": "text", "text": part} if isinstance(part, str) else part_of(part) for part in parts)
    return [part for part in texts if part != {"type": "text", "text": ""}]


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
