"""Image encoders of open_clip, and a disk cache of what they see."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from moextend import content, files
from moextend.errors import InputError
from moextend.images import ImageRef

NAME = 17
"""Bytes of an image's name in the index: sixteen hex digits and a line end."""


class VisionEncoder(nn.Module):
    """An open_clip image tower that returns the patch tokens of its penultimate layer (as LLaVA takes them)."""

    def __init__(self, clip: Any, preprocess: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.tower = clip.visual
        self.preprocess = preprocess
        self.requires_grad_(False).eval()
        size = self.tower.image_size
        height, width = (size, size) if isinstance(size, int) else size
        self.tokens, self.width = self._patches(torch.zeros(1, 3, height, width)).shape[1:]

    @torch.no_grad()
    def forward(self, images: Sequence[ImageRef]) -> Tensor:
        """Patch tokens [images, tokens, width], float32."""
        pixels = torch.stack([self.preprocess(image.open()) for image in images])
        return self._patches(pixels.to(next(self.tower.parameters()).device))

    def train(self, mode: bool = True) -> VisionEncoder:
        """Stays in eval mode, also inside a model that trains: a frozen encoder sees an image in one way."""
        return super().train(False)

    def _patches(self, pixels: Tensor) -> Tensor:
        penultimate = len(self.tower.transformer.resblocks) - 2
        out = self.tower.forward_intermediates(
            pixels, indices=[penultimate], intermediates_only=True, stop_early=True, output_fmt="NLC"
        )
        return cast(Tensor, out["image_intermediates"][-1].float())

    def fingerprint(self) -> str:
        """Sixteen hex digits that name the weights."""
        return tensors_digest(self.tower.state_dict())


def load_encoder(name: str) -> VisionEncoder:
    """The encoder `name`: one of the package ("tiny"), a local folder, or "<model>/<pretrained>" of open_clip.

    Only the last form may download, on the user's word.
    """
    import open_clip

    packaged = content.package_folder("registry") / "models" / name / "vision"
    folder = packaged if packaged.is_dir() else Path(name)
    if folder.is_dir():
        clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        return VisionEncoder(clip, preprocess)
    architecture, _, pretrained = name.partition("/")
    if architecture not in open_clip.list_models():
        raise InputError(
            f"no vision encoder '{name}'.",
            mend="Name one of the package (tiny), a folder, or <model>/<pretrained> of open_clip, "
            "for example ViT-L-14-336/openai.",
        )
    clip, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=pretrained or None)
    return VisionEncoder(clip, preprocess)


class FeatureStore:
    """Features of images by their content: read from disk where they are, else encoded and kept.

    One append-only file of fixed-size float32 records and an index of digests, so that memory stays flat however
    many images there are. Several processes may share a folder.
    """

    def __init__(self, encoder: VisionEncoder, folder: Path, batch_size: int = 64) -> None:
        self.encoder, self.batch_size = encoder, batch_size
        self.folder = folder / encoder.fingerprint()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._data, self._index = self.folder / "features.bin", self.folder / "names.txt"
        self._shape = (encoder.tokens, encoder.width)
        self._rows: dict[str, int] = {}
        self._map: np.ndarray[Any, Any] | None = None
        self._refresh()

    def __call__(self, images: Sequence[ImageRef]) -> Tensor:
        """Features [images, tokens, width]."""
        self.prepare(images)
        assert self._map is not None
        return torch.from_numpy(self._map[[self._rows[image.digest] for image in images]])

    def prepare(
        self, images: Sequence[ImageRef], on_images: Callable[[int, int], None] | None = None
    ) -> None:
        """Encodes and keeps what is not there yet; `on_images(done, total)` follows the work."""
        if all(image.digest in self._rows for image in images):
            return
        with FileLock(self.folder / "lock"):
            self._refresh()
            missing = list({i.digest: i for i in images if i.digest not in self._rows}.values())
            for start in range(0, len(missing), self.batch_size):
                chunk = missing[start : start + self.batch_size]
                self._append(chunk, self._encode(chunk))
                if on_images:
                    on_images(start + len(chunk), len(missing))
            self._refresh()

    def _encode(self, images: Sequence[ImageRef]) -> np.ndarray[Any, Any]:
        """Features of up to a batch of images, always computed in a whole batch.

        The last bits of a product depend on the batch's size, and training amplifies them: with one size, an image's
        features do not depend on which images were missing when it was first needed.
        """
        whole = [*images, *[images[-1]] * (self.batch_size - len(images))]
        return cast("np.ndarray[Any, Any]", self.encoder(whole).cpu().numpy()[: len(images)])

    def _append(self, images: Sequence[ImageRef], features: np.ndarray[Any, Any]) -> None:
        """Records first, names last: an interruption leaves records without a name, cut off at the next append."""
        size = int(np.prod(self._shape)) * 4
        with files.disk_errors(self._data):
            with self._data.open("ab") as file:
                file.truncate(len(self._rows) * size)
                file.write(np.ascontiguousarray(features, dtype=np.float32).tobytes())
            with self._index.open("ab") as file:
                file.truncate(len(self._rows) * NAME)
                file.write("".join(f"{image.digest}\n" for image in images).encode())
        self._name([image.digest for image in images])

    def _name(self, digests: Sequence[str]) -> None:
        first = len(self._rows)
        self._rows.update({digest: first + i for i, digest in enumerate(digests)})

    def _refresh(self) -> None:
        """Reads the names that were added since the last look, by this process or another."""
        if self._index.exists():
            with self._index.open("rb") as file:
                file.seek(len(self._rows) * NAME)
                added = file.read().decode()
            self._name([added[i : i + NAME - 1] for i in range(0, len(added) - NAME + 1, NAME)])
        if self._rows and (self._map is None or len(self._map) < len(self._rows)):
            self._map = np.memmap(
                self._data, dtype=np.float32, mode="r", shape=(len(self._rows), *self._shape)
            )


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Sixteen hex digits over names, shapes, types and bytes of tensors."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        hasher.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}".encode())
        hasher.update(tensor.flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()[:16]
