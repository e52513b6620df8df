"""What each stage learns from: a task's training items as conversations, less the held-out ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

from moextend import files
from moextend.bench.data import Item, open_items, prompt_text, target_text, turns
from moextend.bench.task import TaskSpec
from moextend.errors import InputError

if TYPE_CHECKING:
    from moextend import Conversation

TURNS = 4
"""Questions about one image that are learnt as one conversation, at the most."""
HELD_OUT = 512
"""Conversations that are held out of every stage at the most; never more than a tenth."""


class Lazy(Sequence["Conversation"]):
    """Conversations that are made when they are asked for, so that memory does not grow with the data."""

    def _one(self, at: int) -> Conversation:
        raise NotImplementedError

    @overload
    def __getitem__(self, at: int) -> Conversation: ...
    @overload
    def __getitem__(self, at: slice) -> list[Conversation]: ...
    def __getitem__(self, at: int | slice) -> Conversation | list[Conversation]:
        if isinstance(at, slice):
            return [self._one(i) for i in range(*at.indices(len(self)))]
        return self._one(at)

    def __iter__(self) -> Iterator[Conversation]:
        return (self._one(i) for i in range(len(self)))


class Conversations(Lazy):
    """Groups of items of a task as conversations."""

    def __init__(self, task: TaskSpec, groups: Sequence[tuple[Item, ...]]) -> None:
        self._task, self._groups = task, groups

    def __len__(self) -> int:
        return len(self._groups)

    def _one(self, at: int) -> Conversation:
        return as_conversation(self._task, self._groups[at])


class Chosen(Lazy):
    """Some conversations of one or several tasks, by (task, place)."""

    def __init__(self, parts: Sequence[Sequence[Conversation]], places: Sequence[tuple[int, int]]) -> None:
        self._parts, self._places = parts, places

    def __len__(self) -> int:
        return len(self._places)

    def _one(self, at: int) -> Conversation:
        part, place = self._places[at]
        return self._parts[part][place]


@dataclass(frozen=True)
class StageData:
    """S_t and S_e of a stage (MoExtend section 3.2): no held-out item is ever learnt, by any method."""

    learn: Sequence[Conversation]
    held_out: Sequence[Conversation]


def as_conversation(task: TaskSpec, items: Sequence[Item]) -> Conversation:
    """Items of one image as turns of one conversation; the image stands in the first turn only."""
    from moextend import Conversation

    first, *rest = items
    asked = [(prompt_text(task, first), target_text(task, first))]
    asked += [(prompt_text(task, replace(item, images=())), target_text(task, item)) for item in rest]
    return Conversation(tuple(asked), first.images)


def conversations(task: TaskSpec, workspace: Path) -> Conversations:
    """All training conversations of a task."""
    return Conversations(task, turns(open_items(task, "train", workspace), TURNS))


def stage_data(tasks: Sequence[TaskSpec], workspace: Path, seed: int) -> StageData:
    """What there is to learn from one task, or from several at once (joint training)."""
    import torch

    parts = [conversations(task, workspace) for task in tasks]
    learn: list[tuple[int, int]] = []
    held_out: list[tuple[int, int]] = []
    for i, part in enumerate(parts):
        drawn = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed)).tolist()
        cut = min(HELD_OUT, len(part) // 10)
        held_out += [(i, place) for place in drawn[:cut]]
        learn += [(i, place) for place in sorted(drawn[cut:])]
    return StageData(Chosen(parts, learn), Chosen(parts, held_out))


def generic_text(path: Path | None) -> list[Conversation]:
    """The lines of a sequence's generic text, to be read and not learnt."""
    from moextend import Conversation

    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror}).", where=str(path), mend="Check 'memory' of the sequence."
        ) from error
    return [Conversation(((line, ""),)) for line in lines if line.strip()]


def stage_seed(seed: int, task: str) -> int:
    """The seed of a stage: of the run's seed and the task alone, so that it is the same in every order."""
    return int(files.digest(seed, task)[:7], 16)
