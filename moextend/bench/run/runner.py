"""Executes a run: a method learns a sequence of tasks, and after every stage the model is scored on all of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench.methods.method import Stage
from moextend.bench.run import complete, shared, together
from moextend.bench.run.complete import (
    LEARNED,
    lacking_facts,
    predictions_problem,
    refuse_damaged,
    set_weights_aside,
    stage_problem,
    unproved,
)
from moextend.bench.run.config import stage_name
from moextend.bench.run.context import (
    PERCENT,
    RunContext,
    alignments_of,
    of_cell,
    of_stage,
    plan,
    refuse_changed_inputs,
    refuse_data_changed_meanwhile,
)
from moextend.bench.run.diagnostics import Diagnostics
from moextend.bench.run.inputs import (
    checkpoint_revision,
    file_parts,
    opened_part,
    record_commits,
    refuse_changed,
    text_parts,
)
from moextend.bench.run.models import asked_for, base, checkpoint, learning_data, stage_of
from moextend.bench.run.progress import Progress, Unit
from moextend.bench.run.records import StageCost
from moextend.bench.run.rundir import RunDir, changed_since
from moextend.bench.run.servers import CellModel, Servers
from moextend.bench.run.stage import (
    StageLoop,
    Stopwatch,
    forget_spent,
    forward_flops,
    kept_mb,
    stage_seed,
    stored_mb,
)
from moextend.bench.score import evaluate
from moextend.bench.score.evaluate import prompt_digest
from moextend.bench.score.majority import majority_level
from moextend.bench.score.records import Cell
from moextend.bench.score.served.client import ServerFailed
from moextend.bench.score.shared import SharedPredictions
from moextend.bench.scoring import TRANSFORMERS
from moextend.errors import InputError, LeaseLost, MoextendError, RunConflict, RunFailed, counted
from moextend.util import files, processes
from moextend.util.determinism import deterministic

if TYPE_CHECKING:
    from moextend import MultimodalLM


log = logging.getLogger(__name__)


def run(folder: Path) -> None:
    """Executes the missing parts of the run in `folder`; RunFailed at the end if a cell cannot be scored."""
    found = RunDir(folder)
    with processes.first_enters(found.lock):
        context = RunContext(found)  # under the lock, so that the config is the one that ends up done
        known = {"run": found.id, "config": found.config.digest}
        with (
            deterministic(found.config.deterministic),
            Progress(folder, plan(context), **known) as progress,
        ):
            processes.first_says(partial(refuse_damaged, found))
            in_process = context.backend.backend == TRANSFORMERS
            serving = nullcontext() if in_process else Servers(context, partial(progress.aside, "serve"))
            with together.explained(folder), serving as context.servers:
                try:
                    (_score_checkpoints if context.config.scored else _run)(context, progress)
                except InputError:
                    _refuse_if_data_changed(context)
                    raise
            if context.failures:
                raise RunFailed(
                    f"{counted(len(context.failures), 'cell')} could not be scored; the first: {context.failures[0]}",
                    where=str(folder),
                    hint="Remove the cause and run the same command again: only those cells are scored.",
                )


def _refuse_if_data_changed(context: RunContext) -> None:
    """Raises RunConflict for data that changed, which an error about them says less clearly."""
    try:
        refuse_data_changed_meanwhile(context)
    except RunConflict:
        raise
    except (InputError, OSError):
        pass  # data that cannot be read now: the error is about them


def _score_checkpoints(context: RunContext, progress: Progress) -> None:
    """Scores the stages that were trained elsewhere; a stage whose cells all stand is not loaded.

    Where the checkpoint of a stage is not there yet, the run ends there, and waits for it.
    """
    progress.aside("check")
    checkpoints, run = context.config.checkpoints, context.run
    for index in range(len(checkpoints)):
        processes.in_turn(partial(checkpoint_revision, run, index))
    processes.in_turn(lambda: refuse_changed_inputs(context))
    stated = {str(index): one.stated for index, one in enumerate(checkpoints) if one.stated}
    if processes.first_says(run.facts).stated != stated:
        run.write_facts(stated=stated)
    known = processes.first_says(run.cells)
    for index in range(len(checkpoints)):
        cells = [known.get((index, name)) for name in context.scored]
        complete = all(processes.first_says(partial(stands, context, cell)) for cell in cells)
        if complete and (index or not lacking_facts(context.config, run.facts())):
            for name in context.scored:
                progress.finish(Unit("score", index, name, PERCENT))
        else:
            score_row(context, progress, checkpoint(context, index, progress), index, [])
    progress.waits = len(checkpoints) <= len(context.stages)


def _run(context: RunContext, progress: Progress) -> None:
    progress.aside("check")
    processes.in_turn(lambda: refuse_changed_inputs(context))
    model = base(context, progress)
    opened = opened_part(model, context.sequence.base.found(context.workspace), prompt_digest(model))
    _note_inputs(context, {**file_parts(context.run), **opened})
    if context.servers:
        context.servers.note_base(model)
    score_row(context, progress, model, 0, [])
    diagnose = Diagnostics(context, model)
    context.method.start(model, context.config.seed)
    learned: list[str] = []
    for index, names in enumerate(context.stages, 1):
        if context.config.mode == "independent" and learned:
            model, learned = base(context, progress), []
            context.method.start(model, context.config.seed)
        learn(context, progress, model, index, names, learned)
        learned.append(stage_name(names))
        score_row(context, progress, model, index, learned)
        diagnose(model, index, learned)


def learn(
    context: RunContext,
    progress: Progress,
    model: MultimodalLM,
    index: int,
    names: list[str],
    learned: Sequence[str],
) -> None:
    """Brings the model to the end of a stage: from the stage's folder if it exists, else by training."""
    progress.aside("prepare", stage_name(names))
    stage = stage_of(context, index, names, learned)
    units = [unit for unit in plan(context) if unit.stage == index and unit.phase != "score"]
    lineage = processes.first_says(
        lambda: {"parents": shared.parents_of(context, stage), "inputs": of_stage(context, index)}
    )
    problem = processes.first_says(
        lambda: (
            stage_problem(stage.folder, context.run.id, costs=False, most=complete.EVERY)
            or complete.lineage_problem(stage.folder, lineage)
        )
    )
    if problem is None:
        context.method.restore(model, stage)
        seconds = None
    else:
        processes.first_says(lambda: set_weights_aside(stage.folder, problem))
        processes.first_says(lambda: complete.note_lineage(stage.folder, lineage))
        seconds = _make_stage(context, progress, model, stage, {unit.phase: unit for unit in units})
    if processes.first_says(lambda: context.run.costs().get(index)) is None:
        _write_cost(context, model, stage, [*learned, stage.task], seconds)
    for unit in units:
        progress.finish(unit)


