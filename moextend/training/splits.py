"""The held-out part of conversations."""

from __future__ import annotations

from collections.abc import Sequence

from moextend.data.conversations import Conversation, Lazy

HELD_OUT = 512
"""Maximum number of held-out conversations; also at most a tenth, but at least one."""


class Chosen(Lazy):
    """Some conversations of one or several sequences, by (sequence, index)."""

    def __init__(self, parts: Sequence[Sequence[Conversation]], places: Sequence[tuple[int, int]]) -> None:
        self._parts, self._places = parts, places

    def __len__(self) -> int:
        return len(self._places)

    def _one(self, at: int) -> Conversation:
        part, place = self._places[at]
        return self._parts[part][place]


def complete(part: Sequence[Conversation]) -> Sequence[Conversation]:
    """All conversations of a sequence, read one by one; the sequence does not need slices."""
    return Chosen([part], [(0, place) for place in range(len(part))])


def held_out(conversations: int) -> int:
    """Number of conversations that are held out of a sequence of them."""
    return max(0, min(HELD_OUT, max(conversations // 10, 1), conversations - 1))


def hold_out(
    parts: Sequence[Sequence[Conversation]], seed: int
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """S_t and S_e of MoExtend, section 3.2: conversations for training, and a held-out part of each sequence.

    Both depend on the seed only, and are read lazily.
    """
    import torch  # here: a preview only asks how many are held out

    learn: list[tuple[int, int]] = []
    held: list[tuple[int, int]] = []
    for i, part in enumerate(parts):
        drawn = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed)).tolist()
        cut = held_out(len(part))
        held += [(i, place) for place in drawn[:cut]]
        learn += [(i, place) for place in sorted(drawn[cut:])]
    return Chosen(parts, learn), Chosen(parts, held)
