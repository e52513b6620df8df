"""Raw data of earlier stages, for the methods that keep a share of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moextend import Conversation
    from moextend.bench.methods.method import Stage


def drawn(data: Sequence[Conversation], share: float, mb: float | None = None) -> list[Conversation]:
    """The kept items of a stage, a share or `mb` megabytes, at least one item.

    They depend on its data alone, so that every stage keeps the same ones.
    """
    import torch

    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(len(data))).tolist()
    count = round(share * len(data))
    if mb is not None:
        sizes = accumulate(megabytes([data[place]]) for place in order)
        count = sum(1 for _ in takewhile(lambda size: size <= mb, sizes))
    return [data[place] for place in order[: max(1, count)]]


def texts(stage: Stage) -> list[Conversation]:
    """The sequence's generic text, to learn."""
    from moextend import Conversation

    lines = ["".join(part for turn in row.turns for part in turn) for row in stage.generic]
    return [Conversation((("", line),), closed=False) for line in lines]


def spread(items: Sequence[Conversation], count: int) -> list[Conversation]:
    """So many of the items, at equal distances; all of them equally often, up to one, if there are fewer."""
    return [items[place * len(items) // count] for place in range(count)] if items else []


def megabytes(items: Iterable[Conversation]) -> float:
    """Size of items, in 10^6 bytes: their text in UTF-8, and their media as they are encoded."""
    words = sum(len(part.encode()) for item in items for turn in item.turns for part in turn)
    return (words + sum(len(ref.read()) for item in items for ref in item.media)) / 1e6
