"""A stage: its data, its training loop, and what both cost."""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from moextend import Conversation
from moextend.bench.data import conversations
from moextend.bench.methods.method import Stage
from moextend.bench.run.progress import Progress, Unit
from moextend.bench.sequence import memory_texts
from moextend.bench.task import TaskSpec
from moextend.data.conversations import hold_out
from moextend.errors import InputError
from moextend.model.batches import Collator, on_device
from moextend.training import flops
from moextend.training.loop import Report, train
from moextend.training.trainer import ExtraLoss, StepHook
from moextend.util import files

if TYPE_CHECKING:
    from moextend import MultimodalLM
    from moextend.bench.run.context import RunContext
    from moextend.bench.run.records import StageCost


@dataclass(frozen=True)
class StageData:
    """S_t and S_e of a stage (MoExtend section 3.2): no method trains on held-out items in this stage."""

    learn: Sequence[Conversation]
    held_out: Sequence[Conversation]


def stage_data(tasks: Sequence[TaskSpec], workspace: Path, seed: int) -> StageData:
    """Training data of one task, or of several at once (joint training)."""
    return StageData(*hold_out([conversations(task, workspace) for task in tasks], seed))


def generic_text(path: Path | None) -> list[Conversation]:
    """Lines of a sequence's generic text, without labels."""
    return [Conversation(((text, ""),)) for text in memory_texts(path)]


def stage_seed(seed: int, task: str) -> int:
    """Seed of a stage from the run's seed and the task, so that it is the same in every order."""
    return int(files.digest(seed, task)[:7], 16)


@dataclass(frozen=True)
class StageLoop:
    """The training loop of a stage: the same data, order, steps and batches for every method."""

    context: RunContext
    progress: Progress
    model: MultimodalLM
    stage: Stage
    units: Mapping[str, Unit]
    watch: Stopwatch
    flops: dict[str, float | None] = field(default_factory=dict)
    """Phase -> operations of its training."""

    def __call__(
        self,
        *,
        learning_rate: float | None = None,
        data: Sequence[Conversation] | None = None,
        extra_loss: ExtraLoss | None = None,
        step_hook: StepHook | None = None,
        rates: Mapping[str, float] | None = None,
        steps: int | None = None,
        phase: str = "train",
    ) -> Report:
        """Trains the parameters with gradients; see method.Loop."""
        unit = self.units[phase]
        settings = self.context.sequence.train.settings(
            self.stage.seed, steps=steps or unit.steps, learning_rate=learning_rate
        )
        follow = self.progress.follow(unit)

        def on_step(done: int, total: int) -> None:
            follow(done, total)
            self.watch.tick()

        report = train(
            self.model, self.stage.data if data is None else data, settings,
            folder=self.stage.folder / f"{phase}-in-flight", extra_loss=extra_loss, step_hook=step_hook, rates=rates,
            on_step=on_step,
        )  # fmt: skip
        self.progress.finish(unit)
        self.flops[phase] = report.flops
        return report


TESTED = 32
"""Number of conversations for counting the cost of inference."""


def stored_mb(folder: Path) -> float:
    """Size of a stage's files for later stages and for inference, in MB (10^6 bytes)."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6


def kept_mb(cost: StageCost, earlier: Iterable[StageCost], *, needs_earlier: bool) -> float | None:
    """Size of everything that is needed after a stage (`StageCost.kept_mb`); None if a size is not known.

    Args:
        earlier: costs of the stages before.
        needs_earlier: whether the files of earlier stages are needed, too (`Method.needs_earlier`).
    """
    every = [*earlier, cost]
    stored = [each.stored_mb for each in (every if needs_earlier else [cost])]
    known = [size for size in stored if size is not None]
    return sum(known) + sum(each.raw_mb for each in every) if len(known) == len(stored) else None


def peak_memory(model: MultimodalLM) -> dict[str, float]:
    """Peak memory of this process so far, and of its GPU since `reset_gpu_peak`, in MiB."""
    peak = {"peak_rss_mb": _peak_rss()}
    if model.device.type == "cuda":
        peak["peak_gpu_mb"] = torch.cuda.max_memory_allocated(model.device) / 2**20
    return peak


def reset_gpu_peak(model: MultimodalLM) -> None:
    """Resets the peak of the GPU's memory."""
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)


def _peak_rss() -> float:
    # Linux: ru_maxrss of a new program begins with the peak of the process that started it, VmHWM with nothing.
    with suppress(OSError):
        known = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        if known:
            return int(known[1]) / 2**10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def forward_flops(model: MultimodalLM, conversations: Sequence[Conversation]) -> float:
    """Operations per token of a forward pass with the active parameters, with the head at every position."""
    rows: list[Any] = list(conversations[:TESTED])
    collate = Collator.of(model)
    batch = on_device(collate(rows), model.device)
    batch.pop("labels")
    with torch.no_grad(), flops.Counter() as count:
        model(**batch)
    return float(count.total) / int(batch["attention_mask"].sum())


SPENT = "spent.json"
"""File with the costs of all attempts at a stage; removed when the stage's costs are written."""
NOTED_EVERY = 1.0
"""Seconds between two notes: the maximum time that a killed process loses."""


class Stopwatch:
    """Seconds and peak memory of the training of a stage, over all attempts, including killed processes."""

    def __init__(self, folder: Path, model: MultimodalLM) -> None:
        self.path, self.model = folder / SPENT, model
        self.began = self.noted = time.monotonic()
        self.before = _spent(self.path)

    def __enter__(self) -> Self:
        reset_gpu_peak(self.model)
        return self

    def __exit__(self, *error: object) -> None:
        self._note()

    def tick(self) -> None:
        """Writes the time if the last note is old enough."""
        if time.monotonic() - self.noted >= NOTED_EVERY:
            self._note()

    def spent(self) -> dict[str, float]:
        """Seconds of all attempts, and their maximum memory (see peak_memory)."""
        seconds = self.before.get("seconds", 0.0) + time.monotonic() - self.began
        peaks = {k: max(v, self.before.get(k, 0.0)) for k, v in peak_memory(self.model).items()}
        return {"seconds": seconds, **peaks}

    def _note(self) -> None:
        # Not synced: it is written every second, and a power cut may cost a second.
        temporary = self.path.with_name(f".{SPENT}")
        files.may_change(self.path)
        with files.disk_errors(self.path):
            temporary.write_text(json.dumps(self.spent()) + "\n", encoding="utf-8")
            temporary.replace(self.path)
        self.noted = time.monotonic()


def forget_spent(folder: Path) -> None:
    """Removes the notes of a stage when its costs are written."""
    files.remove(folder / SPENT)


def _spent(path: Path) -> dict[str, float]:
    try:
        found = files.read_json(path)
    except (FileNotFoundError, InputError):
        return {}
    known = found if isinstance(found, dict) else {}
    return {name: float(value) for name, value in known.items() if isinstance(value, int | float)}
