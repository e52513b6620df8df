"""What a task's items show: small images, as far as they can be opened without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from moextend.bench.data import Item, open_items
from moextend.bench.data.source import find_source
from moextend.bench.report.page.lifelines import Asked
from moextend.errors import visible

if TYPE_CHECKING:
    from moextend.bench.task import TaskSpec

SIDE = 160
"""Pixels of the longer side; a smaller image stays as it is."""
KEPT = 4096
"""Bytes below which a small image is taken as it is."""
RATE = 16_000
"""Samples per second of a sound."""
SECONDS = 20
"""Longest sound; the rest is cut off."""
SIGNS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}
"""First bytes of an encoded image -> its format."""


@dataclass
class Budget:
    """Bytes that media may still take."""

    left: float = 3e6


@dataclass(frozen=True)
class Medium:
    """What an item shows or plays."""

    kind: Literal["image", "audio"]
    form: str
    """The format, as the media type has it: png, webp, wav."""
    data: bytes
    """The encoded file."""

    @property
    def url(self) -> str:
        """A URL that holds it."""
        return f"data:{self.kind}/{self.form};base64,{base64.b64encode(self.data).decode()}"


@dataclass
class Thumbnails:
    """The media of one task's items."""

    at: list[list[int]]
    """Item -> places in `media`, in the order of its prompt."""
    media: list[Medium] = field(default_factory=list)
    lacks: str = ""
    """Why some are missing."""


def thumbnails(
    task: TaskSpec, workspace: Path, ids: Sequence[str], asked: Sequence[Asked], budget: Budget
) -> Thumbnails:
    """The images and sounds of items whose questions are still those that were answered."""
    found = Thumbnails([[] for _ in ids])
    if not set(task.modalities) & SMALL.keys():
        return found
    places = {name: place for place, name in enumerate(ids)}
    known: dict[str, int] = {}
    try:
        for item in _items(task, workspace):
            place = places.get(item.id)
            if place is None or item.question != asked[place].question:
                continue
            for ref in item.media:
                if ref.modality not in SMALL:
                    continue
                if ref.digest not in known:
                    made = SMALL[ref.modality](ref)
                    budget.left -= 4 * len(made.data) / 3
                    if budget.left < 0:
                        found.lacks = (
                            "One file cannot hold all images or sounds (a folder has all: -f html -o DIR)."
                        )
                        return found
                    known[ref.digest] = len(found.media)
                    found.media.append(made)
                found.at[place].append(known[ref.digest])
    except Exception as error:  # a page without images is better than none, whatever is wrong with the data
        found.lacks = f"The media cannot be opened: {visible(str(error))}"
    return found


def small_image(image: Any) -> Medium:
    """An image of at most SIDE pixels."""
    data = image.read()
    sign = next((form for start, form in SIGNS.items() if data.startswith(start)), None)
    if sign and len(data) <= KEPT and max(image.size()) <= SIDE:
        return Medium("image", sign, data)
    made, out = image.open(), io.BytesIO()
    made.thumbnail((SIDE, SIDE))
    made.save(out, "WEBP", quality=60, method=4)
    return Medium("image", "webp", out.getvalue())


def small_sound(sound: Any) -> Medium:
    """The first SECONDS of a sound as MP3, which all browsers play."""
    import soundfile

    wave, out = sound.open().resampled(RATE), io.BytesIO()
    soundfile.write(out, wave.samples[: RATE * SECONDS], RATE, format="MP3", subtype="MPEG_LAYER_III")
    return Medium("audio", "mp3", out.getvalue())


SMALL: Mapping[str, Callable[[Any], Medium]] = {"image": small_image, "audio": small_sound}
"""Modality -> what makes a small medium of a reference."""


def _items(task: TaskSpec, workspace: Path) -> Iterable[Item]:
    """The items of the test split; an error for the Hub, which a report does not ask."""
    assert task.data is not None
    if find_source(task.data, task.folder(), workspace, where=task.task).hub is not None:
        raise ValueError("the data set is on the Hub, and a report downloads nothing.")
    return open_items(task, "test", workspace, strict=False)
