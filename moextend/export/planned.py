"""What an export would write, from the config of the base and the cards of the extensions: nothing is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from moextend.export import shards
from moextend.export.stock import stock_model
from moextend.extension import store
from moextend.extension.card import Card, read_extension
from moextend.model.loading import skeleton
from moextend.moe import attach


def planned_stock(
    base: str,
    folders: Sequence[Path],
    *,
    dtype: str | None = None,
    revision: str | None = None,
    max_shard_size: str = shards.SHARD,
) -> shards.Plan:
    """The checkpoint that `save_stock` would write for `base` with the extensions in `folders`, oldest first.

    Its tensors are on device meta. Digests and fingerprints are not compared.

    Args:
        dtype: number type of the base, as in `moextend.load`; None: that of the first extension's base.

    Raises:
        InputError: no stock class computes exactly the same, or a folder holds no extension, or does not fit the base.
    """
    cards = [read_extension(folder) for folder in folders]
    lm = skeleton(base, revision=revision)
    wanted = dtype or dtype_of(cards)
    if wanted != "auto":  # else that of its config
        lm.to(getattr(torch, wanted))
    for card in cards:
        store.attach_empty(lm, card, card.name, [each["name"] for each in card.beside])
    attach.activate(lm, attach.scope_of(lm).known)
    return shards.plan(stock_model(lm), max_shard_size)


def dtype_of(cards: Sequence[Card]) -> str:
    """Number type of the base that the extensions were made on."""
    return next((card.base_dtype for card in cards if card.base_dtype), "float32")
