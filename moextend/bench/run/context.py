"""The context of a run: config, method, tasks and data, resolved from its folder, and whether they are as before."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from moextend.bench import scorers
from moextend.bench.data import data_digest
from moextend.bench.data.source import Split, is_generated
from moextend.bench.run.complete import forget_training
from moextend.bench.run.config import stage_name
from moextend.bench.run.inputs import (
    FILES,
    GENERIC,
    OPENED,
    checkpoint_part,
    code_parts,
    data_part,
    file_parts,
    has_version,
    known,
    method_part,
    pin_data,
    pinned_task,
    recorded,
    refuse_changed,
    scorer_part,
    setting_parts,
    splits,
    text_part,
)
from moextend.bench.run.progress import Unit
from moextend.bench.run.records import AlignmentCost
from moextend.bench.run.rundir import RunDir
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
        self.sequence = self.config.sequence_spec
        self.workspace = self.config.workspace
        scorers.search(self.workspace)
        self.cache = self.workspace / ".cache"
        self.store = Store(self.cache, str(run.folder.resolve()), run.id)
        self.method_spec = self.config.method_spec
        self.method = self.method_spec.make()
        self.backend = self.config.backend_settings()
        self.servers: Servers | None = None
        """What scores by a server, while the run is executed; None: everything is scored in process."""
        self.inputs: dict[str, str] = {}
        """Part -> digest of what the run works on now (inputs.py)."""
        self.answering = ""
        """Digest of the checkpoint that answers now, of a run that only scores."""
        self.failures: list[str] = []
        self.text_recorded: set[str] = set()
        """Tasks whose commits on the hub are recorded, if they have any."""
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
        from moextend.bench.run.stage import generic_text

        return generic_text(self.sequence.memory_file())

    @cached_property
    def base_weights(self) -> set[str]:
        """Fingerprints of the base in row 0; read when that row is scored."""
        return {cell.weights for (stage, _), cell in self.run.cells().items() if stage == 0}

    @property
    def text_untouched(self) -> bool:
        """Whether no text can reach what the run learns: it learns from media alone, and its method asks for them."""
        return self.method.text_untouched and all(self.tasks[name].modalities for name in self.config.stages)

    def steps(self, names: Sequence[str]) -> int:
        """Training steps of a stage."""
        return sum(self.config.steps[name] for name in names)


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
    probe, merge = context.method.probe_steps, context.method.merge_steps
    for index, names in enumerate([[], *context.stages]):
        if names and not context.config.scored:
            units += [Unit("probe", index, names[0], probe)] if probe else []
            units.append(Unit("train", index, names[0], context.steps(names)))
            units += [Unit("merge", index, names[0], merge)] if merge else []
        units += [Unit("score", index, name, PERCENT) for name in context.scored]
    return units


def of_cell(context: RunContext, stage: int, task: str) -> dict[str, str]:
    """The parts that a cell is made of: the base, its task, and what was learned up to its stage."""
    tasks, now = context.tasks, context.inputs
    wanted = [] if has_version(tasks[task]) else [data_part("test", task), text_part(task)]
    read = [part for part in now if part.startswith(FILES)]
    read = [checkpoint_part(stage)] if context.config.scored else read
    wanted += [scorer_part(tasks[task].scorer), OPENED, *read]
    return of_stage(context, stage) | {part: now[part] for part in wanted if part in now}


def of_stage(context: RunContext, stage: int) -> dict[str, str]:
    """The parts that the trainings up to a stage are made of: of the alignments, and of what was learned."""
    config, now, learned = context.config, context.inputs, list[str]()
    if config.scored:
        return {}
    if stage:
        learned = config.stages if config.mode == "joint" else config.stages[:stage]
        learned = learned[-1:] if config.mode == "independent" else learned
    data = [*(align.task for align in context.sequence.align), *learned]
    wanted = [data_part("train", name) for name in data if not has_version(context.tasks[name])]
    wanted += [method_part(config), GENERIC] if stage else []
    return {part: now[part] for part in dict.fromkeys(wanted) if part in now}


def refuse_changed_inputs(context: RunContext) -> None:
    """Records what the run works on: plug-ins, files of models, generic text, and the data of all tasks.

    What no scored cell depends on may change: a stage that was trained with it is trained again (complete.py).

    Raises:
        RunConflict: something changed that a cell was made of.
    """
    pin_data(context.run, context.tasks, context.workspace)
    facts, settings = context.run.facts(), context.method.config.model_dump(mode="json")
    refuse_changed(context.run, setting_parts(facts.settings), setting_parts(settings))
    before, now = known(context.run), {**code_parts(context.config), **file_parts(context.run)}
    refuse_changed(context.run, before, now)
    for name, split in splits(context.config):
        now[data_part(split, name)] = data_digest(context.tasks[name], split, context.workspace)
    refuse_changed(context.run, before, now)
    # Row 0 writes the facts that depend on the data again.
    more = {"majority": None} if any(facts.inputs.get(part, one) != one for part, one in now.items()) else {}
    context.inputs = {**before, **now}
    if more or context.inputs != facts.inputs:
        context.run.write_facts(inputs=context.inputs, **more)


def refuse_data_changed_meanwhile(context: RunContext, *some: tuple[str, Split]) -> None:
    """Raises RunConflict if data changed since the run began, and forgets an interrupted training on them.

    Args:
        some: (task, split) of these data; all by default.
    """
    for name, split in some or splits(context.config):
        task, part = context.tasks[name], data_part(split, name)
        if task.kind == "text" or is_generated(task) or part not in context.inputs:
            continue
        now = data_digest(task, split, context.workspace)
        if now != context.inputs[part] and split == "train":
            for index, names in enumerate(context.stages, 1):
                if name in names:
                    forget_training(context.run.stage_folder(index, stage_name(names)))
        refuse_changed(context.run, context.inputs, {part: now})
