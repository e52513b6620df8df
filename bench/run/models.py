"""The models of a run: the base it starts from, and what it was after each stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import moextend
from moextend.bench.data import data_digest
from moextend.bench.methods.method import Stage
from moextend.bench.run import alignment
from moextend.bench.run.config import JOINT
from moextend.bench.run.context import Work
from moextend.bench.run.progress import Progress, Unit
from moextend.bench.run.rundir import RunDir
from moextend.bench.run.stage_data import StageData, conversations, stage_data, stage_seed
from moextend.errors import InputError
from moextend.extension import store

if TYPE_CHECKING:
    from moextend import MultimodalLM

NOTHING = StageData((), ())
"""What a stage is learned from, where it is only restored."""


def base(work: Work, progress: Progress | None = None) -> MultimodalLM:
    """The base model on its device, its projector aligned."""
    import torch

    from moextend.model.vision import FeatureStore

    spec, settings = work.sequence.base, work.sequence.align
    device = work.config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = moextend.load(
        spec.found(work.workspace),
        vision=spec.vision,
        resize=spec.resize,
        revision=spec.revision,
        dtype=spec.dtype,
        attn_implementation=spec.attn_implementation,
        device=device,
        chat=spec.chat,
    )
    if spec.upcycle is not None:
        model = moextend.upcycle(model, **spec.upcycle.model_dump(), keep_dense=False)
    work.run.record_environment(device=device, threads=torch.get_num_threads())
    if model.vision is not None:
        model.features = FeatureStore(model.vision, work.cache / "features")
    if settings is not None:
        unit = Unit("align", 0, settings.task, settings.steps)
        if progress:
            progress.begin(unit)
        task = work.tasks[settings.task]
        alignment.align(
            model,
            conversations(task, work.workspace),
            settings,
            seed=work.config.seed,
            data_name=f"{data_digest(task, 'train', work.workspace)} {task.prompt}",
            cache=work.cache / "aligned",
            on_step=progress.follow(unit) if progress else lambda done, total: None,
        )
        if progress:
            progress.finish(unit)
    return model


def restored(run: RunDir, *, stage: int | None = None, task: str = "") -> MultimodalLM:
    """The model as a run left it after a stage (None: the last), ready for inputs of `task`.

    A method that is told the task answers an unknown one, such as a text task, with the base.

    Raises:
        InputError: the run has not learned that stage.
    """
    work = Work(run)
    last = len(work.stages) if stage is None else stage
    if not 0 <= last <= len(work.stages):
        raise InputError(f"the run has stages 0 to {len(work.stages)}, not {last}.", where=str(run.folder))
    model, learned = base(work), list[str]()
    work.method.start(model, work.config.seed)
    for index in range(1, last + 1):
        name = stage_name(work.stages[index - 1])
        if work.config.mode == "independent" and learned:
            model, learned = base(work), []
            work.method.start(model, work.config.seed)
        found = stage_of(work, index, work.stages[index - 1], learned, NOTHING)
        if not store.is_whole(found.folder):
            raise InputError(
                f"stage {index} ({name}) is not learned yet.",
                where=str(run.folder),
                hint="Run it to its end, or name an earlier stage.",
            )
        work.method.restore(model, found)
        learned.append(name)
    if learned:
        work.method.select(model, task, learned)
    return model


def stage_of(
    work: Work, index: int, names: Sequence[str], learned: Sequence[str], data: StageData | None = None
) -> Stage:
    """A stage with all that it is learned from; with `data` only that."""
    name = stage_name(names)
    seed = stage_seed(work.config.seed, name)
    data = data or learning_data(work, names, seed)
    return Stage(
        index, name, data.learn, data.held_out, work.generic, seed, work.run.stage_folder(index, name),
        earlier=[(task, work.run.stage_folder(i, task)) for i, task in enumerate(learned, 1)],
        earlier_data=lambda task: learning_data(work, [task], stage_seed(work.config.seed, task)).learn,
        batch_size=work.sequence.train.batch_size,
    )  # fmt: skip


def stage_name(names: Sequence[str]) -> str:
    """The task of a stage, or what stands for all tasks at once."""
    return names[0] if len(names) == 1 else JOINT


def learning_data(work: Work, names: Sequence[str], seed: int) -> StageData:
    """What there is to learn from these tasks."""
    return stage_data([work.tasks[task] for task in names], work.workspace, seed)
