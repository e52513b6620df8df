"""The media of a sequence in the words of notes: "images", or "images or sounds"."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from moextend.bench.report.collect import Result
from moextend.data.modalities import modality_types
from moextend.errors import InputError

UNTOUCHED = "†"


@dataclass(frozen=True)
class Media:
    """The media that the learned tasks of a sequence show, as nouns: ("image", "images"), ("sound", "sounds")."""

    nouns: tuple[tuple[str, str], ...] = (("image", "images"),)

    @property
    def plural(self) -> str:
        """ "images or sounds"."""
        return " or ".join(many for _, many in self.nouns)

    @property
    def one(self) -> str:
        """ "an image or a sound"."""
        return " or ".join(f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}" for noun, _ in self.nouns)

    @property
    def the(self) -> str:
        """ "the image or the sound"."""
        return " or ".join(f"the {noun}" for noun, _ in self.nouns)

    @property
    def by_construction(self) -> str:
        """The note of the mark †."""
        return (
            f"{UNTOUCHED}: by construction, not by learning. These text tasks have no {self.plural}, and what is "
            f"learned from {self.plural} takes no input without one, so the base answers. It says nothing about text "
            "that looks like a learned task."
        )


def media_of(results: Sequence[Result]) -> Media:
    """The media of the learned tasks of these runs, which have the same tasks."""
    types = modality_types()
    names: dict[str, None] = {}
    for task in results[0].tasks if results else []:
        with suppress(InputError):  # an edited config.json
            names |= dict.fromkeys(results[0].config.task_spec(task).modalities)
    nouns = [
        (known.noun, known.plural) if (known := types.get(name)) else (name, f"{name}s") for name in names
    ]
    return Media(tuple(nouns)) if nouns else Media()