def _make_stage(
    context: RunContext, progress: Progress, model: MultimodalLM, stage: Stage, units: Mapping[str, Unit]
) -> float | None:
    """Trains a stage, or takes it from a run that trained the same one; returns the seconds of this run's training."""
    node = shared.stage_node(context, model, stage)
    if node is None:
        return _train_stage(context, progress, model, stage, units).seconds
    prepare = partial(context.method.prepare_inference, model, stage)
    with node.lease(partial(progress.aside, "wait", stage.task)):
        if shared.take(stage, node, prepare):
            context.method.restore(model, stage)
            return None
        learned = _train_stage(context, progress, model, stage, units)
        shared.keep(context, stage, node, learned)
        return learned.seconds


def _train_stage(
    context: RunContext, progress: Progress, model: MultimodalLM, stage: Stage, units: Mapping[str, Unit]
) -> StageCost:
    """Trains and saves a stage; returns the costs of the training over all attempts.

    Facts are written before the weights, so that an interrupt between the two loses nothing.
    """
    progress.aside("prepare", stage.task)
    with together.own_folder(stage) as mine, Stopwatch(mine.folder, model) as watch:
        loop = StageLoop(context, progress, model, stage, units, watch)
        facts = context.method.learn(model, mine, loop)
        processes.first_says(
            partial(
                refuse_data_changed_meanwhile,
                context,
                *((name, "train") for name in context.stages[stage.index - 1]),
            )
        )
        facts |= {"probe_flops": loop.flops.get("probe"), "run": context.run.id}
        noted = mine.folder / LEARNED
        learned = StageCost.of({**facts, **watch.spent()}, where=str(noted))
        more = context.method.prepare_inference(model, mine)
        StageCost.of({**facts, **more, **watch.spent()}, where=str(noted)).write(noted)
        context.method.save(model, mine)
    return learned.model_copy(update={"seconds": watch.spent()["seconds"]})


