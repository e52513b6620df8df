"""Whether runs are what they say beside others: answers that are copies, and costs by shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moextend.bench.methods.table import OWN
from moextend.bench.report.collect import Result
from moextend.bench.report.items import AnswerReader
from moextend.bench.run.config import RunConfig
from moextend.bench.run.estimate import Plan, skeletons
from moextend.bench.run.rundir import Key
from moextend.errors import MoextendError
from moextend.util import files

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

ALIKE = 0.95
"""Agreement beyond chance (Cohen's kappa) of which items are right, from which answers count as copied: published runs
of different methods or seeds have at most 0.886, whatever their accuracy."""
ENOUGH = 200
"""Items, below which it says nothing."""
TRAINED = 0.01
"""Relative difference of the trained parameters to those of the shapes of base and method; published runs: 0.004."""
KEPT = (0.7, 1.3)
"""Ratio of kept bytes to those of the shapes; published runs: 0.85 to 1.01."""
OPERATIONS = (0.25, 3.0)
"""Ratio of operations per learned token to those of the shapes; published runs: 0.30 to 1.90."""
TOKENS = 2.0
"""Largest ratio of the tokens of a stage to those of published runs, and of these to it."""


@dataclass(frozen=True)
class Scored:
    """The item scores of a run after its stages, and which of them can tell it from others."""

    cells: list[tuple[Key, int]]
    """(stage, task), number of items."""
    scores: Array
    """[items of all cells]."""
    tells: Array
    """[items of all cells], whether the cell differs from row 0, and its scores from each other."""


class Likeness:
    """Compares the answers of runs; those of a run are read once."""

    def __init__(self) -> None:
        self._read = AnswerReader()
        self._known: dict[Path, Scored] = {}

    def __call__(self, one: Result, other: Result) -> str:
        """How much of two runs is equal; "" if no more than methods or seeds have in common, or nothing is learned."""
        if one.stage_names != other.stage_names or _trained(one) <= _untrained(one):
            return ""
        if (same := _trained(one)) == _trained(other):
            return f"all answers of all {len(same)} trained cells"
        mine, theirs = self._scored(one), self._scored(other)
        if mine.cells != theirs.cells:
            return ""
        tells = (mine.tells | theirs.tells) & ~(np.isnan(mine.scores) | np.isnan(theirs.scores))
        kappa = _kappa(mine.scores[tells] == 1, theirs.scores[tells] == 1) if tells.sum() >= ENOUGH else 0.0
        return f"the right items (kappa {kappa:.3f} of {int(tells.sum()):,} items)" if kappa >= ALIKE else ""

    def _scored(self, result: Result) -> Scored:
        if result.run.folder not in self._known:
            cells, scores, tells = [], [np.empty(0)], [np.empty(0, bool)]
            for key in sorted(key for key in result.cells if key[0] and key[1] in result.tasks):
                answers = self._read(result, result.cells[key])
                if answers is not None:
                    own = answers.score[np.argsort(answers.item, kind="stable")]
                    before = result.cells.get((0, key[1]))
                    learned = before is None or before.sha256 != result.cells[key].sha256
                    cells.append((key, len(own)))
                    scores.append(own)
                    tells.append(np.full(len(own), learned and len(np.unique(own)) > 1))
            self._known[result.run.folder] = Scored(cells, np.concatenate(scores), np.concatenate(tells))
        return self._known[result.run.folder]


def _kappa(one: Array, other: Array) -> float:
    """Cohen's kappa of two arrays of truth values: 1 where they are equal, 0 where as much as by chance."""
    right, other_right = float(one.mean()), float(other.mean())
    chance = right * other_right + (1 - right) * (1 - other_right)
    return (float((one == other).mean()) - chance) / (1 - chance) if chance < 1 else 0.0


def _trained(result: Result) -> set[tuple[Key, str]]:
    """The cells after the first stage, with the digests of their answers."""
    return {(key, cell.sha256) for key, cell in result.cells.items() if key[0]}


def _untrained(result: Result) -> set[tuple[Key, str]]:
    """The same cells, if the base had answered them."""
    return {(key, result.cells[0, key[1]].sha256) for key in result.cells if (0, key[1]) in result.cells}


class Costs:
    """Compares the costs of runs with what base and method give by their shapes, and with published runs."""

    def __init__(self, published: Sequence[Result], workspace: Path) -> None:
        self._published, self._workspace = published, workspace
        self._makes: dict[str, Any] = {}
        self._plans: dict[str, Plan] = {}

    def __call__(self, result: Result) -> list[str] | None:
        """What no run of this method can have; None where nothing of the costs can be computed."""
        config, stages = result.config, result.stage_names
        if config.scored or config.method.partition(":")[0] not in OWN:
            return None
        try:
            plan = self._plan(config)
            size, kept = plan.size(config.method_spec), plan.kept(config.method_spec)
        except MoextendError:  # the base is not here
            return None
        found = [
            f"no costs of stage {stage}" for stage in range(1, len(stages) + 1) if stage not in result.costs
        ]
        for stage, cost in result.costs.items():
            trained, tokens = cost.trained_parameters or 0, cost.tokens or 0
            if abs(trained - size.trained) > TRAINED * size.trained:
                found.append(
                    f"stage {stage} trains {trained:,} parameters, and by its shapes {size.trained:,}"
                )
            name = stages[min(stage, len(stages)) - 1]
            steps = config.steps if config.mode == "joint" else {name: config.steps[name]}
            assumed = sum(plan.step.rows * plan.length(task) * count for task, count in steps.items())
            before = stage - 1 if config.mode == "sequence" else 0
            if size.trained and not _within((cost.flops or 0) / max(tokens, 1),
                                            plan.learning(size, steps, before) / assumed, *OPERATIONS):  # fmt: skip
                found.append(
                    f"stage {stage} takes {(cost.flops or 0) / 1e12:.4g} TFLOP for {tokens:,} tokens"
                )
            others = [*self._tokens(result, stage)]
            if others and size.trained and not min(others) / TOKENS <= tokens <= max(others) * TOKENS:
                found.append(
                    f"stage {stage} has {tokens:,} tokens, and published runs {min(others):,} or more"
                )
        last = max(result.costs, default=0)
        raw = sum(cost.raw_mb for cost in result.costs.values())
        if last and size.trained and not _within(result.costs[last].kept_mb or 0.0, kept / 1e6 + raw, *KEPT):
            found.append(f"keeps {result.costs[last].kept_mb} MB, and by its shapes {kept / 1e6 + raw:.2f}")
        return found

    def _tokens(self, result: Result, stage: int) -> Iterator[int]:
        """Tokens of the same stage of published runs."""
        for other in self._published:
            same = other.config.sequence["sequence"] == result.config.sequence["sequence"]
            if same and other.stage_names == result.stage_names and stage in other.costs:
                yield from filter(None, [other.costs[stage].tokens])

    def _plan(self, config: RunConfig) -> Plan:
        """The plan of the sequence with the settings of a run, as sizes depend on these."""
        key = files.digest(config.experiment(), config.sequence.get("settings"))
        if key not in self._plans:
            sequence = config.sequence_spec
            base = sequence.base.model_dump_json()
            make = self._makes.setdefault(base, skeletons(sequence.base, self._workspace))
            tasks = {name: config.task_spec(name) for name in config.tasks}
            self._plans[key] = Plan(sequence, tasks, self._workspace, make)
        return self._plans[key]


def _within(value: float, expected: float, low: float, high: float) -> bool:
    return low * expected <= value <= high * expected
