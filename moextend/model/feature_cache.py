"""Caches of features: on disk, shared by processes, and in memory during generation."""

from __future__ import annotations

import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from xxhash import xxh3_64_hexdigest

from moextend.data.media import MediaRef
from moextend.errors import InputError
from moextend.model.modality import Encoder, Features, See, Sources, encoded, tokens_of
from moextend.model.multimodal import MultimodalLM
from moextend.util import files, lease
from moextend.util.processes import first_writes

FOLDER = "features-in-flight"
"""Folder of features during a training."""
BATCH = 16
"""Batch size of the encoder in a training without its own store."""
DISK = 16 << 30
"""Maximum size of such features in bytes; also limited to half of the free space."""
MEMORY = 256 << 20
"""Bytes of features in `Recent`."""
NAME = re.compile(rb"([0-9a-f]{16}) ([0-9a-f]{16}) ([0-9a-f]{16}) ([0-9a-f]{8})\n")
"""A line of the index: digest of a medium; checksum, start and size in bytes of its features."""
LINE = 60
"""Length of such a line in bytes."""
AHEAD = 8
"""Batches of expected media that a call looks through at most."""
Array = np.ndarray[Any, np.dtype[np.float32]]
"""[tokens, width]; of media with equal numbers of tokens also [media, tokens, width]."""


class FeatureStore:
    """Features of media by content: read from disk, or encoded and saved.

    Each encoder has a folder (its fingerprint) with one append-only file of float32 records, and an index of digests
    with checksums. A truncated or damaged record is detected on reading and computed again. Memory does not grow with
    the number of media. Several processes may share a folder. Nothing is written before the first medium.

    A medium takes tokens x width x 4 bytes: 2.4 MB for ViT-L-14-336, 0.25 MB for 49 tokens of 1,280.
    """

    def __init__(
        self, encoder: Encoder, folder: Path, batch_size: int = 64, limit: int | None = None
    ) -> None:
        """Args: limit: maximum size of the folder in bytes; further features are computed and not saved."""
        self.encoder, self.batch_size, self.limit, self._root = encoder, batch_size, limit, folder
        self._rows: dict[str, tuple[int, int, str]] = {}
        """digest -> start, size and checksum of its record; the last record of a medium counts."""
        self._count = self._end = self._inode = 0
        """Number of lines read from the index, with or without a name; end of their records; and the index's inode."""
        self._expected: Iterator[MediaRef] = iter(())

    @cached_property
    def folder(self) -> Path:
        """Folder of the encoder's features."""
        return self._root / self.encoder.fingerprint()

    @property
    def _data(self) -> Path:
        return self.folder / "features.bin"

    @property
    def _index(self) -> Path:
        return self.folder / "names.txt"

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

    def __call__(self, media: Sequence[MediaRef]) -> Features:
        """Features of media, float32, in host memory."""
        if not self._rows:
            self._refresh()
        out = self._empty(media)
        places: dict[str, list[int]] = {}
        for place in self._load(media, out):
            places.setdefault(media[place].digest, []).append(place)
        missing = [media[own[0]] for own in places.values()]
        for start in range(0, len(missing), self.batch_size):
            chunk = missing[start : start + self.batch_size]
            for medium, row in zip(chunk, self._made(chunk), strict=True):
                for place in places[medium.digest]:
                    out[place][...] = row
        return torch.from_numpy(out) if isinstance(out, np.ndarray) else list(map(torch.from_numpy, out))

    def _empty(self, media: Sequence[MediaRef]) -> Array | list[Array]:
        if self.encoder.tokens is not None:
            return np.empty((len(media), self.encoder.tokens, self.encoder.width), dtype=np.float32)
        shapes = [(tokens_of(self.encoder, medium), self.encoder.width) for medium in media]
        return [np.empty(shape, dtype=np.float32) for shape in shapes]

    def _made(self, chunk: Sequence[MediaRef]) -> Array | list[Array]:
        """Features of a batch of media, which are computed here, or by another process meanwhile."""
        with files.disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        # The lease covers one batch only: processes that need the same media share the work.
        with lease.first(self._data) as held:
            self._refresh()
            out = self._empty(chunk)
            if gaps := self._load(chunk, out):
                batch, rows = self._computed([chunk[i] for i in gaps])
                for place, row in zip(gaps, rows, strict=False):
                    out[place][...] = row
                held.check()
                self._append([medium.digest for medium in batch], rows)
        return out

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
        room = self._fitting([self.encoder.tokens * self.encoder.width * 4] * self.batch_size)
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
        room = (self.limit or 0) - self._end - self._count * LINE
        for i, size in enumerate(sizes if self.limit is not None else ()):
            room -= size + LINE
            if room < 0:
                return i
        return len(sizes)

    def _append(self, digests: Sequence[str], features: Sequence[Array]) -> None:
        """Appends records, then names: after an interrupt, records without a name are removed by the next append."""
        files.may_change(self._data)
        records = [row.tobytes() for row in features[: self._fitting([row.nbytes for row in features])]]
        lines, start = [], self._end
        for digest, record in zip(digests, records, strict=False):
            lines.append(f"{digest} {xxh3_64_hexdigest(record)} {start:016x} {len(record):08x}\n".encode())
            start += len(record)
        for path, end, rows in ((self._data, self._end, records), (self._index, self._count * LINE, lines)):
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
            self._rows, self._count, self._end = {}, 0, 0
            return
        if self._inode != state.st_ino or state.st_size < self._count * LINE:
            self._rows, self._count, self._end = {}, 0, 0  # removed meanwhile, and begun again
        self._inode = state.st_ino
        with self._index.open("rb") as file:
            file.seek(self._count * LINE)
            added = file.read()
        for at in range(0, len(added) - LINE + 1, LINE):
            if found := NAME.fullmatch(added, at, at + LINE):
                start, size = int(found[3], 16), int(found[4], 16)
                if start + size > held:
                    break
                self._end = max(self._end, start + size)
                self._rows[found[1].decode()] = (start, size, found[2].decode())
            self._count += 1

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


