"""Image features that are computed once: on disk while a model learns, in memory while it answers."""

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
"""Where features lie while a training is not over."""
BATCH = 16
"""Images that a training without a store of its own encodes at a time."""
DISK = 16 << 30
"""Bytes that such features may take, and never more than half of what is free."""
MEMORY = 256 << 20
"""Bytes of features that `Recent` holds."""

See = Callable[[Sequence[ImageRef]], Tensor]
"""Images -> features [images, tokens, width]."""


@contextmanager
def kept_features(model: MultimodalLM, folder: Path) -> Iterator[None]:
    """Within it `model` encodes every image once, and keeps its features in `folder` until the block ends well.

    An interrupted call finds them again. Nothing changes for a model without an encoder, or with a source of features
    of its own. No disk is used before the first image.
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
    """A FeatureStore that is made when the first image comes."""

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
    """The features of the images that were asked for last: what two ask for is encoded once."""

    def __init__(self, see: See, limit: int = MEMORY) -> None:
        """Args: limit: bytes that are kept between two calls."""
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
