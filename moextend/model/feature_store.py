"""A disk cache of the features of media, shared by processes."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from xxhash import xxh3_64_hexdigest

from moextend.data.media import MediaRef
from moextend.errors import InputError
from moextend.model.modality import Encoder, Features, encoded, tokens_of
from moextend.util import files, lease

NAME = re.compile(rb"([0-9a-f]{16}) ([0-9a-f]{16})\n")
"""A line of the index: digest of a medium, and checksum of its features."""
PLACED = re.compile(rb"([0-9a-f]{16}) ([0-9a-f]{16}) ([0-9a-f]{16}) ([0-9a-f]{8})\n")
"""The same for records of different sizes: also their start and size in bytes."""
LINE, PLACED_LINE = 34, 60
"""Lengths of these lines in bytes."""
AHEAD = 8
"""Batches of expected media that a call looks through at most."""
Array = np.ndarray[Any, np.dtype[np.float32]]
"""[tokens, width]; of media with equal numbers of tokens also [media, tokens, width]."""


class Expecting(ABC):
    """A source of features that may know which media it will be asked for."""

    _expected: Iterator[MediaRef] = iter(())

    @abstractmethod
    def __call__(self, media: Sequence[MediaRef]) -> Features:
        """Features of media, float32."""

    @contextmanager
    def expecting(self, media: Iterable[MediaRef]) -> Iterator[None]:
        """Context in which media will be asked for in this order; `media` is read as far as needed.

        A batch of the encoder that the missing media of a call do not fill has the next of them.
        """
        before, self._expected = self._expected, iter(media)
        try:
            yield
        finally:
            self._expected = before


class FeatureStore(Expecting):
    """Features of media by content: read from disk, or encoded and saved.

    Each encoder has a folder (its fingerprint) with one append-only file of float32 records, and an index of digests
    with checksums. A truncated or damaged record is detected on reading and computed again. Memory does not grow with
    the number of media. Several processes may share a folder.

    A medium takes tokens x width x 4 bytes: 2.4 MB for ViT-L-14-336, 0.25 MB for 49 tokens of 1,280.
    """

    def __init__(
        self, encoder: Encoder, folder: Path, batch_size: int = 64, limit: int | None = None
    ) -> None:
        """Args: limit: maximum size of the folder in bytes; further features are computed and not saved."""
        self.encoder, self.batch_size, self.limit = encoder, batch_size, limit
        self.folder = folder / encoder.fingerprint()
        with files.disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._data, self._index = self.folder / "features.bin", self.folder / "names.txt"
        self._line = LINE if encoder.tokens is not None else PLACED_LINE
        self._rows: dict[str, tuple[int, int, str]] = {}
        """digest -> start, size and checksum of its record; the last record of a medium counts."""
        self._count = 0
        """Number of lines read from the index, with or without a name."""
        self._end = 0
        """End in bytes of the records of these lines."""
        self._inode = 0
        self._refresh()

    def __call__(self, media: Sequence[MediaRef]) -> Features:
        """Features of media, float32, in host memory."""
        out = self._empty(media)
        gaps = self._load(media, out)
        places: dict[str, list[int]] = {}
        for place in gaps:
            places.setdefault(media[place].digest, []).append(place)
        for chunk, features in self._make(list({media[i].digest: media[i] for i in gaps}.values())):
            for medium, row in zip(chunk, features, strict=True):
                for place in places[medium.digest]:
                    out[place][...] = row
        if isinstance(out, np.ndarray):
            return torch.from_numpy(out)
        return [torch.from_numpy(row) for row in out]

    def _size(self, medium: MediaRef) -> int:
        """Size of a record in bytes."""
        return tokens_of(self.encoder, medium) * self.encoder.width * 4

    def _empty(self, media: Sequence[MediaRef]) -> Array | list[Array]:
        if self.encoder.tokens is not None:
            return np.empty((len(media), self.encoder.tokens, self.encoder.width), dtype=np.float32)
        shapes = [(tokens_of(self.encoder, medium), self.encoder.width) for medium in media]
        return [np.empty(shape, dtype=np.float32) for shape in shapes]

    def _make(self, media: Sequence[MediaRef]) -> Iterator[tuple[Sequence[MediaRef], Array | list[Array]]]:
        """Yields media with their features, a batch at a time: computed here, or by another process meanwhile."""
        for start in range(0, len(media), self.batch_size):
            chunk = media[start : start + self.batch_size]
            # The lease covers one batch only: processes that need the same media share the work.
            with lease.first(self._data) as held:
                self._refresh()
                out = self._empty(chunk)
                gaps = self._load(chunk, out)
                if gaps:
                    missing = [chunk[i] for i in gaps]
                    batch, rows = self._computed(missing)
                    for place, row in zip(gaps, rows, strict=False):
                        out[place][...] = row
                    held.check()
                    self._append([medium.digest for medium in batch], rows)
            yield chunk, out

    def _computed(self, missing: list[MediaRef]) -> tuple[list[MediaRef], list[Array]]:
        """Missing media, and expected ones that fill their batch, with the features of all."""
        with suppress(InputError):  # a broken medium that only a later call asks for is no error of this one
            batch = self._filled(missing)
            if len(batch) > len(missing):
                return batch, self._encode(batch)
        return missing, self._encode(missing)

    def _filled(self, missing: list[MediaRef]) -> list[MediaRef]:
        """Missing media, then expected ones that are not saved: as many as fill a batch and as there is room for."""
        if self.encoder.tokens is None:  # each is encoded alone
            return missing
        room = self._fitting([self._size(missing[0])] * self.batch_size)
        found = {medium.digest: medium for medium in missing}
        for _ in range(AHEAD * self.batch_size):
            if len(found) >= room or (medium := next(self._expected, None)) is None:
                break
            if medium.digest not in self._rows:
                found.setdefault(medium.digest, medium)
        return list(found.values())

    def _encode(self, media: Sequence[MediaRef]) -> list[Array]:
        """Features of up to a batch of media; with a fixed number of tokens always computed in a full batch.

        The last bits of a product depend on the batch size, and training amplifies them. With a fixed size, the
        features of a medium do not depend on the other missing ones.
        """
        missing = self.batch_size - len(media) if self.encoder.tokens is not None else 0
        found = encoded(self.encoder, [*media, *[media[-1]] * missing])
        rows = found.cpu() if isinstance(found, torch.Tensor) else [row.cpu() for row in found]
        return [row.numpy() for row in rows[: len(media)]]

    def _fitting(self, sizes: Sequence[int]) -> int:
        """How many records of these sizes fit into the folder."""
        if self.limit is None:
            return len(sizes)
        room = self.limit - self._end - self._count * self._line
        for i, size in enumerate(sizes):
            room -= size + self._line
            if room < 0:
                return i
        return len(sizes)

    def _append(self, digests: Sequence[str], features: Sequence[Array]) -> None:
        """Appends records, then names: after an interrupt, records without a name are removed by the next append."""
        files.may_change(self._data)
        records = [row.tobytes() for row in features[: self._fitting([row.nbytes for row in features])]]
        lines, start = [], self._end
        for digest, record in zip(digests, records, strict=False):
            place = "" if self._line == LINE else f" {start:016x} {len(record):08x}"
            lines.append(f"{digest} {xxh3_64_hexdigest(record)}{place}\n".encode())
            start += len(record)
        for path, end, rows in (
            (self._data, self._end, records),
            (self._index, self._count * self._line, lines),
        ):
            with files.disk_errors(path), path.open("ab") as file:
                file.truncate(end)
                file.write(b"".join(rows))
                file.flush()
                os.fsync(file.fileno())
        self._refresh()

    def _refresh(self) -> None:
        """Reads the names that this or another process added since the last call."""
        try:
            state, held = self._index.stat(), self._data.stat().st_size
        except FileNotFoundError:
            state, held = None, 0
        if self._count and (
            state is None or self._inode != state.st_ino or state.st_size < self._count * self._line
        ):
            self._rows, self._count, self._end = {}, 0, 0  # removed meanwhile, and perhaps begun again
        if state is None:
            return
        self._inode = state.st_ino
        with self._index.open("rb") as file:
            file.seek(self._count * self._line)
            added = file.read()
        for at in range(0, len(added) - self._line + 1, self._line):
            digest, record = self._named(added[at : at + self._line])
            if record[0] + record[1] > held:
                break
            self._count, self._end = self._count + 1, max(self._end, record[0] + record[1])
            if digest:
                self._rows[digest] = record

    def _named(self, line: bytes) -> tuple[str, tuple[int, int, str]]:
        """Digest, and start, size and checksum of its record; no digest for a damaged line."""
        if self.encoder.tokens is not None:
            size, found = self.encoder.tokens * self.encoder.width * 4, NAME.fullmatch(line)
            start = self._count * size
        else:
            found = PLACED.fullmatch(line)
            start, size = (int(found[3], 16), int(found[4], 16)) if found else (self._end, 0)
        return (found[1].decode() if found else ""), (start, size, found[2].decode() if found else "")

    def _load(self, media: Sequence[MediaRef], out: Array | list[Array]) -> list[int]:
        """Reads features from disk into the rows of `out`; returns the indices of missing ones.

        Truncated and damaged records count as missing.
        """
        gaps = []
        try:
            data = self._data.open("rb", buffering=0)
        except FileNotFoundError:
            return list(range(len(media)))
        with data as file:
            for place, medium in enumerate(media):
                start, size, check = self._rows.get(medium.digest, (0, -1, ""))
                record = memoryview(out[place].data).cast("B")
                if size == record.nbytes:
                    file.seek(start)
                    if file.readinto(record) == size and xxh3_64_hexdigest(record) == check:
                        continue
                self._rows.pop(medium.digest, None)
                gaps.append(place)
        return gaps