def store_features(model: MultimodalLM, folder: Path) -> None:
    """Gives each modality of `model` a FeatureStore in `folder`."""
    for modality in model.modalities.values():
        modality.features = FeatureStore(modality.encoder, folder)


class WithMedia(Protocol):
    """A conversation or an example."""

    @property
    def media(self) -> tuple[MediaRef, ...]:
        """Its media, in the order of their marks."""
        ...


@contextmanager
def expecting(model: MultimodalLM, rows: Sequence[WithMedia], order: Collection[int]) -> Iterator[None]:
    """Context in which the model will see the media of `rows` in an order of their indices (FeatureStore.expecting)."""
    with ExitStack() as stack:
        for name, modality in model.modalities.items():
            if isinstance(modality.features, FeatureStore):
                stack.enter_context(modality.features.expecting(_media(name, rows, order)))
        yield


def _media(modality: str, rows: Sequence[WithMedia], order: Collection[int]) -> Iterator[MediaRef]:
    return (medium for place in order for medium in rows[place].media if medium.modality == modality)


@contextmanager
def kept_features(model: MultimodalLM, folder: Path) -> Iterator[None]:
    """Context in which `model` encodes every medium once; the features are in `folder` until the block succeeds.

    A call that continues an interrupted one finds them. A modality with its own source of features does not change.
    """
    place = folder / FOLDER
    disk = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    mine = [modality for modality in model.modalities.values() if modality.features is None]
    for modality in mine:
        limit = min(DISK, shutil.disk_usage(disk).free // 2)
        modality.features = FeatureStore(modality.encoder, place, BATCH, limit)
    try:
        yield
    finally:
        for modality in mine:
            modality.features = None
    if not mine:
        return
    with first_writes() as first:
        if first:
            files.may_change(place)
            shutil.rmtree(place, ignore_errors=True)


class Recent:
    """Features of the latest media of a modality: a medium that two callers need is encoded once."""

    def __init__(self, see: See, limit: int = MEMORY) -> None:
        """Args: limit: bytes kept between calls."""
        self.see, self.limit = see, limit
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def __call__(self, media: Sequence[MediaRef]) -> list[Tensor]:
        """Features [tokens, width] of each medium."""
        missing = {medium.digest: medium for medium in media if medium.digest not in self._kept}
        if missing:
            for digest, one in zip(missing, self.see(list(missing.values())), strict=True):
                self._kept[digest] = one
                self._bytes += one.nbytes
        for medium in media:
            self._kept.move_to_end(medium.digest)
        found = [self._kept[medium.digest] for medium in media]
        while self._bytes > self.limit:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return found


def sources_of(model: MultimodalLM, given: Sources | None = None) -> dict[str, See]:
    """Modality -> source of its features: the given one, or the model's.

    Where `model.choose` chooses extensions by the input, a medium is encoded once for the choice and the answer.
    """
    found = {**model.modalities.sources(), **(given or {})}
    return {name: Recent(see) for name, see in found.items()} if model.choose else found
