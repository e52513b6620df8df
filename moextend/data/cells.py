"""Converts cells of the data to media, answers, choices and text."""

from __future__ import annotations

import ast
import base64
import binascii
import json
import os
import re
import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from moextend.data.media import MediaRef
from moextend.errors import InputError, short, type_name

AnswerForm = Literal["text", "letter", "position", "box"]
"""Form of an answer in a cell. text: the answer itself. letter: the letter of the right choice. position: the index of
the right choice, from 0, as a number or as text. box: left, top, width, height in pixels of the image."""
_ENCODED = {
    "image": ("/9j/", "iVBOR", "R0lGOD", "UklGR", "Qk0", "SUkq", "TU0A"),
    "audio": ("UklGR", "ZkxhQ", "T2dnU", "SUQz"),
}
"""Modality -> first characters in base64 of a JPEG, PNG, GIF, WebP, BMP or TIFF; of a WAV, FLAC, OGG or tagged MP3."""


def missing(value: Any) -> bool:
    """Whether a cell is empty: null, or NaN, which some tables write for null."""
    return value is None or (isinstance(value, float) and value != value)


def text(value: Any) -> str:
    """A cell as text; a list is joined by commas, an empty cell is ""."""
    if isinstance(value, str):  # first, as most cells are texts
        return str(value)
    if missing(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(text(part) for part in value)
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def media(kind: type[MediaRef], value: Any, *, where: str, folders: tuple[Path, ...]) -> tuple[MediaRef, ...]:
    """Media of a cell, which are not read yet.

    A cell holds encoded bytes, a path (relative to the first of `folders` that has the file), base64, the bytes and
    path of a `datasets.Image` or `datasets.Audio`, an array with its `sampling_rate`, or a list of these.
    """
    if isinstance(value, list | tuple):
        return tuple(ref for part in value for ref in media(kind, part, where=where, folders=folders))
    if isinstance(value, Mapping):
        if value.get("bytes") is None and value.get("array") is not None:
            if not hasattr(kind, "of") or "sampling_rate" not in value:
                hint = 'A sound is {"array": [...], "sampling_rate": 16000}; other media are encoded bytes or paths.'
                raise InputError(f"holds an array, not {kind.one()}.", where=where, hint=hint)
            return (kind.of(value["array"], value["sampling_rate"], where),)
        data = value.get("bytes")
        return media(kind, data if data is not None else value.get("path"), where=where, folders=folders)
    if missing(value) or value == "":
        return (kind(where=where),)
    if isinstance(value, bytes):
        return (kind(data=value, where=where),)
    if not isinstance(value, str):
        raise InputError(
            f"holds {type_name(value)}, not {kind.one()}.",
            where=where,
            hint="Write a path, encoded bytes or base64.",
        )
    if value.startswith("data:") or (
        len(value) > 64 and value.startswith(_ENCODED.get(kind.modality, ("data:",)))
    ):
        return (kind(data=_decoded(kind, value, where), where=where),)
    if value.startswith(("http://", "https://")):
        raise InputError(
            f"{kind.noun} is a web address ({value}).",
            where=where,
            hint=f"Download {kind.noun} and name its file.",
        )
    return (kind(path=_found(value, folders), where=where, folders=folders or hub_caches()),)


def hub_caches() -> tuple[Path, ...]:
    """Cache folders of the hub's libraries. Paths of media of a hub data set must lie there."""
    import datasets
    from huggingface_hub import constants

    return (Path(constants.HF_HUB_CACHE), Path(datasets.config.HF_DATASETS_CACHE))


def _decoded(kind: type[MediaRef], value: str, where: str) -> bytes:
    try:
        return base64.b64decode(value.partition("base64,")[2] or value, validate=False)
    except binascii.Error as error:
        raise InputError(
            f"{kind.noun} is not valid base64 ({error}).",
            where=where,
            hint="Encode it again, or remove the row.",
        ) from error


def _found(value: str, folders: tuple[Path, ...]) -> Path:
    candidates = [folder / value for folder in folders] or [Path(value)]
    # os.path.exists is False for a text that is too long for a path; Path.exists raises.
    return next((place for place in candidates if os.path.exists(place)), candidates[0])  # noqa: PTH110


def choices(value: Any, *, where: str) -> tuple[str, ...] | None:
    """Choices of a cell; None if it has none.

    A cell holds a list of strings, or choices by letter ({"A": "red", "B": "blue"}) or position, or one of these as
    text.
    """
    written = value
    if isinstance(value, str):
        if not value.strip():
            return None
        value = _literal(value)
    if isinstance(value, Mapping):
        named = next((name for name in ("text", "choices") if name in value), None)
        value = value[named] if named else _by_key(value, where)
    if missing(value):
        return None
    if isinstance(value, str | bytes | Mapping | set) or not isinstance(value, Collection):
        shown = short(str(written), 40)
        raise InputError(f"{shown!r} is not a list of choices.", where=where, hint='Write ["one", "two"].')
    return tuple(text(choice) for choice in value) or None


def _literal(written: str) -> Any:
    """Value of a text that is a literal of Python, and that JSON can hold; else the text."""
    try:
        value = ast.literal_eval(written)
        json.dumps(value, ensure_ascii=False, default=str).encode()  # not 100,000 digits, no lone surrogate
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # the last two: it is too deep
        return written
    return value


def listed(value: Any) -> Any:
    """Strings of a list that is written as text ("['24/7', '3.429']": several golds in MMMU); else the value."""
    if isinstance(value, str) and value.strip().startswith("["):
        parts = _literal(value.strip())
        if parts and isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            return parts
    return value


def placed(values: Iterable[Any]) -> tuple[str, ...] | None:
    """Choices at their positions, which determine their letters: an empty choice before others stays, as "".

    None if all are empty.
    """
    texts = [text(value) for value in values]
    while texts and not texts[-1]:
        texts.pop()
    return tuple(texts) or None


def _by_key(value: Mapping[Any, Any], where: str) -> tuple[str, ...] | None:
    """Choices of {"A": ..., "B": ...} or {"0": ..., "1": ...}, in the order of the keys."""
    if not value:
        return None
    keys = {str(key).strip().upper(): key for key in value}
    for names in (string.ascii_uppercase[: len(keys)], list(map(str, range(len(keys))))):
        if set(keys) == set(names) and len(keys) == len(value):
            return placed(value[keys[name]] for name in names)
    raise InputError(
        f"has choices by the keys {', '.join(map(str, value))}, which are neither letters nor positions.",
        where=where,
        hint='Write a list, or {"A": "one", "B": "two"}.',
    )


def answers(
    value: Any, options: tuple[str, ...] | None, *, where: str, form: AnswerForm | None = None
) -> tuple[tuple[str, ...], int | None]:
    """Gold answers of a cell: one, or one per annotator; and the position of the choice that the first one gives.

    An answer that names a choice becomes the choice's text. With choices, a number is a position from 0, also as text,
    unless the text is one of the choices. The position is None unless an earlier choice has the same text, so that the
    text alone is ambiguous.
    """
    named = [_named(part, options or (), where, form) for part in golds(value)]
    found = tuple(written if place is None else (options or ())[place] for written, place in named)
    if not any(answer.strip() for answer in found):
        raise InputError("has no answer.", where=where, hint="Add the answer or remove the row.")
    first, texts = named[0][1], [option.strip() for option in options or ()]
    return found, first if first is not None and texts.index(texts[first]) != first else None


def golds(value: Any) -> list[Any]:
    """Gold answers of a cell as they are: a list, one answer, or {"text": one or a list} (SQuAD)."""
    if isinstance(value, Mapping):
        value = value.get("answer", value.get("text"))
    return list(value) if isinstance(value, list | tuple) else [value]


def right_choice(
    answers: Sequence[str], options: Sequence[str] | None, position: int | None = None
) -> int | None:
    """Index of the right choice: `position`, else the choice with the answer's text, else with its letter."""
    if position is not None:
        return position
    texts, answer = [option.strip() for option in options or ()], answers[0].strip()
    if answer in texts:
        return texts.index(answer)
    at = string.ascii_uppercase.find(answer) if len(answer) == 1 else -1
    return at if 0 <= at < (len(texts) or 26) else None


def _named(
    value: Any, options: tuple[str, ...], where: str, form: AnswerForm | None
) -> tuple[str, int | None]:
    """A gold as text, and the position of the choice that it gives by letter or position."""
    if isinstance(value, Mapping):
        value = value.get("answer", value.get("text"))
    written = text(value)
    bare = written.strip()
    if not options or form == "text" or not bare:
        return written, None
    if form == "letter":
        place = string.ascii_uppercase.find(bare.upper()) if len(bare) == 1 else -1
    elif isinstance(value, int) and not isinstance(value, bool):
        place = value
    elif re.fullmatch(r"\d{1,9}", bare) and (form == "position" or bare not in options):
        place = int(bare)
        if form is None and place >= len(options):
            return written, None
    elif form is None:
        return written, None
    else:
        place = -1
    if not 0 <= place < len(options):
        last = string.ascii_uppercase[len(options) - 1]
        lettered = f"not the letter of one of {len(options)} choices", f"Letters are A to {last}."
        counted = f"no position among {len(options)} choices", "Positions count from 0."
        what, hint = lettered if form == "letter" else counted
        raise InputError(f"answer {written} is {what}.", where=where, hint=hint)
    return written, place


def box(value: Any, size: tuple[int, int], *, where: str) -> str:
    """Corners of a box as "[left, top, right, bottom]", in fractions of the image.

    The cell holds [left, top, width, height] in pixels of an image of `size` (width, height).
    """
    try:
        left, top, width, height = (float(part) for part in value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{text(value)[:40]!r} is not a box.", where=where, hint="Write [left, top, width, height]."
        ) from error
    across, down = size
    corners = (left / across, top / down, (left + width) / across, (top + height) / down)
    return f"[{', '.join(f'{corner:.3f}' for corner in corners)}]"
