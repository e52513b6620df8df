"""The main job: a method learns a sequence of tasks, and after every stage the model is scored on all of them."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import moextend
from moextend import files
from moextend.bench import alignment, evaluate, vqa
from moextend.bench.data import data_digest
from moextend.bench.methods.method import Stage
from moextend.bench.progress import Progress, Unit
from moextend.bench.rundir import Cell, RunDir
from moextend.bench.stages import conversations, stage_data, stage_seed
from moextend.bench.work import JOINT, PERCENT, Work, plan, refuse_changed_data
from moextend.errors import MoextendError, RunFailed
from moextend.training import Report, train

if TYPE_CHECKING:
    from torch import Tensor

    from moextend import MultimodalLM


def run(folder: Path) -> None:
    """Does what is missing of the run in `folder`; RunFailed, with all else done, where a cell cannot be scored."""
    work = Work(RunDir(folder))
    with work.run.lock(), Progress(folder, plan(work)) as progress:
        _run(work, progress)
        if work.failures:
            raise RunFailed(
                f"{len(work.failures)} cells could not be scored; the first: {work.failures[0]}",
                where=str(folder),
                mend="Mend the cause and run the same command again: only those cells are scored.",
            )


def _run(work: Work, progress: Progress) -> None:
    refuse_changed_data(work)
    model = base(work, progress)
    score_row(work, progress, model, 0, [])
    work.method.start(model, work.settings, work.config.seed)
    learnt: list[str] = []
    for index, names in enumerate(work.stages, 1):
        if work.config.mode == "independent" and learnt:
            model, learnt = base(work, progress), []
            work.method.start(model, work.settings, work.config.seed)
        learn(work, progress, model, index, names, learnt)
        learnt.append(names[0] if len(names) == 1 else JOINT)
        score_row(work, progress, model, index, learnt)


def base(work: Work, progress: Progress) -> MultimodalLM:
    """The base model on its device, its projector aligned."""
    import torch

    from moextend.vision import FeatureStore

    spec, settings = work.sequence.base, work.sequence.align
    device = work.config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = moextend.load(
        spec.model, vision=spec.vision, revision=spec.revision, dtype=spec.dtype, device=device
    )
    work.run.record_environment(device=device, threads=torch.get_num_threads())
    if model.vision is not None:
        model.features = FeatureStore(model.vision, work.cache / "features")
    if settings is not None:
        unit = Unit("align", 0, settings.task, settings.steps)
        progress.begin(unit)
        task = work.tasks[settings.task]
        alignment.align(
            model,
            conversations(task, work.workspace),
            settings,
            seed=work.config.seed,
            data_name=f"{data_digest(task, 'train', work.workspace)} {task.prompt}",
            cache=work.cache / "aligned",
            on_step=lambda done, total: progress.advance(),
        )
        progress.finish(unit)
    return model


def learn(
    work: Work, progress: Progress, model: MultimodalLM, index: int, names: list[str], learnt: Sequence[str]
) -> None:
    """Brings the model through a stage: from the stage's folder if it was learnt before, else by training."""
    name = names[0] if len(names) == 1 else JOINT
    folder = work.run.stage_folder(index, name)
    seed = stage_seed(work.config.seed, name)
    data = stage_data([work.tasks[task] for task in names], work.workspace, seed)
    earlier = [(task, work.run.stage_folder(i, task)) for i, task in enumerate(learnt, 1)]
    stage = Stage(index, name, data.learn, data.held_out, work.generic, seed, folder, earlier)
    units = [unit for unit in plan(work) if unit.stage == index and unit.phase in ("probe", "train")]
    if moextend.extension.is_whole(folder):
        work.method.restore(model, work.settings, stage)
    else:
        began = time.monotonic()
        loop = StageLoop(work, progress, model, stage, {unit.phase: unit for unit in units})
        facts = work.method.learn(model, work.settings, stage, loop)
        work.method.save(model, work.settings, stage)
        files.write_json(folder / "cost.json", {**cost(model), "seconds": time.monotonic() - began, **facts})
        work.run.write_facts({"trainable": facts["trained_parameters"]})
    for unit in units:
        progress.finish(unit)


