"""The part of conversations that is held out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from moextend.data.conversations import Conversation, Lazy

HELD_OUT = 512
"""Conversations that are held out at the most; never more than a tenth, but one at the least."""


class Chosen(Lazy):
    """Some conversations of one or several sequences of them, by (sequence, place)."""

    def __init__(self, parts: Sequence[Sequence[Conversation]], places: Sequence[tuple[int, int]]) -> None:
        self._parts, self._places = parts, places

    def __len__(self) -> int:
        return len(self._places)

    def _one(self, at: int) -> Conversation:
        part, place = self._places[at]
        return self._parts[part][place]


def complete(part: Sequence[Conversation]) -> Sequence[Conversation]:
    """All of a sequence, read one by one: it need not know slices."""
    return Chosen([part], [(0, place) for place in range(len(part))])


def hold_out(
    parts: Sequence[Sequence[Conversation]], seed: int
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """S_t and S_e of MoExtend, section 3.2: what may be learned, and a part of each sequence that never is.

    Both are drawn by the seed alone, and read when they are asked for.
    """
    learn: list[tuple[int, int]] = []
    held_out: list[tuple[int, int]] = []
    for i, part in enumerate(parts):
        drawn = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed)).tolist()
        cut = min(HELD_OUT, max(len(part) // 10, 1), len(part) - 1)
        held_out += [(i, place) for place in drawn[:cut]]
        learn += [(i, place) for place in sorted(drawn[cut:])]
    return Chosen(parts, learn), Chosen(parts, held_out)
