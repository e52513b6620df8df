"""Size of an image encoder by its name; no weights are downloaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

ASSUMED_TOKENS = 576
"""Tokens of an image where the encoder is not known: those of a ViT-L/14 at 336 pixels."""
ASSUMED_WIDTH = 1024
"""Width of a feature there."""


@dataclass(frozen=True)
class EncoderSize:
    """Size of an image encoder."""

    tokens: int
    """Of an image."""
    width: int
    """Numbers of a token."""
    parameters: int | None = None
    """None: not known."""
    operations: float | None = None
    """Of an image. None: not known."""


@cache
def image_encoder(name: str) -> EncoderSize:
    """Size of encoder `name`; of an unknown one the assumed tokens and width.

    Unknown is one whose shape only the hub or a folder to come has.
    """
    try:
        return _measured(name)
    except Exception:  # a name that only a download explains, or a tower that does not run on device meta
        return EncoderSize(ASSUMED_TOKENS, ASSUMED_WIDTH)


def _measured(name: str) -> EncoderSize:
    import torch

    from moextend.model import encoders, vision
    from moextend.training import flops
    from moextend.util.quiet import quiet_loggers

    source = encoders.find_tower(name)
    if source.model.startswith(encoders.HUB) or "hf-hub:" in source.model:
        raise ValueError("only the hub knows its shape")
    with quiet_loggers("open_clip", "timm", "root"), torch.device("meta"):
        tower, (height, width) = _empty(source)
    tower = tower.to("meta").eval()
    pixels = torch.empty(1, 3, height, width, device="meta")
    read = vision._reader(tower, pixels)
    with torch.no_grad(), flops.Counter() as count:
        found = read(tower, pixels)
    tokens = found.shape[1] if source.grid is None else math.prod(source.grid)
    return EncoderSize(tokens, found.shape[2], sum(p.numel() for p in tower.parameters()), float(count.total))


def _empty(source: Any) -> tuple[Any, tuple[int, int]]:
    """The tower without weights, and height and width of its input."""
    if source.library == "timm":
        import timm

        trunk: Any = timm.create_model(source.model, pretrained=False)
        height, width = trunk.default_cfg["input_size"][1:]
        return trunk, (height, width)
    import open_clip

    clip = open_clip.create_model(source.model, load_weights=False, device="meta")
    size = clip.visual.image_size
    return clip.visual, (size, size) if isinstance(size, int) else tuple(size)
