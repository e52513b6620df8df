"""What the runs of a workspace share: aligned projectors, and trained stages.

A projector is aligned once before the first stage, by the first run with the same seed, data and settings.

The key of a stage covers everything that its training depends on: the base with its aligned projectors, the method and
the settings that its training uses, the seed, the tasks so far with their data and the weights that they gave, the
settings of the training, device, versions and code. Orders with the same first tasks, an independent run and a longer
sequence thus share stages, and so do settings that differ only in how tasks are inferred. For a method that trains each
task alone on the base, earlier tasks do not count: its stages are shared by all orders.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench.methods.method import Stage
from moextend.bench.plugins import PACKAGE
from moextend.bench.run.complete import LEARNED, STEM, kept_paths, named_weights, remove_in_flight
from moextend.bench.run.config import JOINT
from moextend.bench.run.context import RunContext
from moextend.bench.run.inputs import data_part
from moextend.bench.run.records import AlignmentCost, StageCost
from moextend.bench.run.rundir import run_name
from moextend.bench.run.together import launched
from moextend.bench.score.evaluate import prompt_digest
from moextend.bench.sequence import Align, memory_texts
from moextend.bench.store import Damaged, Node, Store, numerics
from moextend.errors import InputError, RunConflict
from moextend.util import files, processes

if TYPE_CHECKING:
    from moextend import Conversation, MultimodalLM


log = logging.getLogger(__name__)

CARD = f"{STEM}.json"
"""Written last: a stage without it is not complete."""


def shares(context: RunContext) -> bool:
    """Whether stages and their answers are shared: not those of methods that train nothing, or if it is switched off.

    A plug-in may read what its key does not cover, such as modules next to it. It shares if its class says what its
    training depends on.
    """
    if launched():  # each process of a training would wait for the others' lease
        return False
    own = context.method_spec.source == PACKAGE or "training_settings" in vars(type(context.method))
    return own and context.store.shares_stages and context.method.training_settings is not None


def stage_node(context: RunContext, model: MultimodalLM, stage: Stage) -> Node | None:
    """The node of a stage; None if it is not shared."""
    if not shares(context):
        return None
    return context.store.node("stages", files.digest(_inputs(context, model, stage)))


def method_record(context: RunContext) -> dict[str, Any]:
    """The method with all settings and its source: what answers besides the weights."""
    spec = context.method_spec
    return {
        "name": spec.name,
        "settings": context.method.config.model_dump(mode="json"),
        "source": {**spec.source.record(), "place": ""},
    }


def _inputs(context: RunContext, model: MultimodalLM, stage: Stage) -> dict[str, Any]:
    """Everything that the training of a stage depends on."""
    sequence = context.sequence
    past = [] if context.method.trains_alone else [name for name, _ in stage.earlier]
    base = {**context.config.sequence["base"], "model": "", "revision": None}  # the fingerprint says more
    return {
        "base": model.base_fingerprint(),
        "opened": base,
        "prompts": prompt_digest(model),
        "dtype": str(model.lm.dtype),
        "method": {**method_record(context), "settings": context.method.training_settings},
        "seed": context.config.seed,
        "past": [_task_inputs(context, task) for task in (*past, stage.task)],
        "generic": files.digest(memory_texts(sequence.memory_file())),
        "train": {**sequence.train.model_dump(mode="json"), "steps": None},
        "numerics": numerics(model.device),
        **({"parents": parents_of(context, stage)} if past else {}),
    }


def parents_of(context: RunContext, stage: Stage) -> list[str | None]:
    """Digests of the earlier stages' weights that a training starts from.

    The same tasks may have given other weights: on another device, or by another version.
    """
    return [] if context.method.trains_alone else [named_weights(folder) for _, folder in stage.earlier]


def _task_inputs(context: RunContext, stage: str) -> dict[str, Any]:
    """Tasks of a stage by content, and its steps."""
    names = context.config.stages if stage == JOINT and context.config.mode == "joint" else [stage]
    tasks = {
        name: {"task": context.config.tasks[name], "data": context.inputs[data_part("train", name)]}
        for name in names
    }
    return {"tasks": tasks, "order": names, "steps": context.steps(names)}


def take(stage: Stage, node: Node, prepare: Callable[[], dict[str, Any]]) -> StageCost | None:
    """Copies a stage from its node to the folder of the run; None without a complete node, or if it is damaged.

    `prepare` computes what the run needs besides (`Method.prepare_inference`). The card of the weights is written last,
    so that an interrupted copy is not taken for a stage.
    """
    card = node.card()
    if card is None:
        return None
    try:
        for name in card.files:
            if name != CARD:
                node.copy(name, stage.folder / name)
        noted = stage.folder / LEARNED
        known = StageCost.read(noted)
        if known is None:
            raise Damaged(f"{LEARNED} is missing")
        notes = {**known.notes, **prepare()}
        other = card.made_by not in ("", node.store.run)
        by = run_name(Path(card.made_by)) if other else None
        learned = known.model_copy(
            update={"notes": notes, "trained_by": by, "run": node.store.run_id, "digest": ""}
        )
        learned.write(noted)
        node.copy(CARD, stage.folder / CARD)
    except (Damaged, InputError) as error:
        log.warning("%s: stage %d is trained by this run (%s).", stage.folder, stage.index, error)
        return None
    remove_in_flight(stage.folder)  # of an attempt before another run was done
    log.info("%s: stage %d was trained by %s.", stage.folder, stage.index, card.made_by)
    return learned


def keep(context: RunContext, stage: Stage, node: Node, learned: StageCost) -> None:
    """Keeps a trained stage for other runs, with the cost of its training."""
    own = set(context.method.inference_files)
    found = {path.name: path for path in kept_paths(stage.folder) if path.name not in own}
    noted = stage.folder / f".shared-{LEARNED}"
    try:
        learned.write(noted)
        node.put(
            {**found, LEARNED: noted},
            about=f"{context.method_spec.text}, seed {context.config.seed}: {stage.task} as stage "
            f"{len(stage.earlier) + 1} of {run_name(context.run.folder)}",
        )
    finally:
        files.remove(noted)


WEIGHTS, COST = "projector.safetensors", "cost.json"
IN_FLIGHT = "in-flight"


def align(
    model: MultimodalLM,
    data: Sequence[Conversation],
    settings: Align,
    *,
    seed: int,
    data_name: str,
    store: Store,
    on_step: Callable[[int, int], None],
    modality: str = "image",
    on_wait: Callable[[], None] | None = None,
    check: Callable[[], None] = lambda: None,
) -> AlignmentCost:
    """Gives `model` a projector trained on captions (MoExtend section 3.1), from the store if possible.

    Encoder, language model and the projectors of other modalities stay frozen. `data_name` is a digest of the captions;
    `check` raises RunConflict if they changed meanwhile. The key covers everything that the result depends on. If
    several processes need the same projector, one of them trains it; `on_wait` is called while another one does.
    Returns what the training cost, also if another run trained it.
    """
    from moextend.extension.tensor_files import read_tensors

    projector = model.modalities[modality].projector
    projector.reset(seed)
    chat = model.chat.fingerprint() if model.chat else None
    base = model.base_fingerprint([modality])
    digest = files.digest(base, settings.record(), data_name, seed, chat)
    node = store.node("aligned", processes.first_says(lambda: digest))
    with processes.first_enters(lambda: node.lease(on_wait)):
        usable, cost = processes.first_says(lambda: _is_usable(node)), None
        if not usable:
            cost = _train(model, data, settings, seed, node, on_step, modality, check)
            usable = processes.first_says(lambda: _is_usable(node))  # not on a full disk
        if usable:
            projector.load_state_dict(read_tensors(node.folder / WEIGHTS))
            cost = AlignmentCost.model_validate(files.read_json(node.folder / COST))
        processes.wait()  # the lease is held until all have read
    assert cost is not None
    return cost.model_copy(update={"task": settings.task})


def _train(
    model: MultimodalLM,
    data: Sequence[Conversation],
    settings: Align,
    seed: int,
    node: Node,
    on_step: Callable[[int, int], None],
    modality: str,
    check: Callable[[], None],
) -> AlignmentCost:
    """Trains the projector and keeps it in the node; returns what it cost."""
    from moextend.extension.align import train_projector
    from moextend.extension.tensor_files import write_tensors

    began = time.monotonic()
    report = train_projector(
        model,
        data,
        settings.settings(seed),
        folder=node.folder / IN_FLIGHT,
        on_step=on_step,
        modality=modality,
    )
    try:
        processes.first_says(check)
    except RunConflict:
        shutil.rmtree(node.folder / IN_FLIGHT, ignore_errors=True)
        raise
    seconds = time.monotonic() - began
    cost = AlignmentCost(
        task=settings.task, steps=report.steps, tokens=report.tokens, flops=report.flops, seconds=seconds,
    )  # fmt: skip
    if not processes.is_first():
        return cost
    files.write_json(node.folder / COST, cost.model_dump())
    write_tensors(node.folder / WEIGHTS, model.modalities[modality].projector.state_dict())
    node.put(
        {name: node.folder / name for name in (WEIGHTS, COST)},
        about=f"projector for {modality} media, aligned on {settings.task} with seed {seed}",
    )
    return cost


def _is_usable(node: Node) -> bool:
    """Whether the node has a projector. A damaged one is removed, with a warning."""
    if node.card() is None:
        return False
    if problem := node.problem():
        node.discard(problem)
    return problem is None
