"""The lines of predictions, and columns of many files of lines: lines repeat between stages and runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic.dataclasses
from pydantic import TypeAdapter

from moextend.bench.scorers import Answered
from moextend.util import files

if TYPE_CHECKING:
    from numpy import ndarray

    from moextend.bench.data import Item

    Array = ndarray[Any, Any]

NONE = -1
"""Number of a word that is not there."""
MOST = 32 << 20
"""Bytes of lines that a reader keeps; then it starts again."""


class Words:
    """Words and their numbers, in the order in which they come."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def numbers(self, words: Iterable[str | None]) -> Array:
        """The number of each word; NONE for None."""
        known = self._known
        found = [NONE if word is None else known.setdefault(word, len(known)) for word in words]
        return np.array(found, np.int32)

    def words(self) -> list[str]:
        """The words by number."""
        return list(self._known)


class DistinctLines:
    """Reads files of JSON lines as columns.

    Greedy answers repeat: after most stages, most items have the line that they had before. A line that was read before
    costs one look-up, not a parse.
    """

    def __init__(self, parse: Callable[[list[Any]], Sequence[Array]]) -> None:
        """
        Args:
            parse: columns of records, [records] each.
        """
        self._parse = parse
        self._known: dict[bytes, tuple[Any, ...]] = {}
        self._bytes = 0

    def read(self, path: Path, sha256: str = "", *, signed: bool = False) -> list[Array]:
        """The columns of a file, [lines] each; of no lines if there is no file.

        Args:
            sha256: of the content of the file, where it is known.
            signed: whether its last line signs the others (`files.write_lines`), and is no record.

        Raises the errors of `files.read_lines` and of `parse`; SpecError for a file that was edited.
        """
        lines = files.signed_lines(path) if signed else files.raw_lines(path, sha256)
        if self._bytes > MOST:
            self._known, self._bytes = {}, 0
        new = {line: number for number, line in enumerate(lines, 1) if line not in self._known}
        made = self._parse(files.parsed(list(new), path, new.values()))
        self._known |= zip(new, zip(*(column.tolist() for column in made), strict=True), strict=True)
        self._bytes += sum(map(len, new))
        values = zip(*map(self._known.__getitem__, lines), strict=True) if lines else [()] * len(made)
        return [np.array(own, column.dtype) for own, column in zip(values, made, strict=True)]


@pydantic.dataclasses.dataclass(frozen=True)
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
