"""Methods over two short stages of small data."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import moextend
from moextend.bench import methods
from moextend.bench.methods.method import Method, Stage
from moextend.data.conversations import Conversation
from moextend.model.batches import Collator
from moextend.training.loop import Report, train
from moextend.training.settings import Settings
from moextend.util.files import digest

TASKS = ("tiny-attributes", "tiny-counting")
SPECS = ["zero-shot", "full-ft", "full-ft:part=gate_up", "lora", "lora-per-task", "lora-per-task:task=inferred",
         "replay", "replay:over=full-ft", "ewc:items=8", "lwf", "o-lora", "moe-lora", "osf", "sdft", "esft",
         "merge-router:merge_steps=3", "moextend", "moextend:scope=auto", "moextend:scope=all",
         "moextend:routing=paper,scope=all",
         "moextend:routing=slot,scope=all"]  # fmt: skip


@dataclass
class World:
    """Two tasks with a few items each, and the folders of their stages."""

    data: dict[str, Any]
    folder: Path
    shared: Path
    """Folder for learned stages that several tests restore."""

    def stage(self, index: int) -> Stage:
        task = TASKS[index - 1]
        earlier = [(name, self.folder / name) for name in TASKS[: index - 1]]
        return Stage(
            index, task, self.data[task].learn[:48], self.data[task].held_out[:24], [], index,
            self.folder / task, earlier, lambda name: self.data[name].learn[:48], batch_size=8,
        )  # fmt: skip


@dataclass
class ShortLoop:
    """The training loop with few steps; keeps its arguments."""

    model: moextend.MultimodalLM
    stage: Stage
    steps: int = 3
    seen: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, *, learning_rate: float | None = None, data: Sequence[Conversation] | None = None,
        steps: int | None = None, phase: str = "train", **hooks: Any,
    ) -> Report:  # fmt: skip
        self.seen = {"data": data, **hooks}
        settings = Settings(
            steps=self.steps, batch_size=8, learning_rate=learning_rate or 5e-3, seed=self.stage.seed
        )
        folder = self.stage.folder / f"{phase}-in-flight"
        return train(
            self.model, self.stage.data if data is None else data, settings,
            folder=folder, **hooks,
        )  # fmt: skip


def loaded() -> moextend.MultimodalLM:
    return moextend.load("tiny", vision="tiny")


@torch.no_grad()
def logits(model: moextend.MultimodalLM, conversations: Sequence[Conversation]) -> Tensor:
    collate = Collator(model.tokenizer, model.modalities)
    batch = collate(list(conversations))
    found: Tensor = model(**batch)["logits"]
    return found


def learn(
    world: World, spec: str, stages: int = 2, steps: int = 3, workspace: Path | None = None
) -> tuple[moextend.MultimodalLM, list[Any]]:
    """The model after these stages, and what each stage's loop was given last."""
    method = methods.parse(spec, workspace=workspace).make()
    model, seen = loaded(), []
    method.start(model, 0)
    for index in range(1, stages + 1):
        stage = world.stage(index)
        loop = ShortLoop(model, stage, steps)
        facts = method.learn(model, stage, loop)
        assert facts["trained_parameters"] > 0 or spec == "zero-shot"
        assert not (facts.keys() & method.prepare_inference(model, stage).keys())
        method.save(model, stage)
        seen.append(loop.seen)
    if (stages, steps, workspace) == (2, 3, None):
        _publish(world, spec)
    return model, seen


def learned(world: World, spec: str) -> World:
    """The world whose stages this method has learned, as `learn` does it, in this test or in an earlier one."""
    known = world.shared / digest(spec)
    if known.is_dir():
        return replace(world, folder=known)
    learn(world, spec)
    return world


def _publish(world: World, spec: str) -> None:
    """Copies the folders of the learned stages, all at once: other processes may look for them."""
    with tempfile.TemporaryDirectory(dir=world.shared) as made, suppress(OSError):  # another one was first
        shutil.copytree(world.folder, Path(made) / "stages")
        (Path(made) / "stages").rename(world.shared / digest(spec))


def restored(world: World, method: Method, stages: int = 2) -> moextend.MultimodalLM:
    """A model with these stages, from their folders."""
    model = loaded()
    method.start(model, 0)
    for index in range(1, stages + 1):
        method.restore(model, world.stage(index))
    return model
