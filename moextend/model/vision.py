"""Frozen image encoders, and a disk cache of their features."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn
from xxhash import xxh3_64_hexdigest

from moextend.data.images import ImageRef
from moextend.errors import InputError
from moextend.model import encoders
from moextend.model.encoders import Resize
from moextend.model.fingerprint import tensors_digest
from moextend.util import files

NAME = re.compile(rb"([0-9a-f]{16}) ([0-9a-f]{16})\n")
"""A line of the index: digest of an image, and checksum of its features."""
LINE = 34
"""Length of a line in bytes."""
Features = np.ndarray[Any, np.dtype[np.float32]]
"""[images, tokens, width]"""


class VisionEncoder(nn.Module):
    """A frozen image tower as a source of visual tokens.

    A transformer returns the patch tokens of its penultimate block, without class and register tokens and before any
    final norm (like LLaVA). A convolutional network, or a hierarchical transformer, returns its last feature map with
    one token per cell, row by row.
    """

    def __init__(self, tower: encoders.Tower) -> None:
        super().__init__()
        self.tower, self.preprocess, self.facts = tower.module, tower.preprocess, tower.facts
        self.requires_grad_(False).eval()
        blank = torch.zeros(1, 3, *tower.size)
        self._read = _reader(self.tower, blank)
        self.tokens, self.width = self._patches(blank).shape[1:]

    @torch.no_grad()
    def forward(self, images: Sequence[ImageRef]) -> Tensor:
        """Visual tokens [images, tokens, width], float32."""
        pixels = torch.stack([self.preprocess(image.open()) for image in images])
        return self._patches(pixels.to(next(self.tower.parameters()).device))

    def train(self, mode: bool = True) -> VisionEncoder:
        """Stays in eval mode, also inside a model in training: a frozen encoder is deterministic."""
        return super().train(False)

    @torch.no_grad()
    def _patches(self, pixels: Tensor) -> Tensor:
        return self._read(self.tower, pixels).float()

    def fingerprint(self) -> str:
        """Sixteen hex digits over weights, architecture and pre-processing."""
        facts = json.dumps(self.facts, sort_keys=True, default=str)
        return files.digest(tensors_digest(self.tower.state_dict()), facts, self._read.__name__)


def load_encoder(name: str, resize: Resize | None = None) -> VisionEncoder:
    """Encoder `name`: of the package ("tiny"), a local folder, or of open_clip or timm (see docs/vision.md).

    `resize`: how images become square; None: as in the encoder's own config. Only names of the forms
    `<model>/<pretrained>`, `hf-hub:...` and `timm:<model>` may download.
    """
    tower = encoders.make(encoders.locate(name), resize)
    try:
        return VisionEncoder(tower)
    except (AssertionError, AttributeError, NotImplementedError) as error:
        raise InputError(
            f"gives no visual tokens ({type(error).__name__}: {error}).",
            where=f"vision encoder '{name}'",
            hint="Choose a transformer of at least two blocks, or a convolutional network.",
        ) from error


def _reader(tower: Any, blank: Tensor) -> Callable[[Any, Tensor], Tensor]:
    """Function that computes the visual tokens of this kind of tower: (tower, pixels) -> [B, tokens, width]."""
    if hasattr(tower, "transformer"):
        return _penultimate_of_clip
    trunk = getattr(tower, "trunk", tower)
    if not hasattr(trunk, "forward_features"):
        return _last_map_of_clip
    with torch.no_grad():
        last = trunk.forward_features(blank)
        if last.dim() == 4:
            return _last_map_of_timm
        try:
            found = _penultimate_of_timm(tower, blank)
        except AssertionError:  # has no tokens of single blocks
            return _last_stage_of_timm
    patches = last.shape[1] - getattr(trunk, "num_prefix_tokens", 0)
    return _penultimate_of_timm if found.shape[1:] == (patches, last.shape[2]) else _last_stage_of_timm


def _penultimate_of_clip(tower: Any, pixels: Tensor) -> Tensor:
    """Tokens of open_clip's own vision transformer."""
    out = tower.forward_intermediates(
        pixels, indices=[-2], intermediates_only=True, stop_early=True, output_fmt="NLC"
    )
    return cast(Tensor, out["image_intermediates"][-1])


def _last_map_of_clip(tower: Any, pixels: Tensor) -> Tensor:
    """Tokens of open_clip's own ResNet."""
    out = tower.forward_intermediates(pixels, indices=1, intermediates_only=True)
    return cast(Tensor, out["image_intermediates"][-1]).flatten(2).mT


def _penultimate_of_timm(tower: Any, pixels: Tensor) -> Tensor:
    """Tokens of a timm transformer, alone or inside open_clip."""
    trunk = getattr(tower, "trunk", tower)
    out = trunk.forward_intermediates(
        pixels, indices=[-2], intermediates_only=True, stop_early=True, output_fmt="NLC"
    )
    return cast(Tensor, out[-1])


def _last_stage_of_timm(tower: Any, pixels: Tensor) -> Tensor:
    """Tokens of a hierarchical timm transformer: each stage has fewer and wider tokens."""
    trunk = getattr(tower, "trunk", tower)
    out = trunk.forward_intermediates(pixels, indices=[-1], intermediates_only=True, output_fmt="NCHW")
    return cast(Tensor, out[-1]).flatten(2).mT


def _last_map_of_timm(tower: Any, pixels: Tensor) -> Tensor:
    """Tokens of a timm network with a final feature map (convolutional, or a hierarchical transformer)."""
    trunk = getattr(tower, "trunk", tower)
    found = cast(Tensor, trunk.forward_features(pixels))
    if str(getattr(trunk, "output_fmt", "NCHW")).endswith("NHWC"):
        return found.flatten(1, 2)
    return found.flatten(2).mT


