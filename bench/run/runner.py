"""The main job: a method learns a sequence of tasks, and after every stage the model is scored on all of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.data import hub_revision
from moextend.bench.methods.method import Stage
from moextend.bench.run import complete, costs
from moextend.bench.run.complete import (
    LEARNED,
    lacking_facts,
    predictions_problem,
    set_damaged_aside,
    stage_problem,
)
from moextend.bench.run.config import JOINT
from moextend.bench.run.context import PERCENT, Work, plan, refuse_changed_data
from moextend.bench.run.diagnostics import Diagnostics
from moextend.bench.run.models import base, learning_data, stage_name, stage_of
from moextend.bench.run.progress import Progress, Unit
from moextend.bench.run.provenance import refuse_changed_plugins
from moextend.bench.run.records import StageCost
from moextend.bench.run.rundir import COST, ROUTING, RunDir
from moextend.bench.run.stage_data import stage_seed
from moextend.bench.score import evaluate, vqa
from moextend.bench.score.records import Cell
from moextend.errors import InputError, MoextendError, RunFailed
from moextend.extension import store
from moextend.training.loop import Report, train
from moextend.training.trainer import ExtraLoss
from moextend.util import files

if TYPE_CHECKING:
    from moextend import Conversation, MultimodalLM


log = logging.getLogger(__name__)


def run(folder: Path) -> None:
    """Does what is missing of the run in `folder`; RunFailed, with all else done, where a cell cannot be scored."""
    found = RunDir(folder)
    with found.lock():
        set_damaged_aside(found)
        work = Work(found)  # under the lock, so that the config is the one that ends up done
        _do(work)


def _do(work: Work) -> None:
    known = {"run": work.run.id, "config": work.config.digest}
    with Progress(work.run.folder, plan(work), **known) as progress:
        _run(work, progress)
        if work.failures:
            raise RunFailed(
                f"{len(work.failures)} cells could not be scored; the first: {work.failures[0]}",
                where=str(work.run.folder),
                hint="Remove the cause and run the same command again: only those cells are scored.",
            )


def _run(work: Work, progress: Progress) -> None:
    refuse_changed_data(work)
    if plugins := refuse_changed_plugins(work.run):
        work.run.write_facts(plugins=plugins)
    model = base(work, progress)
    score_row(work, progress, model, 0, [])
    diagnose = Diagnostics(work, model)
    work.method.start(model, work.config.seed)
    learned: list[str] = []
    for index, names in enumerate(work.stages, 1):
        if work.config.mode == "independent" and learned:
            model, learned = base(work, progress), []
            work.method.start(model, work.config.seed)
        learn(work, progress, model, index, names, learned)
        learned.append(stage_name(names))
        score_row(work, progress, model, index, learned)
        diagnose(model, index, learned)


def learn(
    work: Work, progress: Progress, model: MultimodalLM, index: int, names: list[str], learned: Sequence[str]
) -> None:
    """Brings the model through a stage: from the stage's folder if it was learned before, else by training."""
    stage = stage_of(work, index, names, learned)
    units = [unit for unit in plan(work) if unit.stage == index and unit.phase in ("probe", "train")]
    problem = stage_problem(stage.folder, costs=False, every_byte=True)
    if problem is None:
        work.method.restore(model, stage)
        seconds = None
    else:
        before = _set_weights_aside(stage.folder, problem)
        seconds = _train_stage(work, progress, model, stage, {unit.phase: unit for unit in units})
        if before != _named_weights(stage.folder):
            _forget_later(work, model, index, [*learned, stage.task])
    if work.run.costs().get(index) is None:
        _write_cost(work, model, stage, [*learned, stage.task], seconds)
    for unit in units:
        progress.finish(unit)


def _train_stage(
    work: Work, progress: Progress, model: MultimodalLM, stage: Stage, units: Mapping[str, Unit]
) -> float:
    """Learns a stage and keeps it; the seconds that it took over all attempts.

    What became known is written before the weights, so that an interruption between the two loses nothing.
    """
    with costs.Stopwatch(stage.folder, model) as watch:
        loop = StageLoop(work, progress, model, stage, units, watch)
        facts = work.method.learn(model, stage, loop)
        noted = stage.folder / LEARNED
        StageCost.of({**facts, **watch.spent()}, where=str(noted)).write(noted)
        work.method.save(model, stage)
    return float(watch.spent()["seconds"])


def _write_cost(
    work: Work, model: MultimodalLM, stage: Stage, learned: Sequence[str], seconds: float | None
) -> None:
    """Keeps what a stage took; of a stage that an interrupted process learned, as far as that one noted it."""
    known = StageCost.read(stage.folder / LEARNED) or StageCost()
    work.method.select(model, stage.task, learned)
    with model.choose.reaching((stage.task,)) if model.choose else nullcontext():
        answering = costs.forward_flops(model, stage.held_out)
    cost = known.model_copy(
        update={
            "seconds": known.seconds if seconds is None else seconds,
            "forward_flops": answering,
            "stored_mb": costs.stored_mb(stage.folder),
            "files": complete.kept_files(stage.folder),
        }
    )
    work.run.write_cost(stage.index, stage.task, cost)
    costs.forget_spent(stage.folder)


def _named_weights(folder: Path) -> str | None:
    """What the card of a stage's weights says that they are; None without a card."""
    path = folder / f"{store.STEM}.json"
    try:
        return str(files.read_json(path).get("sha256"))
    except (FileNotFoundError, InputError, AttributeError):
        return None


