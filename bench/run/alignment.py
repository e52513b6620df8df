"""Aligns the projector of a modality once before the first stage; all methods with the same seed share the result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from moextend.bench.run.records import AlignmentCost
from moextend.bench.sequence import Align
from moextend.bench.store import Node, Store
from moextend.errors import InputError, RunConflict
from moextend.util import files, processes

if TYPE_CHECKING:
    from moextend import Conversation, MultimodalLM


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
        usable = processes.first_says(lambda: _is_usable(node))
        if not usable:
            _train(model, data, settings, seed, node, on_step, modality, check)
            usable = processes.first_says(lambda: _is_usable(node))  # not on a full disk
        if usable:
            projector.load_state_dict(read_tensors(node.folder / WEIGHTS))
        if store.run and processes.is_first():
            node.touch()
            node.add_user()
        cost = _cost(node, settings)
        processes.wait()  # the lease is held until all have read
        return cost


def _train(
    model: MultimodalLM,
    data: Sequence[Conversation],
    settings: Align,
    seed: int,
    node: Node,
    on_step: Callable[[int, int], None],
    modality: str,
    check: Callable[[], None],
) -> None:
    """Trains the projector and keeps it in the node."""
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
        micro_batch=report.micro_batch,
    )  # fmt: skip
    if not processes.is_first():
        return
    files.write_json(node.folder / COST, cost.model_dump())
    write_tensors(node.folder / WEIGHTS, model.modalities[modality].projector.state_dict())
    node.put(
        {name: node.folder / name for name in (WEIGHTS, COST)},
        about=f"projector for {modality} media, aligned on {settings.task} with seed {seed}",
        inputs={"settings": settings.record(), "seed": seed},
        seconds=seconds,
    )


def _is_usable(node: Node) -> bool:
    """Whether the node has a projector. A damaged one is removed, with a warning."""
    from moextend.extension.tensor_files import read_tensors

    if node.card() is None:
        return False
    problem = node.problem()
    try:
        if problem is None:
            read_tensors(node.folder / WEIGHTS)
            return True
    except InputError as error:
        problem = error.what
    node.discard(problem)
    return False


def _cost(node: Node, settings: Align) -> AlignmentCost:
    """The recorded cost; without a readable record only task and steps are known."""
    try:
        record = AlignmentCost.model_validate(files.read_json(node.folder / COST))
        return record.model_copy(update={"task": settings.task})
    except (FileNotFoundError, InputError, ValidationError):
        return AlignmentCost(task=settings.task, steps=settings.steps)
