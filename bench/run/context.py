"""The context of a run: config, method, tasks and data, resolved from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from moextend.bench import scorers
from moextend.bench.run.progress import Unit
from moextend.bench.run.records import AlignmentCost
from moextend.bench.run.revisions import pinned_task, recorded
from moextend.bench.run.rundir import RunDir
from moextend.bench.run.stage_data import generic_text
from moextend.bench.store import Store
from moextend.bench.task import TaskSpec

if TYPE_CHECKING:
    from moextend.bench.run.servers import Servers

PERCENT = 100
"""Steps of a scoring in the progress plan."""


class RunContext:
    """Config, method, tasks and data of a run, resolved from its folder."""

    def __init__(self, run: RunDir) -> None:
        self.run, self.config = run, run.config
        self.sequence = self.config.sequence_spec()
        self.workspace = self.config.workspace
        scorers.search(self.workspace)
        self.cache = self.workspace / ".cache"
        self.store = Store(self.cache, str(run.folder.resolve()), run.id)
        self.method_spec = self.config.parsed_method()
        self.method = self.method_spec.make()
        self.backend = self.config.backend_settings()
        self.servers: Servers | None = None
        """What scores by a server, while the run is executed; None: everything is scored in process."""
        self.inputs: dict[str, str] = {}
        """Part -> digest of what the run works on now (inputs.py)."""
        self.failures: list[str] = []
        self.text_recorded: set[str] = set()
        """Tasks whose commits on the hub are recorded, if they have any."""
        self.micro_batch: int | None = None
        """Conversations per forward pass that fitted in the last training of this process; None: all of a batch."""
        self.alignments: dict[str, AlignmentCost] = {}
        """Modality -> cost of the alignment of its projector; filled when the base is loaded."""

    @property
    def stages(self) -> list[list[str]]:
        """Tasks of each stage: one, or all of them in a joint run."""
        names = self.config.stages
        return [names] if self.config.mode == "joint" else [[name] for name in names]

    @property
    def scored(self) -> list[str]:
        """Columns of the matrix: tasks of the stages, then tasks that are only scored."""
        return [*self.config.stages, *self.config.retention, *self.config.transfer]

    @cached_property
    def tasks(self) -> dict[str, TaskSpec]:
        """Name -> task, for all tasks; data of the hub at the recorded commit."""
        facts = recorded(self.run)
        return {name: pinned_task(self.config.task_spec(name), facts) for name in self.config.tasks}

    @cached_property
    def generic(self) -> Any:
        """The sequence's generic text."""
        return generic_text(self.sequence.memory_file())

    @cached_property
    def base_weights(self) -> set[str]:
        """Fingerprints of the base in row 0; read when that row is scored."""
        return {cell.weights for (stage, _), cell in self.run.cells().items() if stage == 0}

    def steps(self, names: Sequence[str]) -> int:
        """Training steps of a stage."""
        own = {stage.task: stage.steps or self.sequence.train.steps for stage in self.sequence.stages}
        return sum(own[name] for name in names)


def alignments_of(context: RunContext, index: int) -> dict[str, AlignmentCost]:
    """Alignments of the modalities that the tasks of stage `index` (from 1) have, and those of no earlier stage."""

    def modalities(names: Sequence[str]) -> set[str]:
        return {modality for name in names for modality in context.tasks[name].modalities}

    before = {modality for names in context.stages[: index - 1] for modality in modalities(names)}
    new = modalities(context.stages[index - 1]) - before
    return {modality: cost for modality, cost in context.alignments.items() if modality in new}


def plan(context: RunContext) -> list[Unit]:
    """All units of the run, in order."""
    units = [Unit("align", 0, align.task, align.steps) for align in context.sequence.align]
    probe = context.method.probe_steps
    for index, names in enumerate([[], *context.stages]):
        if names:
            units += [Unit("probe", index, names[0], probe)] if probe else []
            units.append(Unit("train", index, names[0], context.steps(names)))
        units += [Unit("score", index, name, PERCENT) for name in context.scored]
    return units
