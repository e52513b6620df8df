"""The main job: a method learns a sequence of tasks, and after every stage the model is scored on all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import moextend
from moextend import files
from moextend.bench import costs, evaluate, vqa
from moextend.bench.data import hub_revision
from moextend.bench.diagnostics import Diagnostics
from moextend.bench.methods.method import Stage
from moextend.bench.progress import Progress, Unit
from moextend.bench.restore import base, learning_data, stage_name, stage_of
from moextend.bench.runconfig import JOINT
from moextend.bench.rundir import Cell, RunDir
from moextend.bench.stages import stage_seed
from moextend.bench.work import PERCENT, Work, plan, refuse_changed_data
from moextend.errors import MoextendError, RunFailed
from moextend.trainer import ExtraLoss
from moextend.training import Report, train

if TYPE_CHECKING:
    from moextend import Conversation, MultimodalLM


def run(folder: Path) -> None:
    """Does what is missing of the run in `folder`; RunFailed, with all else done, where a cell cannot be scored."""
    found = RunDir(folder)
    with found.lock():
        work = Work(found)  # under the lock, so that the config is the one that ends up done
        _do(work)


def _do(work: Work) -> None:
    with Progress(work.run.folder, plan(work)) as progress:
        files.mend_lines(work.run.folder / "scores.jsonl")
        _run(work, progress)
        if work.failures:
            raise RunFailed(
                f"{len(work.failures)} cells could not be scored; the first: {work.failures[0]}",
                where=str(work.run.folder),
                mend="Mend the cause and run the same command again: only those cells are scored.",
            )


def _run(work: Work, progress: Progress) -> None:
    refuse_changed_data(work)
    model = base(work, progress)
    score_row(work, progress, model, 0, [])
    diagnose = Diagnostics(work, model)
    work.method.start(model, work.settings, work.config.seed)
    learnt: list[str] = []
    for index, names in enumerate(work.stages, 1):
        if work.config.mode == "independent" and learnt:
            model, learnt = base(work, progress), []
            work.method.start(model, work.settings, work.config.seed)
        learn(work, progress, model, index, names, learnt)
        learnt.append(stage_name(names))
        score_row(work, progress, model, index, learnt)
        diagnose(model, index, learnt)


def learn(
    work: Work, progress: Progress, model: MultimodalLM, index: int, names: list[str], learnt: Sequence[str]
) -> None:
    """Brings the model through a stage: from the stage's folder if it was learnt before, else by training."""
    stage = stage_of(work, index, names, learnt)
    name, folder = stage.task, stage.folder
    units = [unit for unit in plan(work) if unit.stage == index and unit.phase in ("probe", "train")]
    if moextend.extension.is_whole(folder):
        work.method.restore(model, work.settings, stage)
    else:
        began = time.monotonic()
        loop = StageLoop(work, progress, model, stage, {unit.phase: unit for unit in units})
        facts = work.method.learn(model, work.settings, stage, loop)
        work.method.save(model, work.settings, stage)
        seconds = time.monotonic() - began
        work.method.select(model, work.settings, name, [*learnt, name])
        with model.choose.reaching((name,)) if model.choose else nullcontext():
            answering = costs.forward_flops(model, stage.held_out)
        kept = {"forward_flops": answering, "stored_mb": costs.stored_mb(folder)}
        work.run.write_cost(index, name, {**facts, "seconds": seconds, **kept, **costs.peak_memory(model)})
    for unit in units:
        progress.finish(unit)


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
        data: Sequence[Conversation] | None = None,
        extra_loss: ExtraLoss | None = None,
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
            self.model, self.stage.data if data is None else data, settings,
            folder=self.stage.folder / f"{phase}-in-flight", extra_loss=extra_loss, rates=rates, on_step=on_step,
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
        write_facts(work, model)


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


def write_facts(work: Work, model: MultimodalLM) -> None:
    """Keeps what the report says of a run besides its scores."""
    image_tasks = [work.tasks[name] for name in work.config.stages if work.tasks[name].kind == "vqa"]
    known = work.run.facts().get("blind", {})
    if {task.task for task in image_tasks} <= set(known):  # else stages were added
        return
    limit = work.sequence.scoring.limit
    blind = {task.task: vqa.blind_level(task, work.workspace, limit) for task in image_tasks}
    told = work.method.told(work.settings)
    answering = {}
    for names in work.stages:
        name = stage_name(names)
        data = learning_data(work, names, stage_seed(work.config.seed, name))
        answering[name] = costs.forward_flops(model, data.held_out)
    # Of sequences that learn from images alone: else text may look like what was learnt.
    apart = getattr(work.method, "text_untouched", lambda _: False)(work.settings)
    facts = {
        "told": told,
        "text_untouched": apart and len(image_tasks) == len(work.config.stages),
        "settings": work.settings.model_dump(),
        "blind": blind,
        "base_flops": answering,
    }
    commits = {name: hub_revision(task, work.workspace) for name, task in work.tasks.items()}
    revisions = {name: commit for name, commit in commits.items() if commit is not None}
    work.run.write_facts(facts | ({"revisions": revisions} if revisions else {}))
