"""What a task's items show: small images, as far as they can be opened without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from moextend.bench.data import open_items
from moextend.bench.data.source import find_source
from moextend.bench.report.page.lifelines import Asked
from moextend.errors import visible

if TYPE_CHECKING:
    from moextend.bench.task import TaskSpec
    from moextend.data.images import ImageRef

SIDE = 160
"""Pixels of the longer side; a smaller image stays as it is."""
KEPT = 4096
"""Bytes below which a small image is taken as it is."""
SIGNS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}
"""First bytes of an encoded image -> its format."""


@dataclass
class Budget:
    """Bytes that images may still take."""

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

    at: list[int]
    """Item -> place in `media`, -1 for none."""
    media: list[Medium] = field(default_factory=list)
    lacks: str = ""
    """Why some are missing."""


def thumbnails(
    task: TaskSpec, workspace: Path, ids: Sequence[str], asked: Sequence[Asked], budget: Budget
) -> Thumbnails:
    """The images of items whose questions are still those that were answered."""
    found = Thumbnails([-1] * len(ids))
    if task.data is None or task.columns.image is None:
        return found
    places = {name: place for place, name in enumerate(ids)}
    known: dict[str, int] = {}
    try:
        for name, question, image in _images(task, workspace):
            place = places.get(name)
            if place is None or question != asked[place].question:
                continue
            if image.digest not in known:
                made = Medium("image", *small(image))
                budget.left -= 4 * len(made.data) / 3
                if budget.left < 0:
                    found.lacks = "There are more images than one file holds (--bundle has all)."
                    break
                known[image.digest] = len(found.media)
                found.media.append(made)
            found.at[place] = known[image.digest]
    except Exception as error:  # a page without images is better than none, whatever is wrong with the data
        found.lacks = f"The images cannot be opened: {visible(str(error))}"
    return found


def small(image: ImageRef) -> tuple[str, bytes]:
    """(format, encoded image) of at most SIDE pixels."""
    data = image.read()
    sign = next((form for start, form in SIGNS.items() if data.startswith(start)), None)
    if sign and len(data) <= KEPT and max(image.size()) <= SIDE:
        return sign, data
    made, out = image.open(), io.BytesIO()
    made.thumbnail((SIDE, SIDE))
    made.save(out, "WEBP", quality=60, method=4)
    return "webp", out.getvalue()


def _images(task: TaskSpec, workspace: Path) -> Iterator[tuple[str, str, ImageRef]]:
    """(id, question, first image) of the items of the test split; none of the Hub, which a report does not ask."""
    assert task.data is not None
    if find_source(task.data, task.folder(), workspace, where=task.task).hub is not None:
        raise ValueError("the data set is on the Hub, and a report downloads nothing.")
    for item in open_items(task, "test", workspace, strict=False):
        image = next((medium for medium in item.media if medium.modality == "image"), None)
        if image is not None:
            yield item.id, item.question, cast("ImageRef", image)