def _write_cost(
    context: RunContext, model: MultimodalLM, stage: Stage, learned: Sequence[str], seconds: float | None
) -> None:
    """Writes the costs of a stage; for a stage trained by an interrupted process, as far as it recorded them."""
    known = StageCost.read_of(context.run.id, stage.folder / LEARNED) or StageCost()
    context.method.select(model, stage.task, learned)
    with model.choose.reaching((stage.task,)) if model.choose else nullcontext():
        answering = forward_flops(model, stage.held_out)
    cost = known.model_copy(
        update={
            "seconds": known.seconds if seconds is None else seconds,
            "forward_flops": answering,
            "stored_mb": stored_mb(stage.folder),
            "alignments": alignments_of(context, stage.index),
            "files": complete.kept_files(stage.folder),
        }
    )
    alone = context.config.mode == "independent"
    earlier = [] if alone else [own for at, own in context.run.costs().items() if at < stage.index]
    kept = kept_mb(cost, earlier, needs_earlier=context.method.needs_earlier)
    context.run.write_cost(stage.index, stage.task, cost.model_copy(update={"kept_mb": kept}))
    if processes.is_first():
        forget_spent(stage.folder)


def score_row(
    context: RunContext, progress: Progress, model: MultimodalLM, index: int, learned: Sequence[str]
) -> None:
    """Scores the missing cells of one row of the matrix, and saves each one immediately.

    A cell of other weights than those of the model is scored again; in row 0 it is one of another base.
    """
    known = processes.first_says(context.run.cells)
    named: dict[str, str] = {}
    for name in context.scored:
        unit, cell = Unit("score", index, name, PERCENT), known.get((index, name))
        if cell is not None and _has_other_weights(context, model, cell, learned, named):
            if index == 0:
                raise changed_since(context.run, "the base (its language model, an encoder or a projector)")
            log.warning("%s after stage %d is scored again: it was scored with other weights.", name, index)
            cell = None
        if not processes.first_says(partial(stands, context, cell)):
            progress.begin(unit)
            try:
                score_cell(context, progress, model, index, name, learned)
            except (LeaseLost, RunConflict, ServerFailed):  # the next cells could not be scored, either
                raise
            except MoextendError as error:
                context.failures.append(f"stage {index}, {name}: {error}")
        progress.finish(unit)
    progress.aside("prepare")
    if index == 0 and processes.is_first():
        write_facts(context, model)


def _has_other_weights(
    context: RunContext, model: MultimodalLM, cell: Cell, learned: Sequence[str], named: dict[str, str]
) -> bool:
    """Whether a cell was scored with other weights than those that the model has for its task.

    `named` keeps the fingerprints of the row by what is asked for.
    """
    asked = asked_for(context, cell.task, learned)
    if asked not in named:
        own = selected(context, model, cell.task, learned)
        named[asked] = processes.first_says(partial(str, own))  # devices may round differently
    return named[asked] != cell.weights


def stands(context: RunContext, cell: Cell | None) -> bool:
    """Whether a cell is scored and its predictions are unchanged; removes damaged predictions."""
    if cell is None or unproved(context.run, [cell]):
        return False
    if cell.predictions is None:
        return True
    problem = predictions_problem(context.run.folder, cell)
    if problem is None:
        return True
    path = context.run.folder / str(cell.predictions)
    log.warning("%s: %s; %s after stage %d is scored again.", path, problem, cell.task, cell.stage)
    files.remove(path)
    return False


