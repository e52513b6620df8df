"""What the base answers: row 0 of a kept run of the sequence, or answers that are made now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench import methods
from moextend.bench.executors.executor import Options
from moextend.bench.executors.local import LocalExecutor
from moextend.bench.executors.submitting import follow, submit
from moextend.bench.run.inputs import Memo, refuse_other_inputs
from moextend.bench.run.live import view
from moextend.bench.run.opening import clear, open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.rundir import Cell, RunConfig, RunDir, find_runs
from moextend.bench.score.kept import read_predictions
from moextend.bench.score.vqa import ItemScore, score_items
from moextend.bench.scorers import search
from moextend.bench.sequence import SequenceSpec
from moextend.errors import MoextendError, RunConflict

if TYPE_CHECKING:
    from rich.console import Console

SMALL = "tiny"
"""Base of the package that answers within a minute."""


@dataclass(frozen=True)
class BaseRow:
    """Row 0 of a run."""

    run: RunDir | None = None
    cells: Mapping[str, Cell] | None = None
    reason: str = ""
    """Why there is none."""

    def cell(self, task: str) -> Cell | None:
        """Score of a task; None if it is not known."""
        return (self.cells or {}).get(task)

    def items(self, task: str) -> list[ItemScore]:
        """Scores of the items of a task about media; empty if they are not known."""
        cell = self.cell(task)
        if cell is None or cell.predictions is None or self.run is None or cell.by_lm_eval:
            return []
        search(self.run.config.workspace)
        records = read_predictions(self.run.folder / cell.predictions, cell.sha256)
        return score_items(records, cell.scorer)[1] if records else []


def base_row(
    sequence: SequenceSpec, workspace: Path, runs: Path, *, answer: bool | None, console: Console
) -> BaseRow:
    """Row 0 of a kept run with the same settings; else of a run of the base alone, in the cache of the workspace.

    Args:
        console: where the progress of these answers is shown.
        answer: whether the base answers now if no run is kept; None: if it is the tiny base of the package.
    """
    memo: Memo = {}
    if not sequence.is_trained:
        scored = [run for run in _kept(runs, sequence.sequence) if _answers(run.config, sequence)]
        return _first_row(scored, memo) or BaseRow(reason="no scored run has answers of a base yet")
    request = Request(workspace, sequence.sequence, methods=(methods.named("base"),))
    try:
        (config,) = resolve(request)
    except MoextendError as error:
        return BaseRow(reason=f"not answered by the base: {error}")
    same = [run for run in _kept(runs, sequence.sequence) if run.config.experiment() == config.experiment()]
    if found := _first_row(same, memo):
        return found
    if not (sequence.base.model == SMALL if answer is None else answer):
        return BaseRow(reason=f"not answered by the base '{sequence.base.model}' yet (add --base)")
    cache = workspace / ".cache" / "audit"
    run = open_run(config, cache / config.digest)  # another config has its own folder
    try:
        refuse_other_inputs(run, memo)
    except RunConflict:
        with run.lock():
            clear(run)
        run = open_run(config, cache / config.digest)
    if not row_of(run).cells:
        executor = LocalExecutor()
        with view([run.folder], 1, console) as shown:
            jobs = submit(executor, [run.folder], Options())
            (outcome,) = follow(executor, jobs, shown).values()
        if outcome.state != "done":
            return BaseRow(reason=f"the base could not answer: {outcome.error or outcome.state}")
    return row_of(run)


def _answers(config: RunConfig, sequence: SequenceSpec) -> bool:
    """Whether a run that only scores is of this version of a sequence, and of as many items."""
    own = config.sequence
    limit = own.get("scoring", {}).get("limit")
    return config.scored and (own["version"], limit) == (sequence.version, sequence.scoring.limit)


def _first_row(runs: Iterable[RunDir], memo: Memo) -> BaseRow | None:
    """Row 0 of the first run that has a complete one of the data that are audited."""
    for run in runs:
        with suppress(MoextendError):  # damaged, or made of other data
            refuse_other_inputs(run, memo)
            if (found := row_of(run)).cells:
                return found
    return None


def _kept(runs: Path, sequence: str) -> Iterator[RunDir]:
    """Runs of the sequence; damaged ones, which `bench status` names, are left out."""
    for run in find_runs(runs):
        with suppress(MoextendError):
            if run.config.sequence.get("sequence") == sequence:
                yield run


def row_of(run: RunDir) -> BaseRow:
    """Row 0, if it is complete."""
    config = run.config
    scored = {*config.stages, *config.retention, *config.transfer}
    cells = {task: cell for (stage, task), cell in run.cells().items() if stage == 0 and task in scored}
    return BaseRow(run, cells) if cells.keys() == scored else BaseRow()
