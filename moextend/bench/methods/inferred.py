"""Task inference for methods: the task is inferred from the input (see `moextend.extension.task_inference`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from moextend.bench.methods.method import Stage

if TYPE_CHECKING:
    from moextend import MultimodalLM
    from moextend.extension.task_inference import TaskInference

ACCURACY = "task_inference_accuracy"
"""Key among the notes of a stage's costs: task -> share of its held-out inputs that are nearest to it."""

FILE = "task_statistics.safetensors"
"""File of the task statistics (task_inference.FILE)."""

Reaching = Callable[[Sequence[str]], AbstractContextManager[None]]


def stored(model: Any) -> int:
    """Bytes of the task statistics of a stage: mean and scatter of features, and those of held-out inputs."""
    from moextend.extension.task_inference import INPUTS, TESTED

    width, inputs = int(model.width_of_features), min(INPUTS, model.items)
    return int(4 * width * (1 + (width + 1) / 2 + min(TESTED, inputs // 2)))


def facts(model: MultimodalLM, stage: Stage) -> dict[str, Any]:
    """Writes the task statistics of the stage; returns facts to record: how well they separate the tasks so far."""
    from moextend.extension import task_inference

    prompts = task_inference.inputs_of(stage.held_out, stage.data)
    task_inference.write(task_inference.collect(model, prompts), stage.folder)
    folders = [*stage.earlier, (stage.task, stage.folder)]
    return {
        ACCURACY: task_inference.accuracy({task: task_inference.read(folder) for task, folder in folders})
    }


def choose(model: MultimodalLM, stage: Stage, reaching: Reaching | None = None) -> None:
    """Makes the model choose one of the stages so far, or none, for each input."""
    from moextend.extension import task_inference

    folders = [*stage.earlier, (stage.task, stage.folder)]
    statistics = {task: task_inference.read(folder) for task, folder in folders}
    model.choose = task_inference.TaskInference(model, statistics, reaching)


class Narrowed:
    """Mixin of methods that infer the task: chooses among some of the stages."""

    _full: TaskInference | None = None
    """The choice among all stages."""

    def _narrowed(self, model: MultimodalLM, names: Sequence[str]) -> str:
        """Makes the model choose among the stages `names`, or none of them; returns the fingerprint of the choice."""
        from moextend.extension import task_inference

        if self._full is None:
            assert isinstance(model.choose, task_inference.TaskInference), "restore and save set it"
            self._full = model.choose
        full = self._full
        kept = {name: own for name, own in full.statistics.items() if name in names}
        same = len(kept) == len(full.statistics)
        model.choose = full if same else task_inference.TaskInference(model, kept, full.reaching)
        return str(model.choose.fingerprint())
