"""What methods share that find a task out from the input itself (see `moextend.extension.task_inference`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from moextend.bench.methods.method import Stage

if TYPE_CHECKING:
    from moextend import MultimodalLM

Reaching = Callable[[Sequence[str]], AbstractContextManager[None]]


def portray(model: MultimodalLM, stage: Stage) -> dict[str, float]:
    """Keeps what the stage's inputs look like; the share of each task's held-out inputs that are nearest to it."""
    from moextend.extension import task_inference

    prompts = task_inference.prompts_of(stage.held_out)
    task_inference.write(task_inference.portray(model, prompts), stage.folder)
    folders = [*stage.earlier, (stage.task, stage.folder)]
    return task_inference.accuracy({task: task_inference.read(folder) for task, folder in folders})


def choose(model: MultimodalLM, stage: Stage, reaching: Reaching | None = None) -> None:
    """From now on the model chooses among the stages so far, or none of them, input by input."""
    from moextend.extension import task_inference

    folders = [*stage.earlier, (stage.task, stage.folder)]
    portraits = {task: task_inference.read(folder) for task, folder in folders}
    model.choose = task_inference.Recogniser(model, portraits, reaching)
