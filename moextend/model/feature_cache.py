"""Caches of features: on disk during training, in memory during generation."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Protocol

from torch import Tensor

from moextend.data.media import MediaRef
from moextend.model.feature_store import Expecting, FeatureStore
from moextend.model.modality import Encoder, Features, See, Sources
from moextend.model.multimodal import MultimodalLM
from moextend.util import files
from moextend.util.processes import first_writes

FOLDER = "features-in-flight"
"""Folder of features during a training."""
BATCH = 16
"""Batch size of the encoder in a training without its own store."""
DISK = 16 << 30
"""Maximum size of such features in bytes; also limited to half of the free space."""
MEMORY = 256 << 20
"""Bytes of features in `Recent`."""


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
    """Context in which the model will see the media of `rows` in an order of their indices (Expecting.expecting)."""
    with ExitStack() as stack:
        for name, modality in model.modalities.items():
            if isinstance(modality.features, Expecting):
                stack.enter_context(modality.features.expecting(_media(name, rows, order)))
        yield


def _media(modality: str, rows: Sequence[WithMedia], order: Collection[int]) -> Iterator[MediaRef]:
    return (medium for place in order for medium in rows[place].media if medium.modality == modality)


@contextmanager
def kept_features(model: MultimodalLM, folder: Path) -> Iterator[None]:
    """Context in which `model` encodes every medium once; the features are in `folder` until the block succeeds.

    A call that continues an interrupted one finds them. A modality with its own source of features does not change.
    Nothing is written before the first medium.
    """
    place = folder / FOLDER
    mine = [modality for modality in model.modalities.values() if modality.features is None]
    for modality in mine:
        modality.features = _Store(modality.encoder, place)
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


class _Store(Expecting):
    """A FeatureStore that is created with the first medium."""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self.encoder, self.folder = encoder, folder

    @cached_property
    def store(self) -> FeatureStore:
        self.folder.mkdir(parents=True, exist_ok=True)
        limit = min(DISK, shutil.disk_usage(self.folder).free // 2)
        return FeatureStore(self.encoder, self.folder, batch_size=BATCH, limit=limit)

    def __call__(self, media: Sequence[MediaRef]) -> Features:
        with self.store.expecting(self._expected):
            return self.store(media)


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
