"""Variants of a finished run: its last model with what the stages learned scaled, or without some of them.

The rewind dial scales all stages together, from the base (0) to the last model (1). The interference map leaves stages
out. Both are strengths of stages; `variants.jsonl` has the score of each variant on each task (score_variants.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from pydantic import field_validator

from moextend.bench.run.cell import line_of, parse_cell
from moextend.bench.run.rundir import RunConfig, RunDir
from moextend.bench.score.records import Cell
from moextend.errors import InputError, UnknownName
from moextend.util import files

FILE = "variants.jsonl"
DIAL = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Strengths of the rewind dial."""
LEAVE_ONE_OUT, ALL = "leave-one-out", "all"
MOST_STAGES = 6
"""Stages at most of which all subsets are scored: 64."""

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


def stages_of(config: RunConfig) -> list[str]:
    """Names of the stages of a run."""
    from moextend.bench.run.complete import stage_names

    return stage_names(config)


def refusal(config: RunConfig, *, subsets: bool) -> str | None:
    """Why the last model of a run has no such variants; None if it has."""
    spec = config.parsed_method()
    scales = spec.kind.scales
    if config.mode == "independent":
        return "an independent run has a model for each stage, and no last one"
    if scales == "nothing":
        return f"what '{spec.text}' learns cannot be scaled"
    if subsets and scales != "each":
        return f"the stages of '{spec.text}' train the same weights, and none of them can be left out"
    if subsets and len(stages_of(config)) < 2:
        return "it has one stage"
    return None


def rewound(config: RunConfig) -> list[Variant]:
    """The variants of the rewind dial."""
    return [tuple((stage, strength) for stage in stages_of(config)) for strength in DIAL]


def subsets(config: RunConfig, wanted: str = LEAVE_ONE_OUT) -> list[Variant]:
    """The variants without some stages.

    Args:
        wanted: leave-one-out; all; or a list of the subsets that stay, as "colour+count,2+3": by names or numbers.

    Raises:
        InputError: too many stages for all subsets, or a stage is named twice.  UnknownName: no such stage.
    """
    stages = stages_of(config)
    if wanted == LEAVE_ONE_OUT:
        kept = [tuple(other for other in stages if other != stage) for stage in stages]
    elif wanted == ALL:
        if len(stages) > MOST_STAGES:
            raise InputError(
                f"{len(stages)} stages have {2 ** len(stages):,} subsets.",
                where="--also subsets=all",
                hint=f"All are scored for up to {MOST_STAGES} stages. Name some, as 1+2,2+3, or take {LEAVE_ONE_OUT}.",
            )
        kept = [subset for n in range(len(stages) + 1) for subset in combinations(stages, n)]
    else:
        kept = [_named(stages, words) for words in wanted.split(",")]
    return [tuple((stage, float(stage in subset)) for stage in stages) for subset in dict.fromkeys(kept)]


def _named(stages: Sequence[str], words: str) -> tuple[str, ...]:
    """The stages of a subset as "colour+2"."""
    found = []
    for word in words.split("+"):
        name = word.strip()
        if name.isdecimal() and 1 <= int(name) <= len(stages):
            name = stages[int(name) - 1]
        if name not in stages:
            raise UnknownName("stage", name, [LEAVE_ONE_OUT, ALL, *stages], where="--also subsets")
        found.append(name)
    if len(set(found)) < len(found):
        raise InputError(f"'{words}' names a stage twice.", where="--also subsets", hint="Name each once.")
    return tuple(stage for stage in stages if stage in found)


def label(variant: Variant) -> str:
    """A variant in a few words."""
    strengths = {strength for _, strength in variant}
    if len(strengths) == 1:
        return f"strength {strengths.pop():g}"
    gone = [stage for stage, strength in variant if not strength]
    if strengths == {0.0, 1.0}:
        return f"without {', '.join(gone)}"
    return ", ".join(f"{stage} {strength:g}" for stage, strength in variant)


def row_of(config: RunConfig, cells: Mapping[tuple[int, str], Cell]) -> str:
    """Digest of the fingerprints of the last row."""
    last = len(stages_of(config))
    return files.digest(
        {task: cell.weights for (stage, task), cell in sorted(cells.items()) if stage == last}
    )


def tasks_of(config: RunConfig) -> list[str]:
    """Tasks that variants are scored on: the learned ones and the text tasks."""
    return [*config.stages, *config.retention]


def append(run: RunDir, cell: VariantCell) -> None:
    """Appends a line to variants.jsonl and syncs it to disk."""
    files.append_lines(run.folder / FILE, [line_of(cell, run.id)])


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
