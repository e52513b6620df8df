"""Raw data of earlier stages, for the methods that keep a share of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from moextend.bench.methods.method import Stage

if TYPE_CHECKING:
    from moextend import Conversation


def earlier(stage: Stage, share: float) -> list[Conversation]:
    """The kept items of all earlier stages."""
    return [item for task, _ in stage.earlier for item in drawn(stage.earlier_data(task), share)]


def drawn(data: Sequence[Conversation], share: float) -> list[Conversation]:
    """The kept items of a stage: they depend on its data alone, so that every stage keeps the same ones."""
    import torch

    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(len(data)))
    return [data[int(i)] for i in order[: max(1, round(share * len(data)))]]


def megabytes(items: Iterable[Conversation]) -> float:
    """Size of items, in 10^6 bytes: their text in UTF-8, and their media as they are encoded."""
    words = sum(len(part.encode()) for item in items for turn in item.turns for part in turn)
    return (words + sum(len(ref.read()) for item in items for ref in item.media)) / 1e6
