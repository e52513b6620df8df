"""Scores variants of finished runs with the functions that score runs; see variants.py."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moextend.bench.run import complete, variants
from moextend.bench.run.changed_data import refuse_changed_inputs
from moextend.bench.run.context import RunContext
from moextend.bench.run.models import asked_for, restored_stages
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir
from moextend.bench.run.runner import stands
from moextend.bench.run.variants import Variant, VariantCell
from moextend.bench.score import evaluate
from moextend.errors import InputError, LeaseLost, MoextendError, RunConflict
from moextend.util.determinism import deterministic


@dataclass(frozen=True)
class Step:
    """A cell of a variant that is scored next, for a display of the progress."""

    done: int
    """Cells of this run that are scored already."""
    cells: int
    """All cells that are asked for."""
    variant: Variant
    task: str


def score_variants(
    run: RunDir, wanted: Sequence[Variant], on_cell: Callable[[Step], None] = lambda step: None
) -> list[str]:
    """Scores the missing cells of these variants on learned and text tasks; returns the cells that cannot be scored.

    The run is locked. Each cell is saved immediately, so that an interrupted call is repeated. The files of the run
    stay as they are; `variants.jsonl` and predictions are added.

    Raises:
        RunConflict: another process works on the run, or its data or plug-ins changed.
        InputError: the run is not done, or is from a pack that left something out.
    """
    if read_status(run.folder).state != "done":
        raise InputError("is not done.", where=str(run.folder), hint="Finish it first: moextend bench run.")
    with run.lock():
        run.check_has("predictions", "weights")
        lacking = complete.lacks(run)
        if lacking:
            raise RunConflict(
                f"lacks {complete.names_of(lacking)}.",
                where=str(run.folder),
                hint="The same bench run makes it again.",
            )
        context = RunContext(run)
        known = variants.read(run)
        cells = [(variant, task) for variant in wanted for task in variants.tasks_of(run.config)]
        missing = [cell for cell in cells if not stands(context, known.get(cell))]
        if not missing:
            return []
        with deterministic(run.config.deterministic):
            return _score(context, missing, len(cells), on_cell)


def _score(
    context: RunContext, missing: Sequence[tuple[Variant, str]], cells: int, on_cell: Callable[[Step], None]
) -> list[str]:
    run, last = context.run, len(context.stages)
    refuse_changed_inputs(context)
    _, model, learned = deque(restored_stages(context, last, scaled=True), maxlen=1).pop()
    row, failed = variants.row_of(run.config, run.cells()), list[str]()
    for place, (variant, task) in enumerate(missing):
        on_cell(Step(cells - len(missing) + place, cells, variant, task))
        try:
            weights = context.method.scale(model, asked_for(context, task, learned), dict(variant))
            cell = evaluate.score_cell(
                model, context.tasks[task], weights=weights, folder=run.predictions,
                scoring=context.sequence.scoring, workspace=context.workspace, stage=last,
            )  # fmt: skip
        except LeaseLost:
            raise
        except MoextendError as error:
            failed.append(f"{variants.label(variant)}, {task}: {error}")
            continue
        values = {**cell.model_dump(), "predictions": f"predictions/{cell.predictions}"}
        variants.append(run, VariantCell(**values, strengths=dict(variant), of=row))
    return failed
