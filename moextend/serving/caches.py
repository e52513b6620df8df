"""Rows that join and leave a key-value cache of transformers (DynamicCache); all are padded on the left."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def new_cache(lm: Any) -> Any:
    """An empty cache for a language model, as its `generate` makes one."""
    from transformers import DynamicCache

    return DynamicCache(config=lm.config)


def argument(decoder: Any) -> str:
    """Name of a decoder's argument for the cache: it was renamed in transformers 5.24."""
    return "cache" if "cache" in signature(decoder.forward).parameters else "past_key_values"


def is_flexible(cache: Any) -> bool:
    """Whether rows may join and leave: each layer holds keys and values by position, and nothing else."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)


def keep(cache: Any, rows: Tensor, length: int, first: int) -> None:
    """Keeps these rows of a flexible cache of `length` positions, without its first positions, which are padding."""
    for layer in _filled(cache):
        held = _held(layer, length - first)
        for name in ("keys", "values"):
            values = getattr(layer, name)
            setattr(layer, name, values[rows, :, values.shape[-2] - held :])
        _set_length(layer, length - first)


def join(cache: Any, other: Any, length: int, others: int) -> None:
    """Appends the rows of `other`, of `others` positions, to a flexible cache of `length` positions."""
    most = max(length, others)
    for layer, added in zip(_filled(cache), _filled(other), strict=True):
        held = _held(layer, most)
        for name in ("keys", "values"):
            both = [_padded(getattr(each, name), held) for each in (layer, added)]
            setattr(layer, name, torch.cat(both))
        _set_length(layer, most)


def _filled(cache: Any) -> list[Any]:
    return [layer for layer in cache.layers if layer.is_initialized]


def _held(layer: Any, length: int) -> int:
    """Number of positions that a layer holds of `length` ones: a sliding window holds the latest."""
    return min(length, layer.sliding_window - 1) if layer.is_sliding else length


def _padded(values: Tensor, held: int) -> Tensor:
    return F.pad(values, (0, 0, held - values.shape[-2], 0))


def _set_length(layer: Any, length: int) -> None:
    if layer.is_sliding:
        layer.cumulative_length = length