def selected(context: RunContext, model: MultimodalLM, name: str, learned: Sequence[str]) -> str:
    """Prepares the model for inputs of a task; returns the fingerprint of all weights that compute."""
    if context.answering:
        return context.answering
    if not learned:
        return model.base_fingerprint()
    return context.method.select(model, asked_for(context, name, learned), learned)


def score_cell(
    context: RunContext,
    progress: Progress,
    model: MultimodalLM,
    index: int,
    name: str,
    learned: Sequence[str],
) -> None:
    """Scores one cell and saves it."""
    task, so_far = context.tasks[name], 0
    own = selected(context, model, name, learned)
    weights = processes.first_says(lambda: own)  # devices may round differently

    def on_items(done: int, total: int) -> None:
        nonlocal so_far
        now = PERCENT * done // max(total, 1)
        progress.advance(now - so_far)
        so_far = now

    servers, served = context.servers, CellModel(model, index, name, weights, learned)
    backend = servers.backend(served) if servers else None
    # Answers of a server are not shared: its program is not part of their identity.
    share = nullcontext if backend else _share(context, progress, model, weights, learned)
    note_text = partial(text_parts, task, context.workspace)
    _note_inputs(context, processes.first_says(note_text))
    cell = evaluate.score_cell(
        model, task, weights=weights, folder=context.run.predictions, scoring=context.sequence.scoring,
        workspace=context.workspace, stage=index, on_items=on_items, share=share, backend=backend,
    )  # fmt: skip
    if servers and backend:
        cell = cell.model_copy(update={"parity": servers.shown(served)})
    processes.first_says(partial(refuse_data_changed_meanwhile, context, (name, "test")))
    _note_inputs(context, processes.first_says(note_text))
    if name not in context.text_recorded:
        processes.first_says(partial(record_commits, context.run, task, context.workspace))
        context.text_recorded.add(name)
    more = {"predictions": f"predictions/{cell.predictions}", "inputs": of_cell(context, index, name)}
    context.run.append_cell(cell.model_copy(update=more))


def _note_inputs(context: RunContext, parts: Mapping[str, str]) -> None:
    """Records parts that are known only now; RunConflict if the run has used others."""
    refuse_changed(context.run, context.inputs, parts)
    if parts.items() - context.inputs.items():
        context.inputs |= parts
        context.run.write_facts(inputs=context.inputs)


def _share(
    context: RunContext, progress: Progress, model: MultimodalLM, weights: str, learned: Sequence[str]
) -> evaluate.Share:
    """How the answers of these weights are shared with other runs."""
    about = "the base"
    method: dict[str, Any] | None = None
    if learned:
        if not shared.shares(context) or weights in context.base_weights:
            return nullcontext  # the run's own folder has the answers of the base
        about = f"{context.method_spec.text}, seed {context.config.seed}, after {', '.join(learned)}"
        method = shared.method_record(context)
    return SharedPredictions.of(
        model, weights, context.store, about=about, method=method, on_wait=partial(progress.aside, "wait")
    )


def write_facts(context: RunContext, model: MultimodalLM) -> None:
    """Writes the facts that the report shows besides the scores."""
    asked = [context.tasks[name] for name in context.config.stages if context.tasks[name].kind == "vqa"]
    if not lacking_facts(context.config, context.run.facts()):  # else stages were added
        return
    limit = context.sequence.scoring.limit
    majority = {task.task: majority_level(task, context.workspace, limit) for task in asked}
    answering = {}
    for names in () if context.config.scored else context.stages:
        name = stage_name(names)
        data = learning_data(context, names, stage_seed(context.config.seed, name))
        answering[name] = forward_flops(model, data.held_out)
    context.run.write_facts(
        task_identity=context.method.task_identity,
        text_untouched=context.text_untouched,
        settings=context.method.config.model_dump(mode="json"),
        majority=majority,
        base_flops=answering or None,
    )
