"""Bodies of requests as prompts of the model."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from moextend.data.images import ImageRef
from moextend.data.sounds import AudioRef
from moextend.errors import InputError
from moextend.model.batches import piece_ids
from moextend.model.generation import Prompt, message_ids
from moextend.model.messages import BETWEEN, Message, Part, Role, media_of, no_encoder
from moextend.model.multimodal import MultimodalLM
from moextend.serving import protocol
from moextend.serving.errors import ApiError
from moextend.serving.protocol import ImagePart, SoundPart

DATA_URL = re.compile(r"data:[\w.+/-]*(?:;[\w.+=-]+)*;base64,", re.IGNORECASE)
PIXELS = 32_000_000
"""Most pixels of an image."""


def of_chat(model: MultimodalLM, messages: Sequence[protocol.Message]) -> tuple[Prompt, list[int]]:
    """Prompt of a chat, for the inference of extensions, and its ids.

    Raises ApiError or InputError if the model cannot take it.
    """
    read = [_read(message, f"messages[{place}]") for place, message in enumerate(messages)]
    media = media_of(read)
    for medium in media:
        if medium.modality not in model.modalities:
            error = no_encoder(medium, where="messages")
            raise _refused(f"{error.where}: {error.what}")
    roles = [one.role for one in read if one.role != "system"]
    if roles[:1] == ["assistant"]:
        raise _refused("the first message is from the assistant.")
    if read[-1].role == "assistant":
        raise _refused("the last message is from the assistant; this server does not continue answers.")
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


def _read(message: protocol.Message, where: str) -> Message:
    """A message with its media in place."""
    parts: list[Part] = []
    content = message.content
    for place, part in enumerate([content] if isinstance(content, str) else content):
        here = f"{where}.content[{place}]"
        own: Part
        if isinstance(part, ImagePart):
            own = _image(part, here)
        elif isinstance(part, SoundPart):
            own = AudioRef(data=_decoded(part.input_audio.data, here), where=here)
            assert own.header  # raises InputError if it cannot be read
        else:
            own = part if isinstance(part, str) else part.text
        if not isinstance(own, str) and message.role != "user":
            raise _refused(f"{where} has media, but its role is '{message.role}'.")
        if own != "":
            parts += [" ", own] if parts and not (_spaced(parts[-1], -1) or _spaced(own, 0)) else [own]
    role: Role = "system" if message.role == "developer" else message.role
    return Message(role, tuple(parts))


def _spaced(part: Part, place: int) -> bool:
    """Whether a part has white space at its start (0) or end (-1)."""
    return isinstance(part, str) and part[place].isspace()


def _image(part: ImagePart, where: str) -> ImageRef:
    url = part.image_url.url
    head = DATA_URL.match(url[:200])
    if head is None:
        raise _refused(f"{where}: this server downloads nothing. Give the image as data:image/png;base64,...")
    image = ImageRef(data=_decoded(url[head.end() :], where), where=where)
    width, height = image.size()
    if width * height > PIXELS:
        raise InputError(
            f"the image has {width:,} x {height:,} pixels, more than {PIXELS:,}.",
            where=where,
            hint="Send a smaller image.",
        )
    return image


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(f"{where}: the data are not valid base64.") from error


def _refused(message: str, param: str = "messages") -> ApiError:
    return ApiError(400, message, code="invalid_input", param=param)
