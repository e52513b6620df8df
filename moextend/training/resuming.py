"""Records the arguments of a call, so that an interrupted call is not continued with other ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xxhash import xxh3_128

from moextend.data.conversations import Conversation
from moextend.errors import InputError
from moextend.training.loop import draw_order
from moextend.training.settings import Settings
from moextend.util import files
from moextend.util.processes import first_writes

BEGUN = "begun.json"
"""File with the arguments of an unfinished call."""

PROBE = "probe.json"
"""File with the result of the probe of an unfinished call."""

Facts = Mapping[str, Any]
"""Argument -> its value as JSON, or its digest."""


def go_on(folder: Path, facts: Facts) -> None:
    """Writes the arguments of a new call to `folder`.

    Raises:
        InputError: there is a checkpoint, or the result of a probe, of a call with other arguments; the message names
            them.
    """
    path = folder / BEGUN
    known = files.read_json(path) if is_begun(folder) and path.is_file() else facts
    if differing := _differing(known, facts):
        raise InputError(
            f"was started with other arguments or another model: {', '.join(differing)}.",
            where=str(folder),
            hint="Repeat the original call, name a new folder, or remove this one.",
        )
    with first_writes() as first:
        if first:
            files.write_json(path, facts)


def is_begun(folder: Path) -> bool:
    """Whether an interrupted call has left something that is continued: a checkpoint, or the result of a probe."""
    return any(folder.glob("*-in-flight/checkpoint-*")) or (folder / PROBE).is_file()


def done(folder: Path) -> None:
    """Removes the arguments from `folder`."""
    files.remove(folder / BEGUN)


def _differing(known: Mapping[str, Any], facts: Facts) -> list[str]:
    """Names of the arguments that differ; for settings and recipes each field."""
    found = []
    for name in sorted({*known, *facts}):
        old, new = known.get(name), facts.get(name)
        if isinstance(old, dict) and isinstance(new, Mapping):
            found += [f"{name}.{field}" for field in _differing(old, new)]
        elif old != new:
            found.append(name)
    return found


def learned_name(data: Sequence[Conversation], settings: Settings, *, at_least: int = 0) -> str:
    """Digest of the part of `data` that a training with these settings, or with `at_least` steps, reads.

    Other conversations are not read.
    """
    each = settings.batch_size * settings.gradient_accumulation
    order = draw_order(len(data), max(settings.steps, at_least) * each, settings.seed)
    return name_data(data, sorted(set(order)))


def name_data(data: Sequence[Conversation], places: Iterable[int] | None = None) -> str:
    """32 hex digits over the content of conversations (those at `places`, or all), read one by one.

    Media are hashed by their bytes: a copy of a file may have its size and modification time.
    """
    hasher = xxh3_128(str(len(data)).encode())
    for place in range(len(data)) if places is None else places:
        row = data[place]
        texts = [text for turn in row.turns for text in turn] + [row.system] * bool(row.system)
        hasher.update(f"\n{place} {row.closed} {len(row.media)} {[len(text) for text in texts]}".encode())
        hasher.update("".join(texts).encode("utf-8", "surrogatepass"))
        for medium in row.media:
            try:
                content = medium.read()
            except InputError:  # whoever opens the medium says what is wrong
                content = b"missing"
            hasher.update(f"\n{len(content)} ".encode())
            hasher.update(content)
    return hasher.hexdigest()
