"""The models of a run: its base, and the model after each stage."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

import moextend
from moextend.bench.data import conversations, data_digest
from moextend.bench.methods.method import Stage
from moextend.bench.run import shared, together
from moextend.bench.run.complete import stage_problem
from moextend.bench.run.config import JOINT, stage_name
from moextend.bench.run.context import RunContext, refuse_data_changed_meanwhile
from moextend.bench.run.inputs import (
    base_revision,
    checkpoint_digest,
    checkpoint_of,
    checkpoint_revision,
    encoder_revisions,
)
from moextend.bench.run.progress import Progress, Unit
from moextend.bench.run.rundir import RunDir
from moextend.bench.run.stage import StageData, stage_data, stage_seed
from moextend.bench.score.checkpoint import LoadedCheckpoint, ServedCheckpoint
from moextend.bench.score.served.answers import ServedModel
from moextend.bench.score.served.client import Client
from moextend.bench.sequence import Align
from moextend.errors import InputError, at
from moextend.extension import tensor_files
from moextend.model.feature_cache import store_features
from moextend.model.loading import load_tokenizer, load_whole, skeleton
from moextend.model.sources import device_of
from moextend.util import files

if TYPE_CHECKING:
    from moextend import MultimodalLM
    from moextend.bench.task import TaskSpec

NOTHING = StageData((), ())
"""Data of a stage that is only restored."""


def base(context: RunContext, progress: Progress | None = None) -> MultimodalLM:
    """The base model on its device, with the encoders of its modalities and aligned projectors."""
    spec = context.sequence.base
    if progress:
        progress.aside("load", spec.model)
    device = device_of(context.config.device)
    revision = base_revision(context.run, spec, context.workspace)
    encoders = spec.encoders_in(context.workspace)
    with encoder_revisions(context.run, encoders):
        model = moextend.load(
            spec.found(context.workspace), vision=encoders.pop("image", None), audio=encoders.pop("audio", None),
            encoders=encoders, resize=spec.resize, revision=revision, dtype=spec.dtype,
            attn_implementation=spec.attn_implementation, device=device, chat=spec.chat,
            quantize=None if spec.upcycle else spec.quantize,
        )  # fmt: skip
    if spec.upcycle is not None:
        model = moextend.upcycle(model, **spec.upcycle.model_dump(exclude={"rows"}), keep_dense=False)
        if spec.quantize is not None:
            from moextend.model.quantising import quantise

            model = quantise(model, spec.quantize)
    if context.config.deterministic and device != "cpu":
        model.lm.set_experts_implementation("eager")  # the grouped kernels are not deterministic
    more: dict[str, Any] = {"deterministic": True} if context.config.deterministic else {}
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {}
    if progress:  # not of who only reads the run
        with at(f"method '{context.config.method}'"):
            context.method.check(model)
        several, last = together.launcher(), (context.run.environments or [{}])[-1]
        more |= {"processes": several} if several or "processes" in last else {}
        context.run.record_environment(device=device, threads=torch.get_num_threads(), **gpu, **more)
    store_features(model, context.cache / "features")
    for settings in context.sequence.align:
        _align(context, model, settings, progress)
    return model


def checkpoint(context: RunContext, stage: int, progress: Progress | None = None) -> Any:
    """The model of a stage that was trained elsewhere, on its device: a LoadedCheckpoint, or an extended model."""
    spec, run = context.config.checkpoints[stage], context.run
    if progress:
        progress.aside("load", spec.word)
    device = device_of(context.config.device)
    revision, size = checkpoint_revision(run, stage), context.sequence.scoring.batch_size
    how = spec.model_dump(include={"dtype", "attn_implementation"})
    with at(checkpoint_of(stage)):
        if spec.server is not None:
            tokenizer, lm = load_tokenizer(str(spec.processor)), skeleton(str(spec.processor))
            served = ServedModel(Client(spec.server), spec.model)
            model: Any = ServedCheckpoint(lm, tokenizer, size, server=served)
        elif spec.is_extended:
            how["dtype"] = None if spec.dtype == "auto" else spec.dtype
            model = moextend.load_model(spec.model, device=device, revision=revision, **how)
        else:
            how |= spec.model_dump(include={"adapter", "processor", "trust_remote_code"})
            model = LoadedCheckpoint(*load_whole(spec.model, device=device, revision=revision, **how), size)
    if progress:
        gpu = {"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {}
        run.record_environment(device=device, threads=torch.get_num_threads(), **gpu)
    context.answering = checkpoint_digest(run, stage)
    return model


def _align(context: RunContext, model: MultimodalLM, settings: Align, progress: Progress | None) -> None:
    """Aligns the projector of one modality."""
    unit = Unit("align", 0, settings.task, settings.steps)
    if progress:
        progress.begin(unit)
    task = context.tasks[settings.task]
    check = partial(refuse_data_changed_meanwhile, context, (settings.task, "train"))
    check()
    (modality,) = task.modalities
    digest = data_digest(task, "train", context.workspace)
    context.alignments[modality] = shared.align(
        model, conversations(task, context.workspace), settings, modality=modality, seed=context.config.seed,
        data_name=files.digest(digest, task.prompt, task.columns.model_dump(mode="json"), task.reading()),
        check=check, store=context.store,
        on_step=progress.follow(unit) if progress else lambda done, total: None,
        on_wait=partial(progress.aside, "wait") if progress else None,
    )  # fmt: skip
    if progress:
        progress.finish(unit)


def restored(run: RunDir, *, stage: int | None = None, task: str = "") -> MultimodalLM:
    """The model of a run after a stage (None: the last), prepared for inputs of `task`.

    A method that is given the task uses the base for an unknown one, such as a text task.

    Raises:
        InputError: the run has not learned that stage.
    """
    context = RunContext(run)
    refuse_scored(run)
    last = len(context.stages) if stage is None else stage
    if not 0 <= last <= len(context.stages):
        raise InputError(
            f"the run has stages 0 to {len(context.stages)}, not {last}.",
            where=str(run.folder),
            hint="Choose one.",
        )
    _, model, learned = deque(restored_stages(context, last), maxlen=1).pop()
    if learned:
        context.method.select(model, _last_visit(context, task, learned), learned)
    return model


def refuse_scored(run: RunDir) -> None:
    """Raises InputError for a run that only scored: its models are not of this package."""
    if run.config.scored:
        raise InputError(
            "scored models that were trained elsewhere, and holds none.",
            where=str(run.folder),
            hint="Load the checkpoint of the stage itself; moextend bench explain names it.",
        )


def restored_stages(
    context: RunContext, last: int, *, scaled: bool = False
) -> Iterator[tuple[int, MultimodalLM, list[str]]]:
    """Yields (stage, model, learned tasks) for the base (stage 0) and every stage up to `last`, in order.

    It is one model object, brought from stage to stage, unless the stages are independent.

    Args:
        scaled: whether the method will scale what the stages learned (`Method.scale`).

    Raises:
        InputError: the run has not learned a stage.
    """
    if context.config.scored:
        for index in range(min(last + 1, len(context.config.checkpoints))):
            yield index, checkpoint(context, index), []
        return
    run, model, learned = context.run, base(context), list[str]()
    context.method.start(model, context.config.seed)
    if scaled:
        context.method.keep_base(model)
    yield 0, model, []
    for index in range(1, last + 1):
        name = stage_name(context.stages[index - 1])
        if context.config.mode == "independent" and learned:
            model, learned = base(context), []
            context.method.start(model, context.config.seed)
        found = stage_of(context, index, context.stages[index - 1], learned, NOTHING)
        if not tensor_files.is_complete(found.folder):
            run.check_has("weights")
            raise InputError(
                f"stage {index} ({name}) is not trained yet.",
                where=str(run.folder),
                hint="Finish the run, or name an earlier stage.",
            )
        if problem := stage_problem(found.folder, run.id, costs=False):
            raise InputError(
                f"stage {index} ({name}): {problem.rstrip('.')}.",
                where=str(run.folder),
                hint="Run the same command again (moextend bench run), which trains the stage again.",
            )
        context.method.restore(model, found)
        learned.append(name)
        yield index, model, list(learned)


def stage_of(
    context: RunContext,
    index: int,
    names: Sequence[str],
    learned: Sequence[str],
    data: StageData | None = None,
) -> Stage:
    """A stage with its data; `data`: this instead."""
    name = stage_name(names)
    seed = stage_seed(context.config.seed, name)
    data = data or learning_data(context, names, seed)
    return Stage(
        index, name, data.learn, data.held_out, context.generic, seed, context.run.stage_folder(index, name),
        earlier=[(task, context.run.stage_folder(i, task)) for i, task in enumerate(learned, 1)],
        earlier_data=lambda task: learning_data(context, [task], stage_seed(context.config.seed, task)).learn,
        batch_size=context.sequence.train.batch_size,
    )  # fmt: skip


def asked_for(context: RunContext, task: str, learned: Sequence[str]) -> str:
    """Stage whose inputs those of a task are, for `Method.select`: of several visits of a task the last one so far."""
    if context.config.mode == "joint" and context.tasks[task].kind != "text":
        return JOINT
    return _last_visit(context, task, learned)


def _last_visit(context: RunContext, task: str, learned: Sequence[str]) -> str:
    visited = context.config.visited
    return next((stage for stage in reversed(learned) if visited(stage) == visited(task)), task)


def learning_data(context: RunContext, names: Sequence[str], seed: int) -> StageData:
    """Training data of these tasks; a task that is visited several times is taken once."""
    once: dict[str, TaskSpec] = {}
    for name in names:
        once.setdefault(context.config.visited(name), context.tasks[name])
    return stage_data(list(once.values()), context.workspace, seed)
