"""The batches of predictions that are answered so far, in the file of predictions and in those of several processes.

`NAME.part-R.jsonl` next to the file of predictions `NAME.jsonl` has the batches of process R, one per line. They are
merged in the order of the batches. Any number of processes, also a single one, continues what others began.
"""

from __future__ import annotations

import glob
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from moextend.bench.score.predictions import PredictionLine
from moextend.errors import MoextendError, SpecError
from moextend.util import processes
from moextend.util.files import append_lines, remove, repair_lines, write_lines

if TYPE_CHECKING:
    from moextend.bench.data import Item

log = logging.getLogger(__name__)

KEPT_EVERY = 2.0
"""Seconds between two writes: the maximum loss at an interrupt."""

Lines = list[PredictionLine]


class Parts:
    """Answered batches of one file of predictions.

    A single process appends them to the file itself. Each of several ones appends to a file of its own, and the first
    one merges these at the end.
    """

    def __init__(self, path: Path, items: Sequence[Item], batches: Sequence[Sequence[int]]) -> None:
        """Args: batches: the indices of the items of each batch."""
        self.path, self.items, self.batches = path, items, batches
        self._alone = processes.count() == 1
        self._in_file: Lines = []
        """Predictions in the file, in its order."""
        self._known: dict[int, Lines] = {}
        """Answered batches that are not in the file yet."""
        self._next = 0
        """First batch that is not in the file."""
        self._unsaved: list[int] = []
        self._saved_at = time.monotonic()

    def batch(self, number: int) -> list[Item]:
        """Items of a batch, created now: with the bytes of all their media they may not fit into memory."""
        return [self.items[place] for place in self.batches[number]]

    def start(self) -> set[int]:
        """Reads what is there; the batches that have answers. The first process calls it."""
        self._next = self._in_order()
        for path in self._files():
            self._known |= {n: lines for n, lines in self._read(path).items() if n >= self._next}
        return {*range(self._next), *self._known}

    def add(self, number: int, lines: Lines) -> None:
        """Adds the answers of a batch; they are on disk a little later, at the latest after `save`."""
        self._known[number] = lines
        self._unsaved.append(number)
        if time.monotonic() - self._saved_at > KEPT_EVERY:
            self.save()

    def save(self) -> None:
        """Writes what was added since the last time."""
        if self._alone:
            self._append()
        elif self._unsaved:
            rows = [{"batch": n, "lines": [one.line() for one in self._known[n]]} for n in self._unsaved]
            append_lines(_part(self.path, processes.rank()), rows)
        self._unsaved, self._saved_at = [], time.monotonic()

    def finish(self) -> Lines:
        """Merges all batches into the file, and removes the other files; the predictions in the order of the batches.

        The first process calls it, after all have saved.
        """
        if not self._alone:
            self.start()
        self._append()
        for path in self._files():
            remove(path)
        return self._in_file

    def _append(self) -> None:
        """Appends the batches that follow those in the file."""
        new: Lines = []
        while (lines := self._known.pop(self._next, None)) is not None:
            new += lines
            self._next += 1
        if new:
            append_lines(self.path, [one.line() for one in new])
            self._in_file += new

    def _in_order(self) -> int:
        """Number of complete batches in the file, which is truncated after them."""
        try:
            records = [PredictionLine.read(line) for line in repair_lines(self.path)]
        except (SpecError, ValidationError) as error:
            log.warning("%s: is damaged (%s); it is made again.", self.path, error)
            remove(self.path)
            records = []
        done, good = 0, 0
        for number, batch in enumerate(self.batches):
            if not self._answers(records[good : good + len(batch)], number):
                break
            done, good = done + 1, good + len(batch)
        if good < len(records):
            write_lines(self.path, [record.line() for record in records[:good]])
        self._in_file = records[:good]
        return done

    def _read(self, path: Path) -> dict[int, Lines]:
        """Batches in the file of one process; a damaged file, and other batches, count as not answered."""
        found: dict[int, Lines] = {}
        try:
            for row in repair_lines(path):
                lines = [PredictionLine.read(line) for line in row["lines"]]
                if row["batch"] in range(len(self.batches)) and self._answers(lines, row["batch"]):
                    found[row["batch"]] = lines
        except (MoextendError, ValidationError, KeyError, TypeError) as error:
            log.warning("%s: is damaged (%s); the rest of it is made again.", path, error)
            remove(path)
        return found

    def _answers(self, lines: Sequence[PredictionLine], number: int) -> bool:
        """Whether these are predictions of exactly this batch."""
        asked = [(item.id, item.position) for item in self.batch(number)]
        return [(one.id, one.position) for one in lines] == asked

    def _files(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{glob.escape(self.path.stem)}.part-*.jsonl"))


def _part(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.stem}.part-{rank}.jsonl")
