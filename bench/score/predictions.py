"""The lines of predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from moextend.bench.scorers import Answered

if TYPE_CHECKING:
    from moextend.bench.data import Item


@dataclass(frozen=True)
class PredictionLine(Answered):
    """A line of predictions: the answer, and everything that a scorer needs.

    The version of the format is part of the file name, so a line has none.
    """

    kind: str | None = None
    """Kind of question. null: the data have no kinds."""
    likelihoods: tuple[float, ...] | None = None
    """Log-likelihood of each choice in nats. null or missing: not computed."""
    group: str | None = None
    """Id of the image, shared by its items. null: no image."""

    @staticmethod
    def of(item: Item, prediction: str, likelihoods: tuple[float, ...] | None = None) -> PredictionLine:
        """Line of an answered item."""
        group = item.group or "+".join(image.digest for image in item.media) or None
        asked = (item.question, item.choices, item.kind)
        return PredictionLine(
            item.id,
            prediction,
            item.answers,
            *asked,
            likelihoods or None,
            group,
            image=item.image_name,
            position=item.position,
        )

    @staticmethod
    def read(line: Any) -> PredictionLine:
        """Record from a line of a file; pydantic.ValidationError for another line."""
        return _LINES.validate_python(line)

    def line(self) -> dict[str, Any]:
        """The record as a JSON object."""
        kept = asdict(self)
        if self.likelihoods is None:
            del kept["likelihoods"]
        if not self.image:
            del kept["image"]
        if self.position is None:
            del kept["position"]
        return kept


def text_item(line: Mapping[str, Any]) -> str:
    """Name of the item in a line of a text task: lm-eval's task and its number there."""
    return f"{line['task']} {line['id']}"


_LINES = TypeAdapter(PredictionLine)
