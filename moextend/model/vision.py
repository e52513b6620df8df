"""Frozen image encoders."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from moextend.data.images import ImageRef
from moextend.errors import InputError
from moextend.model import encoders
from moextend.model.encoders import Resize
from moextend.model.fingerprint import tensors_digest
from moextend.util import files, hub_errors


class VisionEncoder(nn.Module):
    """A frozen image tower as a source of visual tokens.

    A transformer returns the patch tokens of its penultimate block, without class and register tokens and before any
    final norm (like LLaVA). A network of timm with feature maps returns the last one with one token per cell, row by
    row.
    """

    def __init__(self, tower: encoders.Tower) -> None:
        super().__init__()
        self.tower, self.preprocess, self.facts = tower.module, tower.preprocess, tower.facts
        self.requires_grad_(False).eval()
        blank = torch.zeros(1, 3, *tower.size)
        self._read = _reader(self.tower, blank)
        self._size = tower.size
        self._cells: tuple[int, int] | None = None
        self._grid: tuple[int, int] | None = None
        self.tokens: int
        self.width: int
        self.tokens, self.width = self._patches(blank).shape[1:]

    def pool(self, rows: int, columns: int, *, where: str | None = None) -> None:
        """From now on the tower's tokens are averaged to this grid.

        This is adaptive average pooling in two dimensions (Yao et al. 2024, arXiv 2405.20985).

        Raises:
            InputError: the tower's tokens are not in a grid, or in one with fewer rows or columns.
        """
        self._cells = _cells(self.tokens, self._size, (rows, columns), where)
        self._grid, self.tokens = (rows, columns), rows * columns

    @torch.no_grad()
    def forward(self, images: Sequence[ImageRef]) -> Tensor:
        """Visual tokens [images, tokens, width], float32."""
        distinct = {id(image): image for image in images}  # a FeatureStore fills batches up with one image
        pixels = {key: self.preprocess(image.open()) for key, image in distinct.items()}
        batch = torch.stack([pixels[id(image)] for image in images])
        weight = next(self.tower.parameters())
        return self._patches(batch.to(weight.device, weight.dtype))

    def tokens_of(self, image: ImageRef) -> int:
        """Number of tokens of an image: that of all images."""
        return self.tokens

    def train(self, mode: bool = True) -> VisionEncoder:
        """Stays in eval mode, also inside a model in training: a frozen encoder is deterministic."""
        return super().train(False)

    @torch.no_grad()
    def _patches(self, pixels: Tensor) -> Tensor:
        found = self._read(self.tower, pixels).float()
        if self._cells is None:
            return found
        cells = found.mT.unflatten(2, self._cells)
        return nn.functional.adaptive_avg_pool2d(cells, self._grid).flatten(2).mT

    def fingerprint(self) -> str:
        """Sixteen hex digits over weights, architecture, pre-processing and pooling."""
        pooling = {"grid": self._grid} if self._grid else {}
        facts = json.dumps({**self.facts, **pooling}, sort_keys=True, default=str)
        return files.digest(tensors_digest(self.tower.state_dict()), facts, self._read.__name__)


def load_encoder(name: str, resize: Resize | None = None) -> VisionEncoder:
    """Encoder `name`: of the package ("tiny"), a local folder, or of open_clip or timm (see docs/modalities.md).

    `resize`: how images become square; None: as in the encoder's own config. Only names of the forms
    `<model>/<pretrained>`, `hf-hub:...` and `timm:<model>` may download. ":<rows>x<columns>" at the end of a name pools
    the tokens to such a grid.
    """
    source, where = encoders.find_tower(name), f"vision encoder '{name}'"
    tower = encoders.make(source, resize)
    hint = "Choose a transformer of at least two blocks, or a convolutional network of timm."
    with hub_errors.explained("gives no visual tokens", where=where, hint=hint):
        encoder = VisionEncoder(tower)
    if source.grid:
        encoder.pool(*source.grid, where=where)
    return encoder


def _cells(tokens: int, size: tuple[int, int], grid: tuple[int, int], where: str | None) -> tuple[int, int]:
    """Rows and columns of a tower's tokens for an input of `size` pixels; InputError if `grid` is none of them."""
    rows = round(math.sqrt(tokens * size[0] / size[1]))
    columns = tokens // max(1, rows)
    if rows * columns != tokens or grid[0] > rows or grid[1] > columns:
        held = (
            f"{rows}x{columns} tokens" if rows * columns == tokens else f"{tokens} tokens that form no grid"
        )
        raise InputError(
            f"gives {held}, and {grid[0]}x{grid[1]} were requested.",
            where=where,
            hint="Ask for as many rows and columns at most, or leave the grid out.",
        )
    return rows, columns


def _reader(tower: Any, blank: Tensor) -> Callable[[Any, Tensor], Tensor]:
    """Function that computes the visual tokens of this kind of tower: (tower, pixels) -> [B, tokens, width]."""
    if hasattr(tower, "transformer"):
        return _penultimate_of_clip
    with torch.no_grad():
        last = getattr(tower, "trunk", tower).forward_features(blank)
    return _last_map_of_timm if last.dim() == 4 else _penultimate_of_timm


def _penultimate_of_clip(tower: Any, pixels: Tensor) -> Tensor:
    """Tokens of open_clip's own vision transformer."""
    out = tower.forward_intermediates(
        pixels, indices=[-2], intermediates_only=True, stop_early=True, output_fmt="NLC"
    )
    return cast(Tensor, out["image_intermediates"][-1])


def _penultimate_of_timm(tower: Any, pixels: Tensor) -> Tensor:
    """Tokens of a timm transformer, alone or inside open_clip."""
    trunk = getattr(tower, "trunk", tower)
    out = trunk.forward_intermediates(
        pixels, indices=[-2], intermediates_only=True, stop_early=True, output_fmt="NLC"
    )
    return cast(Tensor, out[-1])


def _last_map_of_timm(tower: Any, pixels: Tensor) -> Tensor:
    """Tokens of a timm network with a final feature map (convolutional, or a hierarchical transformer)."""
    trunk = getattr(tower, "trunk", tower)
    found = cast(Tensor, trunk.forward_features(pixels))
    if str(getattr(trunk, "output_fmt", "NCHW")).endswith("NHWC"):
        return found.flatten(1, 2)
    return found.flatten(2).mT
