"""Data of each stage: a task's training items as conversations, without the held-out ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.data import conversations
from moextend.bench.sequence import memory_texts
from moextend.bench.task import TaskSpec
from moextend.training.splits import hold_out
from moextend.util import files

if TYPE_CHECKING:
    from moextend import Conversation


@dataclass(frozen=True)
class StageData:
    """S_t and S_e of a stage (MoExtend section 3.2): no method trains on held-out items in this stage."""

    learn: Sequence[Conversation]
    held_out: Sequence[Conversation]


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
