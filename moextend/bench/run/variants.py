"""Variants of a finished run: its last model with what the stages learned scaled, or without some of them.

The rewind dial scales all stages together, from the base (0) to the last model (1). The interference map leaves stages
out. Both are strengths of stages; `variants.jsonl` has the score of each variant on each task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from pydantic import field_validator

from moextend.bench.run.complete import lacks, names_of
from moextend.bench.run.context import RunContext, refuse_changed_inputs
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunConfig, RunDir, line_of, parse_cell
from moextend.bench.score import evaluate
from moextend.bench.score.records import Cell
from moextend.errors import InputError, LeaseLost, MoextendError, RunConflict
from moextend.util import files
from moextend.util.determinism import deterministic

FILE = "variants.jsonl"
DIAL = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Strengths of the rewind dial."""
Variant = tuple[tuple[str, float], ...]
"""(stage, strength) of every stage, in learning order."""


class VariantCell(Cell):
    """A line of `variants.jsonl`: the score of a variant of the last model on a task; the last line of a cell counts.

    `stage` is the last stage. Lines have `run` and `digest` as those of `scores.jsonl`.
    """

    strengths: dict[str, float]
    """Stage -> strength of what it learned, in learning order: 0 is without it, 1 as after the last stage."""
    of: str
    """Digest of the fingerprints in the last row of `scores.jsonl`: the line counts only for these weights."""

    @field_validator("strengths")
    @classmethod
    def _in_range(cls, strengths: dict[str, float]) -> dict[str, float]:
        if not all(0 <= strength <= 1 for strength in strengths.values()):
            raise ValueError("holds a strength that is not from 0 to 1")
        return strengths

    @property
    def variant(self) -> Variant:
        """The variant that was scored."""
        return tuple(self.strengths.items())


VariantCells = dict[tuple[Variant, str], VariantCell]
"""(variant, task) -> its last cell."""


def refusal(config: RunConfig, *, subsets: bool) -> str | None:
    """Why the last model of a run has no such variants; None if it has."""
    spec = config.method_spec
    scales = spec.kind.scales
    if config.mode == "independent":
        return "an independent run has a model for each stage, and no last one"
    if scales == "nothing":
        return f"what '{spec.text}' learns cannot be scaled"
    if subsets and scales != "each":
        return f"the stages of '{spec.text}' train the same weights, and none of them can be left out"
    if subsets and len(config.stage_names) < 2:
        return "it has one stage"
    return None


def rewound(config: RunConfig) -> list[Variant]:
    """The variants of the rewind dial."""
    return [tuple((stage, strength) for stage in config.stage_names) for strength in DIAL]


def subsets(config: RunConfig) -> list[Variant]:
    """The variants without one stage each."""
    stages = config.stage_names
    return [tuple((stage, float(stage != left)) for stage in stages) for left in stages]


def label(variant: Variant) -> str:
    """A variant in a few words."""
    strengths = {strength for _, strength in variant}
    if len(strengths) == 1:
        return f"strength {strengths.pop():g}"
    if strengths == {0.0, 1.0}:
        return f"without {', '.join(stage for stage, strength in variant if not strength)}"
    return ", ".join(f"{stage} {strength:g}" for stage, strength in variant)


def row_of(config: RunConfig, cells: Mapping[tuple[int, str], Cell]) -> str:
    """Digest of the fingerprints of the last row."""
    last = len(config.stage_names)
    return files.digest(
        {task: cell.weights for (stage, task), cell in sorted(cells.items()) if stage == last}
    )


def tasks_of(config: RunConfig) -> list[str]:
    """Tasks that variants are scored on: the learned ones and the text tasks."""
    return [*config.stages, *config.retention]


def read(run: RunDir, cells: Mapping[tuple[int, str], Cell] | None = None) -> VariantCells:
    """The scored cells of the variants of the last model as it is now; InputError if a line is damaged.

    cells: those of scores.jsonl, if they are read already.
    """
    path, found = run.folder / FILE, VariantCells()
    if not path.exists():
        return found
    now = row_of(run.config, run.cells() if cells is None else cells)
    for number, record in enumerate(files.read_lines(path), 1):
        cell = parse_cell(record, f"{path}:{number}", run.id, VariantCell)
        if cell.of == now:
            found[cell.variant, cell.task] = cell
    return found


def append(run: RunDir, cell: VariantCell) -> None:
    """Appends a line to variants.jsonl and syncs it to disk."""
    files.append_lines(run.folder / FILE, [line_of(cell, run.id)])


def score_variants(
    run: RunDir, wanted: Sequence[Variant], on_cell: Callable[[str], None] = lambda words: None
) -> list[str]:
    """Scores the missing cells of these variants on learned and text tasks; returns the cells that cannot be scored.

    `on_cell` is called with the words for a cell that is scored next.

    The run is locked. Each cell is saved immediately, so that an interrupted call is repeated. The files of the run
    stay as they are; `variants.jsonl` and predictions are added.

    Raises:
        RunConflict: another process works on the run, or its data or plug-ins changed.
        InputError: the run is not done, or is from a pack that left something out.
    """
    from moextend.bench.run.runner import stands

    if read_status(run.folder).state != "done":
        raise InputError("is not done.", where=str(run.folder), hint="Finish it first: moextend bench run.")
    with run.lock():
        run.check_has("predictions", "weights")
        if lacking := lacks(run):
            raise RunConflict(
                f"lacks {names_of(lacking)}.",
                where=str(run.folder),
                hint="The same command makes it again.",
            )
        context = RunContext(run)
        known = read(run)
        cells = [(variant, task) for variant in wanted for task in tasks_of(run.config)]
        missing = [cell for cell in cells if not stands(context, known.get(cell))]
        if not missing:
            return []
        with deterministic(run.config.deterministic):
            return _score(context, missing, len(cells), on_cell)


def _score(
    context: RunContext, missing: Sequence[tuple[Variant, str]], cells: int, on_cell: Callable[[str], None]
) -> list[str]:
    from moextend.bench.run.models import asked_for, restored_stages

    run, last = context.run, len(context.stages)
    refuse_changed_inputs(context)
    _, model, learned = deque(restored_stages(context, last, scaled=True), maxlen=1).pop()
    row, failed = row_of(run.config, run.cells()), list[str]()
    for place, (variant, task) in enumerate(missing):
        on_cell(f"{label(variant)}, {task} ({cells - len(missing) + place + 1} of {cells})")
        try:
            weights = context.method.scale(model, asked_for(context, task, learned), dict(variant))
            cell = evaluate.score_cell(
                model, context.tasks[task], weights=weights, folder=run.predictions,
                scoring=context.sequence.scoring, workspace=context.workspace, stage=last,
            )  # fmt: skip
        except LeaseLost:
            raise
        except MoextendError as error:
            failed.append(f"{label(variant)}, {task}: {error}")
            continue
        values = {**cell.model_dump(), "predictions": f"predictions/{cell.predictions}"}
        append(run, VariantCell(**values, strengths=dict(variant), of=row))
    return failed
