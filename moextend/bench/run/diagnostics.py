"""Routing after every stage: which new experts each learned task uses, and how far its routing has drifted.

It is measured on a few held-out training conversations per task, with the model prepared for the task as in scoring. No
score depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from moextend import Prompt
from moextend.bench.methods import Method
from moextend.bench.run.context import RunContext
from moextend.bench.run.models import asked_for, learning_data
from moextend.bench.run.records import Inferred, InferredTask, RoutingReport, StageCost, TaskRouting
from moextend.bench.run.rundir import ROUTING
from moextend.bench.run.stage import StageData, stage_seed
from moextend.bench.score import evaluate
from moextend.errors import InputError
from moextend.extension.probe import Use, count_use
from moextend.extension.task_inference import TaskInference, places, prompts_of
from moextend.model.generation import each_by_its_own
from moextend.moe.sites import Site, find_sites
from moextend.util import processes

if TYPE_CHECKING:
    from moextend import Conversation, MultimodalLM

SAMPLE = 32
"""Number of conversations per task."""
ASKED = 256
"""Number of prompts per task for task inference."""
TEXT = "(text)"
"""Name of the sequence's generic text; no task can have it."""

Counts = Mapping[str, Sequence[float]]
"""Extension ("": the base) -> tokens that each of its experts computed, in one block."""


class Diagnostics:
    """Routing diagnostics of a run in sequence mode."""

    def __init__(self, context: RunContext, model: MultimodalLM) -> None:
        self.context = context
        self.sites = _sites(model) if context.config.mode == "sequence" else []
        self._samples: dict[str, list[Conversation]] = {}

    def __call__(self, model: MultimodalLM, index: int, learned: Sequence[str]) -> None:
        """Writes the missing parts of the routing report of stage `index` to its folder."""
        if not self.sites:
            return
        path = self.context.run.stage_folder(index, learned[-1]) / ROUTING
        known = processes.first_says(lambda: self.context.run.routing().get(index))
        report = known or self._report(model, index, learned)
        if self.context.config.oracle and index == len(self.context.stages) and report.oracle is None:
            report = report.model_copy(update={"oracle": self._oracle(model, learned)})
        if report != known and processes.is_first():
            report.write(path)

    def _report(self, model: MultimodalLM, index: int, learned: Sequence[str]) -> RoutingReport:
        before = self.context.run.routing()
        cost = self.context.run.costs().get(index, StageCost())
        tasks = {}
        for name in [*learned, *([TEXT] if self.context.generic else [])]:
            if not self._sample(name):
                continue
            # A task without an extension is answered by the base if the task is given, and so is text.
            self.context.method.select(model, asked_for(self.context, name, learned), learned)
            use = _count(model, self.sites, self._sample(name))
            first = None if name == TEXT else before.get(learned.index(name) + 1)
            tasks[name] = _routing(use, first.tasks.get(name) if first else None)
        return RoutingReport(
            run=self.context.run.id,
            tasks=tasks,
            layers=cost.layers,
            change=cost.change,
            inferred=self._inferred(model, learned),
        )

    def _inferred(self, model: MultimodalLM, learned: Sequence[str]) -> Inferred | None:
        """Extensions that inputs reach if the method infers the task; None if it does not.

        The inputs are from learned tasks (not part of the task statistics), from later tasks, and from generic text.
        """
        self.context.method.select(model, learned[-1], learned)
        if not isinstance(model.choose, TaskInference):
            return None
        shares = {}
        for name in [*self.context.config.stages, *([TEXT] if self.context.generic else [])]:
            data = self._data(name)
            used = set(places(len(data.held_out), len(data.learn))) if name in learned else set[int]()
            others = [i for i in range(len(data.learn)) if i not in used]
            asked = prompts_of([data.learn[i] for i in others[:: max(1, len(others) // ASKED)]][:ASKED])
            if asked:
                shares[name] = InferredTask(inputs=len(asked), reached=dict(model.choose.shares(asked)))
        promised = {name: known.rejected for name, known in model.choose.rule.thresholds.items()}
        return Inferred(rejected=promised, tasks=shares)

    def _data(self, name: str) -> StageData:
        if name == TEXT:
            return StageData(self.context.generic, self.context.generic)
        return learning_data(self.context, [name], stage_seed(self.context.config.seed, name))

    def _sample(self, name: str) -> list[Conversation]:
        if name not in self._samples:
            rows = self._data(name).held_out
            step = max(1, len(rows) // SAMPLE)
            self._samples[name] = [rows[place] for place in range(0, len(rows), step)][:SAMPLE]
        return self._samples[name]

    def _oracle(self, model: MultimodalLM, learned: Sequence[str]) -> dict[str, float | None]:
        """Final score of each task with only its own extension active; {} for a method with the task given."""
        given = self.context.method.with_given_task()
        if given is None:
            return {}
        chooser, model.choose = model.choose, None
        try:
            return {name: self._score(model, given, name, learned) for name in learned}
        finally:
            model.choose = chooser

    def _score(self, model: MultimodalLM, given: Method, name: str, learned: Sequence[str]) -> float | None:
        context = self.context
        try:
            weights = given.select(model, asked_for(context, name, learned), learned)
        except InputError:  # its calibrations read earlier extensions, so that it cannot stand alone
            return None
        return evaluate.score_cell(
            model, context.tasks[name], weights=weights, folder=context.run.predictions,
            scoring=context.sequence.scoring, workspace=context.workspace,
        ).value  # fmt: skip


def drift(then: Sequence[Counts], now: Sequence[Counts]) -> list[float]:
    """KL(then || now) in nats between the experts' shares of the choices, per block; 0.5 is added to each count.

    Experts that did not exist then count as not chosen.
    """
    found = []
    for old, new in zip(then, now, strict=True):
        sizes = {name: len(counts) for block in (old, new) for name, counts in block.items()}
        p, q = (
            [c + 0.5 for name, n in sizes.items() for c in block.get(name, [0] * n)] for block in (old, new)
        )
        found.append(
            sum(a / sum(p) * math.log(a / sum(p) * sum(q) / b) for a, b in zip(p, q, strict=True))
            if p != q
            else 0.0
        )
    return found


def _routing(use: Use, then: TaskRouting | None) -> TaskRouting:
    """Record of a task's routing; `then` is the record of the stage that learned the task."""
    experts = [{name: counts.tolist() for name, counts in block.items()} for block in use.experts]
    reached = [{name: n / use.tokens for name, n in block.items() if name} for block in use.reached]
    moved = drift(then.experts, experts) if then else None
    return TaskRouting(tokens=use.tokens, experts=experts, reached=reached, drift=moved)


def _count(model: MultimodalLM, sites: Sequence[Site], rows: Sequence[Conversation]) -> Use:
    """Use of experts by some conversations, each with the extensions that it reaches at inference."""
    use = Use()

    def counted(places: Sequence[int]) -> list[None]:
        count_use(model, sites, [rows[place] for place in places], use)
        return [None] * len(places)

    each_by_its_own(model, [Prompt(row.turns[0][0], row.media) for row in rows], counted)
    return use


def _sites(model: MultimodalLM) -> list[Site]:
    """MoE blocks of the base, determined before adapters wrap them; none in a dense model."""
    try:
        return find_sites(model.lm)
    except InputError:
        return []
