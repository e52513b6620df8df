"""Data of each stage: a task's training items as conversations, without the held-out ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.data import Item, guess_task, open_items, prompt_text, target_text, turns
from moextend.bench.sequence import memory_texts
from moextend.bench.task import TaskSpec
from moextend.data.source import parse_split
from moextend.training.splits import Lazy, hold_out
from moextend.util import files

if TYPE_CHECKING:
    from moextend import Conversation

TURNS = 4
"""Maximum number of questions about one image in one conversation."""


class Conversations(Lazy):
    """Groups of items of a task as conversations, read lazily."""

    def __init__(self, task: TaskSpec, groups: Sequence[tuple[Item, ...]]) -> None:
        self._task, self._groups = task, groups

    def __len__(self) -> int:
        return len(self._groups)

    def _one(self, at: int) -> Conversation:
        return as_conversation(self._task, self._groups[at])


@dataclass(frozen=True)
class StageData:
    """S_t and S_e of a stage (MoExtend section 3.2): no method trains on held-out items."""

    learn: Sequence[Conversation]
    held_out: Sequence[Conversation]


def as_conversation(task: TaskSpec, items: Sequence[Item]) -> Conversation:
    """Items of one image as turns of one conversation; only the first turn has the image."""
    from moextend import Conversation

    first, *rest = items
    asked = [(prompt_text(task, first), target_text(task, first))]
    asked += [(prompt_text(task, replace(item, images=())), target_text(task, item)) for item in rest]
    return Conversation(tuple(asked), first.images)


def conversations(task: TaskSpec, workspace: Path) -> Conversations:
    """All training conversations of a task."""
    return Conversations(task, turns(open_items(task, "train", workspace), TURNS))


def own_data(
    data: str,
    workspace: Path,
    *,
    columns: Mapping[str, str],
    template: str | None = None,
    images: Path | None = None,
) -> Conversations:
    """All rows of a user's data (file, folder, hub id) as conversations, with the guesses of `add-task`.

    `columns`: role -> column; without a column of images the data is text. `template`: the prompt, e.g.
    "<image> {question}"; with it no column of questions is needed. `images`: a folder of images besides that of the
    data; files in other places are refused.
    """
    needs = ("answer",) if template else ("answer", "question")
    task = guess_task(data, name="data", workspace=workspace, columns=columns, needs=needs)
    assert task.data is not None
    split = parse_split(task.data.train or task.data.test, where=data).split
    chosen = task.data.model_copy(
        update={"train": split, "images": str(images.resolve()) if images else None}
    )
    return conversations(
        task.model_copy(update={"data": chosen, "prompt": template or task.prompt}), workspace
    )


def stage_data(tasks: Sequence[TaskSpec], workspace: Path, seed: int) -> StageData:
    """Training data of one task, or of several at once (joint training)."""
    return StageData(*hold_out([conversations(task, workspace) for task in tasks], seed))


def generic_text(path: Path | None) -> list[Conversation]:
    """Lines of a sequence's generic text, without labels."""
    from moextend import Conversation

    return [Conversation(((text, ""),)) for text in memory_texts(path)]


def stage_seed(seed: int, task: str) -> int:
    """Seed of a stage from the run's seed and the task, so that it is the same in every order."""
    return int(files.digest(seed, task)[:7], 16)