class FeatureStore:
    """Features of images by content: read from disk, or encoded and saved.

    Each encoder has a folder (its fingerprint) with one append-only file of float32 records of fixed size, and an index
    of digests with checksums. A truncated or damaged record is detected on reading and computed again. Memory does not
    grow with the number of images. Several processes may share a folder.

    An image takes tokens x width x 4 bytes: 2.4 MB for ViT-L-14-336, 0.25 MB for 49 tokens of 1,280.
    """

    def __init__(
        self, encoder: VisionEncoder, folder: Path, batch_size: int = 64, limit: int | None = None
    ) -> None:
        """Args: limit: maximum size of the folder in bytes; further features are computed and not saved."""
        self.encoder, self.batch_size = encoder, batch_size
        self.folder = folder / encoder.fingerprint()
        with files.disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._data, self._index = self.folder / "features.bin", self.folder / "names.txt"
        self._shape = (encoder.tokens, encoder.width)
        self._size = encoder.tokens * encoder.width * 4
        self._room = None if limit is None else limit // (self._size + LINE)
        self._rows: dict[str, tuple[int, str]] = {}
        """digest -> row and checksum; the last record of an image counts."""
        self._count = 0
        """Number of rows read from the index, with or without a name."""
        self._refresh()

    def __call__(self, images: Sequence[ImageRef]) -> Tensor:
        """Features [images, tokens, width], float32."""
        out = self._empty(len(images))
        gaps = self._load([image.digest for image in images], out)
        places: dict[str, list[int]] = {}
        for place in gaps:
            places.setdefault(images[place].digest, []).append(place)
        for chunk, features in self._make(
            list({images[place].digest: images[place] for place in gaps}.values())
        ):
            for image, row in zip(chunk, features, strict=True):
                out[places[image.digest]] = row
        return torch.from_numpy(out)

    def prepare(
        self, images: Sequence[ImageRef], on_images: Callable[[int, int], None] | None = None
    ) -> None:
        """Encodes and saves missing images up to the limit; calls `on_images(done, total)`."""
        self._refresh()
        missing = list({i.digest: i for i in images if i.digest not in self._rows}.values())
        if self._room is not None:
            missing = missing[: max(0, self._room - self._count)]
        done = 0
        for chunk, _ in self._make(missing):
            done += len(chunk)
            if on_images:
                on_images(done, len(missing))

    def _empty(self, count: int) -> Features:
        return np.empty((count, *self._shape), dtype=np.float32)

    def _make(self, images: Sequence[ImageRef]) -> Iterator[tuple[Sequence[ImageRef], Features]]:
        """Yields images with their features, a batch at a time: computed here, or by another process meanwhile."""
        for start in range(0, len(images), self.batch_size):
            chunk = images[start : start + self.batch_size]
            # The lock covers one batch only: processes that need the same images share the work.
            with FileLock(self.folder / "lock"):
                self._refresh()
                out = self._empty(len(chunk))
                gaps = self._load([image.digest for image in chunk], out)
                if gaps:
                    out[gaps] = self._encode([chunk[place] for place in gaps])
                    self._append([chunk[place].digest for place in gaps], out[gaps])
            yield chunk, out

    def _encode(self, images: Sequence[ImageRef]) -> Features:
        """Features of up to a batch of images, always computed in a full batch.

        The last bits of a product depend on the batch size, and training amplifies them. With a fixed size, the
        features of an image do not depend on the other missing images.
        """
        padded = [*images, *[images[-1]] * (self.batch_size - len(images))]
        return cast(Features, self.encoder(padded).cpu().numpy()[: len(images)])

    def _append(self, digests: Sequence[str], features: Features) -> None:
        """Appends records, then names: after an interrupt, records without a name are removed by the next append."""
        if self._room is not None:
            digests = digests[: max(0, self._room - self._count)]
        records = [row.tobytes() for row in features[: len(digests)]]
        names = [f"{d} {xxh3_64_hexdigest(r)}\n" for d, r in zip(digests, records, strict=True)]
        for path, width, rows in (
            (self._data, self._size, records),
            (self._index, LINE, [name.encode() for name in names]),
        ):
            with files.disk_errors(path), path.open("ab") as file:
                file.truncate(self._count * width)
                file.write(b"".join(rows))
                file.flush()
                os.fsync(file.fileno())
        self._refresh()

    def _refresh(self) -> None:
        """Reads the names that this or another process added since the last call."""
        if not (self._index.exists() and self._data.exists()):
            return
        with self._index.open("rb") as file:
            file.seek(self._count * LINE)
            added = file.read()
        complete = min(len(added) // LINE, self._data.stat().st_size // self._size - self._count)
        for i in range(complete):
            line = NAME.fullmatch(added[i * LINE : (i + 1) * LINE])
            if line:
                self._rows[line[1].decode()] = (self._count + i, line[2].decode())
        self._count += max(0, complete)

    def _load(self, digests: Sequence[str], out: Features) -> list[int]:
        """Reads features from disk into the rows of `out`; returns the indices of missing ones.

        Truncated and damaged records count as missing.
        """
        if not self._data.exists():
            return list(range(len(digests)))
        gaps = []
        with self._data.open("rb", buffering=0) as file:
            for place, digest in enumerate(digests):
                row, check = self._rows.get(digest, (None, ""))
                if row is not None:
                    file.seek(row * self._size)
                    record = memoryview(out[place]).cast("B")
                    if file.readinto(record) == self._size and xxh3_64_hexdigest(record) == check:
                        continue
                    del self._rows[digest]
                gaps.append(place)
        return gaps