def _set_weights_aside(folder: Path, problem: str) -> str | None:
    """Makes a stage that is damaged count as not learned; the name of its weights."""
    before = _named_weights(folder)
    if before is not None or (folder / COST).exists():
        log.warning("%s: %s; the stage is learned again.", folder, problem)
    for name in (f"{store.STEM}.json", COST, ROUTING):
        (folder / name).unlink(missing_ok=True)
    return before


def _forget_later(work: Work, model: MultimodalLM, index: int, learned: Sequence[str]) -> None:
    """Where a stage that is learned again came out otherwise, what was made of it before is made again, too."""
    cells = work.run.cells()
    own = {task: cell.weights for (stage, task), cell in cells.items() if stage == index}
    if own and all(weights == selected(work, model, task, learned) for task, weights in own.items()):
        return
    alone = work.config.mode == "independent"
    stale = {key for key in cells if key[0] == index or (key[0] > index and not alone)}
    later = [] if alone else [f for f in work.run.folder.glob("stages/*") if _place(f) > index]
    if not stale and not any(_named_weights(folder) for folder in later):
        return
    log.warning("%s: stage %d came out otherwise; later ones are made again.", work.run.folder, index)
    work.run.drop_cells(stale)
    for folder in later:
        _set_weights_aside(folder, f"it was made after another stage {index}")


def _place(folder: Path) -> int:
    number = folder.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


@dataclass(frozen=True)
class StageLoop:
    """The training loop bound to a stage: the same data, order, steps and batches for every method."""

    work: Work
    progress: Progress
    model: MultimodalLM
    stage: Stage
    units: Mapping[str, Unit]
    watch: costs.Stopwatch

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
        follow = self.progress.follow(unit)

        def on_step(done: int, total: int) -> None:
            follow(done, total)
            self.watch.tick()

        report = train(
            self.model, self.stage.data if data is None else data, settings,
            folder=self.stage.folder / f"{phase}-in-flight", extra_loss=extra_loss, rates=rates, on_step=on_step,
        )  # fmt: skip
        self.progress.finish(unit)
        return report


def score_row(
    work: Work, progress: Progress, model: MultimodalLM, index: int, learned: Sequence[str]
) -> None:
    """Scores what is missing of one row of the matrix; each cell is kept as soon as it is known."""
    known = work.run.cells()
    for name in work.scored:
        unit = Unit("score", index, name, PERCENT)
        if not _stands(work, known.get((index, name))):
            progress.begin(unit)
            try:
                score_cell(work, progress, model, index, name, learned)
            except MoextendError as error:
                work.failures.append(f"stage {index}, {name}: {error}")
        progress.finish(unit)
    if index == 0:
        write_facts(work, model)


def _stands(work: Work, cell: Cell | None) -> bool:
    """Whether a cell is scored and its predictions are what was scored; damaged ones are removed."""
    if cell is None:
        return False
    problem = (
        None if cell.predictions is None else predictions_problem(work.run.folder, cell, every_byte=True)
    )
    if problem is None:
        return True
    path = work.run.folder / str(cell.predictions)
    log.warning("%s: %s; %s after stage %d is scored again.", path, problem, cell.task, cell.stage)
    path.unlink(missing_ok=True)
    return False


def selected(work: Work, model: MultimodalLM, name: str, learned: Sequence[str]) -> str:
    """Makes the model ready for inputs of a task; what names all weights that then compute."""
    if not learned:
        return model.base_fingerprint()
    asked = JOINT if work.config.mode == "joint" and work.tasks[name].kind != "text" else name
    return work.method.select(model, asked, learned)


def score_cell(
    work: Work, progress: Progress, model: MultimodalLM, index: int, name: str, learned: Sequence[str]
) -> None:
    """Scores one cell and keeps it."""
    task, so_far = work.tasks[name], 0
    weights = selected(work, model, name, learned)

    def on_items(done: int, total: int) -> None:
        nonlocal so_far
        now = PERCENT * done // max(total, 1)
        progress.advance(now - so_far)
        so_far = now

    cell = evaluate.score_cell(
        model, task, weights=weights, folder=work.run.predictions, scoring=work.sequence.scoring,
        workspace=work.workspace, stage=index, on_items=on_items,
    )  # fmt: skip
    work.run.append_cell(cell.model_copy(update={"predictions": f"predictions/{cell.predictions}"}))


def write_facts(work: Work, model: MultimodalLM) -> None:
    """Keeps what the report says of a run besides its scores."""
    image_tasks = [work.tasks[name] for name in work.config.stages if work.tasks[name].kind == "vqa"]
    if not lacking_facts(work.run):  # else stages were added
        return
    limit = work.sequence.scoring.limit
    blind = {task.task: vqa.blind_level(task, work.workspace, limit) for task in image_tasks}
    answering = {}
    for names in work.stages:
        name = stage_name(names)
        data = learning_data(work, names, stage_seed(work.config.seed, name))
        answering[name] = costs.forward_flops(model, data.held_out)
    commits = {name: hub_revision(task, work.workspace) for name, task in work.tasks.items()}
    work.run.write_facts(
        task_identity=work.method.task_identity,
        # Of sequences that learn from images alone: else text may look like what was learned.
        text_untouched=work.method.text_untouched and len(image_tasks) == len(work.config.stages),
        settings=work.method.config.model_dump(mode="json"),
        blind=blind,
        base_flops=answering,
        revisions={name: commit for name, commit in commits.items() if commit is not None},
    )
