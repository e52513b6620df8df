"""Bodies of requests as prompts of the model."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from moextend.data.audio import AudioRef
from moextend.data.images import ImageRef
from moextend.data.marks import marks_in
from moextend.data.media import MediaRef
from moextend.errors import InputError
from moextend.model.batches import piece_ids
from moextend.model.generation import Prompt, prompt_ids
from moextend.model.marks import check_marks, no_encoder
from moextend.model.multimodal import MultimodalLM
from moextend.serving import errors
from moextend.serving.errors import ApiError
from moextend.serving.protocol import ImagePart, Message, SoundPart, TextPart
from moextend.serving.reading import Bound

DATA_URL = re.compile(r"data:[\w.+/-]*(?:;[\w.+=-]+)*;base64,", re.IGNORECASE)
PIXELS = 32_000_000
"""Most pixels of an image."""
SYSTEM = ("system", "developer")


def of_chat(model: MultimodalLM, messages: Sequence[Message], bound: Bound) -> tuple[Prompt, list[int]]:
    """Prompt of a chat, and its ids. Raises ApiError or InputError if the model cannot take it."""
    bound.check([text for message in messages for text in _texts(message)], "messages")
    texts: list[tuple[str, str]] = []
    media: list[MediaRef] = []
    for place, message in enumerate(messages):
        text, own = _read(message, f"messages[{place}]")
        if own and message.role != "user":
            raise _refused(f"messages[{place}] has media, but its role is '{message.role}'.")
        media += own
        texts.append(("user" if message.role in SYSTEM else message.role, text))
    turns = _turns(texts)
    prompt = Prompt(turns[-1][0], tuple(media), tuple(turns[:-1]))
    check_marks(prompt.asked, prompt.media, where="messages")
    for medium in prompt.media:
        if medium.modality not in model.modalities:
            error = no_encoder(medium, where="messages")
            raise _refused(f"{error.where}: {error.what}")
    return prompt, prompt_ids(model, prompt)


def of_completion(
    model: MultimodalLM, asked: str | list[int], vocabulary: int, bound: Bound
) -> tuple[Prompt, list[int]]:
    """Prompt of a completion, for the inference of extensions, and its ids."""
    if isinstance(asked, str):
        bound.check([asked], "prompt")
        if marks_in(asked):
            raise _refused("a prompt of /v1/completions has no media; use /v1/chat/completions.", "prompt")
        prompt, ids = Prompt(asked), list(piece_ids(model.tokenizer, asked, True))
    else:
        if model.context is not None and len(asked) > model.context:
            raise errors.too_long(len(asked), len(asked), model.context, "prompt")
        wrong = next((token for token in asked if not 0 <= token < vocabulary), None)
        if wrong is not None:
            raise _refused(f"{wrong} is not a token; tokens are 0 to {vocabulary - 1}.", "prompt")
        prompt, ids = Prompt(model.tokenizer.decode(asked, skip_special_tokens=True)), asked
    if not ids:
        raise _refused("a prompt has no token.", "prompt")
    return prompt, ids


def _turns(texts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """(question, answer) of each turn, the last answer empty; texts of one role that follow each other are joined."""
    roles = groupby(texts, itemgetter(0))
    joined = [(role, "\n".join(text for _, text in own)) for role, own in roles]
    if joined[0][0] == "assistant":
        raise _refused("the first message is from the assistant.")
    if joined[-1][0] == "assistant":
        raise _refused("the last message is from the assistant; this server does not continue answers.")
    answers = [text for role, text in joined if role == "assistant"]
    return list(zip([text for role, text in joined if role == "user"], [*answers, ""], strict=True))


def _read(message: Message, where: str) -> tuple[str, list[MediaRef]]:
    """Text of a message with a mark for each medium, and its media."""
    if isinstance(message.content, str):
        return message.content, []
    pieces, media = list[str](), list[MediaRef]()
    for place, part in enumerate(message.content):
        here = f"{where}.content[{place}]"
        if isinstance(part, ImagePart):
            media.append(_image(part, here))
            pieces.append("<image>")
        elif isinstance(part, SoundPart):
            sound = AudioRef(data=_decoded(part.input_audio.data, here), where=here)
            assert sound.header  # raises InputError if it cannot be read
            media.append(sound)
            pieces.append("<audio>")
        else:
            if marks_in(part.text):
                raise _refused(f"{here} contains the mark of a medium as text.")
            pieces.append(part.text)
    return _spaced(pieces), media


def _texts(message: Message) -> list[str]:
    if isinstance(message.content, str):
        return [message.content]
    return [part.text for part in message.content if isinstance(part, TextPart)]


def _spaced(pieces: Sequence[str]) -> str:
    """The pieces, with a space between them where there is none."""
    found: list[str] = []
    for piece in filter(None, pieces):
        if found and not found[-1][-1].isspace() and not piece[0].isspace():
            found.append(" ")
        found.append(piece)
    return "".join(found)


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
