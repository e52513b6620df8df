"""Raw data of earlier stages, for the methods that keep a share of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING

from moextend.bench.methods.method import Stage

if TYPE_CHECKING:
    from moextend import Conversation


def earlier(
    stage: Stage, drawn: Callable[[Sequence[Conversation]], list[Conversation]]
) -> list[Conversation]:
    """The kept items of all earlier stages; `drawn` gives those of one."""
    return [item for task, _ in stage.earlier for item in drawn(stage.earlier_data(task))]


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


def megabytes(items: Iterable[Conversation]) -> float:
    """Size of items, in 10^6 bytes: their text in UTF-8, and their media as they are encoded."""
    words = sum(len(part.encode()) for item in items for turn in item.turns for part in turn)
    return (words + sum(len(ref.read()) for item in items for ref in item.media)) / 1e6
