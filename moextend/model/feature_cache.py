"""Caches of image features: on disk during training, in memory during generation."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from moextend.data.images import ImageRef
from moextend.model.multimodal import MultimodalLM
from moextend.model.vision import FeatureStore, VisionEncoder
from moextend.util.processes import first_writes

FOLDER = "features-in-flight"
"""Folder of features during a training."""
BATCH = 16
"""Batch size of the encoder in a training without its own store."""
DISK = 16 << 30
"""Maximum size of such features in bytes; also limited to half of the free space."""
MEMORY = 256 << 20
"""Bytes of features in `Recent`."""

See = Callable[[Sequence[ImageRef]], Tensor]
"""Images -> features [images, tokens, width]."""


@contextmanager
def kept_features(model: MultimodalLM, folder: Path) -> Iterator[None]:
    """Context in which `model` encodes every image once; the features are in `folder` until the block succeeds.

    A call that continues an interrupted one finds them. A model without an encoder, or with its own source of features,
    does not change. Nothing is written before the first image.
    """
    if model.vision is None or model.features is not None:
        yield
        return
    place = folder / FOLDER
    model.features = _Store(model.vision, place)
    try:
        yield
    finally:
        model.features = None
    with first_writes() as first:
        if first:
            shutil.rmtree(place, ignore_errors=True)


class _Store:
    """A FeatureStore that is created with the first image."""

    def __init__(self, encoder: VisionEncoder, folder: Path) -> None:
        self.encoder, self.folder = encoder, folder

    @cached_property
    def store(self) -> FeatureStore:
        self.folder.mkdir(parents=True, exist_ok=True)
        limit = min(DISK, shutil.disk_usage(self.folder).free // 2)
        return FeatureStore(self.encoder, self.folder, batch_size=BATCH, limit=limit)

    def __call__(self, images: Sequence[ImageRef]) -> Tensor:
        return self.store(images)


class Recent:
    """Features of the latest images: an image that two callers need is encoded once."""

    def __init__(self, see: See, limit: int = MEMORY) -> None:
        """Args: limit: bytes kept between calls."""
        self.see, self.limit = see, limit
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, images: Sequence[ImageRef]) -> Tensor:
        """Features [images, tokens, width]."""
        missing = {image.digest: image for image in images if image.digest not in self._kept}
        if missing:
            self._kept.update(zip(missing, self.see(list(missing.values())), strict=True))
        for image in images:
            self._kept.move_to_end(image.digest)
        found = torch.stack([self._kept[image.digest] for image in images])
        size = found[0].numel() * found.element_size()
        while len(self._kept) * size > self.limit:
            self._kept.popitem(last=False)
        return found