def cost(model: MultimodalLM) -> dict[str, Any]:
    """Peak memory of this process so far, and of its GPU."""
    import torch

    peak = {"peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if model.device.type == "cuda":
        peak["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return peak


@dataclass(frozen=True)
class StageLoop:
    """The training loop bound to a stage: the same data, order, steps and batches for every method."""

    work: Work
    progress: Progress
    model: MultimodalLM
    stage: Stage
    units: Mapping[str, Unit]

    def __call__(
        self,
        *,
        learning_rate: float | None = None,
        extra_loss: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor] | None = None,
        rates: Mapping[str, float] | None = None,
        steps: int | None = None,
        phase: str = "train",
    ) -> Report:
        """Trains what requires gradients; see method.Loop."""
        unit = self.units[phase]
        settings = self.work.sequence.train.settings(
            self.stage.seed, steps=steps or unit.steps, learning_rate=learning_rate
        )
        seen = 0

        def on_step(done: int, total: int) -> None:
            nonlocal seen
            if not seen:  # a resumed training begins where its checkpoint was
                self.progress.begin(unit, step=done - 1)
            seen = done
            self.progress.advance()

        report = train(
            self.model, self.stage.data, settings, folder=self.stage.folder / f"{phase}-in-flight",
            extra_loss=extra_loss, rates=rates, on_step=on_step,
        )  # fmt: skip
        self.progress.finish(unit)
        return report


def score_row(work: Work, progress: Progress, model: MultimodalLM, index: int, learnt: Sequence[str]) -> None:
    """Scores what is missing of one row of the matrix; each cell is kept as soon as it is known."""
    known = work.run.cells()
    for name in work.scored:
        unit = Unit("score", index, name, PERCENT)
        if (index, name) not in known:
            progress.begin(unit)
            try:
                score_cell(work, progress, model, index, name, learnt)
            except MoextendError as error:
                work.failures.append(f"stage {index}, {name}: {error}")
        progress.finish(unit)
    if index == 0:
        write_facts(work)


def score_cell(
    work: Work, progress: Progress, model: MultimodalLM, index: int, name: str, learnt: Sequence[str]
) -> None:
    """Scores one cell and keeps it."""
    task, so_far = work.tasks[name], 0
    asked = JOINT if work.config.mode == "joint" and task.kind != "text" else name
    weights = work.method.select(model, work.settings, asked, learnt) if learnt else model.base_fingerprint()

    def on_items(done: int, total: int) -> None:
        nonlocal so_far
        now = PERCENT * done // max(total, 1)
        progress.advance(now - so_far)
        so_far = now

    cell = evaluate.score_cell(
        model, task, weights=weights, folder=work.run.predictions, scoring=work.sequence.scoring,
        workspace=work.workspace, on_items=on_items,
    )  # fmt: skip
    work.run.append_cell(
        Cell(
            stage=index, task=name, value=cell.value, stderr=cell.stderr, n=cell.n, scorer=cell.scorer,
            weights=cell.weights, predictions=f"predictions/{cell.predictions}", seconds=cell.seconds,
            by_kind=dict(cell.by_kind),
            extra={"readings": cell.readings, "reused": cell.reused},
        )
    )  # fmt: skip


def write_facts(work: Work) -> None:
    """Keeps what the report says of a run besides its scores."""
    image_tasks = [work.tasks[name] for name in work.config.stages if work.tasks[name].kind == "vqa"]
    known = work.run.facts().get("blind", {})
    if {task.task for task in image_tasks} <= set(known):  # else stages were added
        return
    limit = work.sequence.scoring.limit
    blind = {task.task: vqa.blind_level(task, work.workspace, limit) for task in image_tasks}
    told = work.method.told(work.settings)
    work.run.write_facts({"told": told, "settings": work.settings.model_dump(), "blind": blind})
