"""Detects media in cells by their content: encoded bytes, paths with known endings, arrays with a rate."""

from __future__ import annotations

import mimetypes
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from moextend.data.cells import missing
from moextend.data.modalities import modality_types
from moextend.data.table import Table

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
SOUNDS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
VIDEOS = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v")
_VIDEO_NAMES = ("video", "videos", "clip", "clips", "movie", "video_path")
"""Usual names of a column of videos; GIF files, which are also images, are videos in these only."""
_STILL = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"M4A ", b"M4B ")
"""Brands of files in the container of MP4 that hold no video."""
IMAGES = ("image", "images", "img", "picture", "photo", "image_path", "file_name", "filename")
"""Usual names of a column of images."""
_NAMES = ("audio", "sound", "speech", "clip", "wav", "file", "path")
"""Usual names of a column of sounds; the first one counts if several columns hold sounds."""
_LOOKED_AT = 20
"""Number of rows in which a cell that is not empty is looked for."""


def encoded(value: Any) -> bool:
    """Whether a cell holds an encoded medium, or the first of a list of them."""
    if isinstance(value, list | tuple):
        return bool(value) and encoded(value[0])
    if isinstance(value, Mapping):
        return set(value) == {"bytes", "path"}
    return isinstance(value, bytes)


def is_sound(value: Any) -> bool:
    """Whether a cell holds a sound, its path, or a list of them."""
    if isinstance(value, list | tuple):
        return bool(value) and is_sound(value[0])
    if isinstance(value, Mapping):
        if {"array", "sampling_rate"} <= set(value):
            return True
        return set(value) == {"bytes", "path"} and (is_sound(value["bytes"]) or is_sound(value["path"]))
    if isinstance(value, str):
        return value.lower().endswith(SOUNDS)
    return isinstance(value, bytes) and _starts_like_a_sound(value)


def is_picture(value: Any) -> bool:
    """Whether a cell is an image or the path of one."""
    if isinstance(value, str):
        return value.lower().endswith(PICTURES)
    return encoded(value) and not is_sound(value) and not is_video(value)


def is_video(value: Any) -> bool:
    """Whether a cell holds a video (a GIF does not count), its path, or a list of them."""
    if isinstance(value, list | tuple):
        return bool(value) and is_video(value[0])
    if isinstance(value, Mapping):
        return set(value) == {"bytes", "path"} and (is_video(value["bytes"]) or is_video(value["path"]))
    if isinstance(value, str):
        return value.lower().endswith(VIDEOS)
    return isinstance(value, bytes) and _starts_like_a_video(value)


def _starts_like_a_video(data: bytes) -> bool:
    if data[:4] == b"RIFF":
        return data[8:12] == b"AVI "
    return data[:4] == b"\x1aE\xdf\xa3" or (data[4:8] == b"ftyp" and data[8:12] not in _STILL)


def _is_gif(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_is_gif, value.values()))
    if isinstance(value, str):
        return value.lower().endswith(".gif")
    return isinstance(value, bytes) and value[:4] == b"GIF8"


def _starts_like_a_sound(data: bytes) -> bool:
    if data[:4] == b"RIFF":
        return data[8:12] == b"WAVE"
    mpeg = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and data[1] & 0x06 != 0
    return data[:4] in (b"fLaC", b"OggS") or data[:3] == b"ID3" or mpeg


def sound_column(table: Table, columns: Sequence[str]) -> str | None:
    """The column with sounds; of several the one with a usual name, else none."""
    found = [column for column, value in _first_cells(table, columns).items() if is_sound(value)]
    if len(found) == 1:
        return found[0]
    lower = {column.lower(): column for column in found}
    return next((lower[name] for name in _NAMES if name in lower), None)


def video_column(table: Table, columns: Sequence[str]) -> str | None:
    """The column with videos; of several the one with a usual name, else none."""
    # A row without columns is an error of some tables.
    cells = [table.row(i, columns) for i in range(min(_LOOKED_AT, len(table)))] if columns else []
    found = [
        column
        for column in columns
        if any(
            is_video(row.get(column)) or (column.lower() in _VIDEO_NAMES and _is_gif(row.get(column)))
            for row in cells
        )
    ]
    if len(found) == 1:
        return found[0]
    lower = {column.lower(): column for column in found}
    return next((lower[name] for name in _VIDEO_NAMES if name in lower), None)


def unread_media(table: Table, columns: Sequence[str]) -> dict[str, str]:
    """Column -> the ending of its paths of media files, where no reader takes the ending."""
    known = (*PICTURES, *SOUNDS, *VIDEOS)
    found = {}
    for column, value in _first_cells(table, columns).items():
        kind = mimetypes.guess_type(value)[0] if isinstance(value, str) and len(value) < 1000 else None
        if kind and kind.startswith(("image/", "audio/", "video/")) and not value.lower().endswith(known):
            found[column] = PurePath(value).suffix
    return found


def _first_cells(table: Table, columns: Sequence[str]) -> dict[str, Any]:
    """Column -> its first cell that is not empty."""
    found: dict[str, Any] = {}
    for i in range(min(_LOOKED_AT, len(table))):
        left = [column for column in columns if column not in found]
        if not left:
            break
        found |= {
            name: value
            for name, value in table.row(i, left).items()
            if not missing(value) and value not in ("", [])
        }
    return found


def named(names: Sequence[str], columns: Iterable[str]) -> str | None:
    """Column with the first of the names that the table has; the case is ignored."""
    lower = {column.lower(): column for column in columns}
    return next((lower[name] for name in names if name in lower), None)


def image_column(table: Table, columns: Sequence[str]) -> str | None:
    """The only column with encoded images; None if there are several or none."""
    row = table.row(0, table.columns) if len(table) else {}
    found = [column for column in columns if encoded(row.get(column)) and is_picture(row.get(column))]
    return found[0] if len(found) == 1 else None


def has_pictures(table: Table) -> bool:
    """Whether a cell of the first row is an image or the path of one."""
    return len(table) > 0 and any(map(is_picture, table.row(0, table.columns).values()))


def open_media(given: Mapping[str, str | None], marked: Iterable[str] | None) -> set[str]:
    """Modalities whose columns are guessed."""
    if any(given.get(name) for name in modality_types()):
        return set()
    return set(modality_types() if marked is None else marked) - set(given)


def media_columns(table: Table, free: Sequence[str]) -> dict[str, str | None]:
    """Modality -> the column that holds it by its names or content."""
    found = {"audio": sound_column(table, free), "video": video_column(table, free)}
    rest = [column for column in free if column not in found.values()]
    return {**found, "image": image_column(table, rest) or named(IMAGES, rest)}


def left_out(
    found: Mapping[str, str | None], media: Collection[str], encoders: Collection[str] | None
) -> tuple[list[str], list[str]]:
    """Modalities of guessed columns that the model does not read, if it reads others; and a note on each."""
    types = modality_types()
    guessed = [name for name in found if found[name] and name in media]
    read = [name for name in guessed if encoders is None or (types[name].becomes or name) in encoders]
    left = [name for name in guessed if read and name not in read]
    return left, [
        f"column '{found[name]}' with {types[name].plural} is left out: the base has no encoder for them"
        for name in left
    ]
