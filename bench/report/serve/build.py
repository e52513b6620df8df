"""Runs -> the files of the page, compressed once for all readers."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.page.data import parts
from moextend.bench.report.page.document import encoded
from moextend.bench.report.style import find_style
from moextend.bench.run.rundir import RunDir
from moextend.errors import visible
from moextend.util.files import digest
from moextend.util.foreign import explained

TYPES = {
    ".json": "application/json", ".webp": "image/webp", ".png": "image/png", ".jpeg": "image/jpeg",
    ".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg",
}  # fmt: skip
"""Suffix of a file -> its media type. There are no others: none that a browser would execute."""


@dataclass(frozen=True)
class Content:
    """A file of the page."""

    media_type: str
    data: bytes
    compressed: bool = True
    """Whether `data` is compressed with gzip."""

    @classmethod
    def of(cls, text: str, media_type: str) -> Content:
        """A text, compressed."""
        return cls(media_type, gzip.compress(text.encode(), 6, mtime=0))

    def plain(self) -> bytes:
        """The data, decompressed."""
        return gzip.decompress(self.data) if self.compressed else self.data


@dataclass(frozen=True)
class Build:
    """The report of the runs at one time."""

    contents: dict[str, Content] = field(default_factory=dict)
    """Path in the page's folder -> file."""
    notes: list[str] = field(default_factory=list)
    """Why there are no results, or not all."""


def build(runs: Sequence[RunDir], workspace: Path) -> Build:
    """The parts and media of all runs with a score; whatever is wrong with them becomes a note."""
    try:
        experiments, notes = _scored(collect(runs, unfinished=True))
        found = parts(experiments, style=find_style(None, workspace), workspace=workspace, inline=False)
    except Exception as error:
        return Build(notes=[visible(str(explained(error)))])
    for name, value in found.values.items():
        for one in value["media"] if name.endswith(".media") else ():
            one["src"] = f"{one['src']}?{digest(found.files[one['src']])}"
    texts = {f"parts/{name}.json": encoded(value) for name, value in found.values.items()}
    contents = {path: Content.of(text, TYPES[".json"]) for path, text in texts.items()}
    return Build(contents | dict(_media(found.files)), notes)


def _scored(experiments: Sequence[Experiment]) -> tuple[list[Experiment], list[str]]:
    """Experiments with their runs that have a score, and what is left out of those without any."""
    kept, notes = [], list[str]()
    for experiment in experiments:
        experiment.results = [result for result in experiment.results if result.cells]
        if experiment.results:
            kept.append(experiment)
        else:
            notes += [f"left out: {visible(name)}" for name in experiment.left_out]
    return kept, notes


def _media(files: dict[str, Any]) -> Iterator[tuple[str, Content]]:
    for path, data in files.items():
        media_type = TYPES.get(Path(path).suffix)
        if media_type:
            yield path, Content(media_type, data, compressed=False)
