"""Estimates parameters, memory, files, operations and hours of runs from the base's shapes (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from moextend.bench.methods import MethodSpec, Shapes
from moextend.bench.methods.shapes import Extra
from moextend.bench.run.config import RunConfig
from moextend.bench.run.data_size import SPLITS, Split, items_of
from moextend.bench.run.plan import stage_steps
from moextend.bench.sequence import SequenceSpec, memory_texts
from moextend.bench.task import TaskSpec
from moextend.model.lm_head import text_config
from moextend.model.upcycling import parameter_counts
from moextend.training.encoder_size import ASSUMED_TOKENS, EncoderSize, image_encoder
from moextend.training.estimate import (
    OVERHEAD,
    THROUGHPUT,
    UTILISATION,
    Answering,
    Estimator,
    Step,
    Training,
    bytes_of,
    numel_of,
)
from moextend.training.splits import held_out

TEXT_TOKENS, SOUND_TOKENS, ANSWER_TOKENS = 128, 256, 32
"""Assumed text tokens of a conversation, a prompt or a text; tokens of a sound; learned tokens of a conversation."""
REQUESTS = 4
"""Assumed continuations that are rated for an item of a text task."""
HEADER = 120
"""Bytes of a tensor's entry in the header of a safetensors file."""
GB, TERA = 1e9, 1e12


@dataclass(frozen=True)
class MethodSize:
    """What a method trains, stores and computes."""

    trained: int
    """Parameters that a stage trains."""
    added: float
    """Bytes that a stage adds to the model's weights; 0 where it trains weights that are there already."""
    stored: float
    """Bytes of a stage's files, without its records."""
    training: Training | None
    """A step; None: the method trains nothing."""
    single: float
    """Operations of a step of one conversation."""
    answering: Answering
    """After one stage."""
    probe_steps: int
    """Steps of a probe before a stage."""
    extra: Extra


@dataclass(frozen=True)
class Plan:
    """What the runs of a command have in common."""

    sequence: SequenceSpec
    tasks: Mapping[str, TaskSpec]
    workspace: Path
    make: Callable[[], Any]
    """Returns a new language model on device meta (`matching.skeletons`)."""

    @cached_property
    def encoder(self) -> EncoderSize | None:
        """The image encoder."""
        name = self.sequence.base.encoders_in(self.workspace).get("image")
        return image_encoder(name) if name else None

    @cached_property
    def config(self) -> Any:
        """Config of the base's language model."""
        return text_config(self.make().config)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Number type of the base's weights."""
        named = self.sequence.base.dtype
        found = (self.config.dtype or torch.float32) if named == "auto" else getattr(torch, named)
        assert isinstance(found, torch.dtype)
        return found

    def length(self, name: str) -> int:
        """Tokens of a conversation of a task."""
        found = TEXT_TOKENS
        for modality in self.tasks[name].modalities:
            image = modality in ("image", "video")
            found += (self.encoder.tokens if self.encoder else ASSUMED_TOKENS) if image else SOUND_TOKENS
        return min(found, getattr(self.config, "max_position_embeddings", None) or found)

    @cached_property
    def generic(self) -> int:
        """Number of generic texts."""
        return len(memory_texts(self.sequence.memory_file()))

    @cached_property
    def counts(self) -> dict[str, dict[Split, int | None]]:
        """Task -> split -> number of its items; None: not known. Small local files are read for it."""
        return {name: {split: self._count(name, split) for split in SPLITS} for name in self.tasks}

    def items(self, name: str, split: Split) -> int | None:
        """Number of items of a task."""
        return self.counts[name][split]

    def _count(self, name: str, split: Split) -> int | None:
        found, limit = items_of(self.tasks[name], split, self.workspace), self.sequence.scoring.limit
        if split == "train" or limit is None:
            return found
        return limit if found is None else min(limit, found)

    @cached_property
    def step(self) -> Step:
        """A pass of the longest conversations."""
        train = self.sequence.train
        return Step(
            train.batch_size, max(self.length(stage.task) for stage in self.sequence.stages), ANSWER_TOKENS,
            train.bf16, train.gradient_checkpointing, train.gradient_accumulation > 1,
        )  # fmt: skip

    @cached_property
    def scored(self) -> tuple[int, int, int]:
        """Prompts at a time in scoring, most tokens of a prompt, and of an answer."""
        sequence = self.sequence
        names = [*(stage.task for stage in sequence.stages), *sequence.retention, *sequence.transfer]
        new = max((self.tasks[name].max_new_tokens for name in names), default=1)
        return sequence.scoring.batch_size, max(map(self.length, names)), new

    @cached_property
    def base(self) -> Answering:
        """Answers of the base."""
        return self.estimator().answering(*self.scored)

    def estimator(self) -> Estimator:
        """A new base, of which nothing learns."""
        return Estimator(self.make(), self.dtype)

    @cached_property
    def _sizes(self) -> dict[str, MethodSize]:
        return {}

    def size(self, spec: MethodSpec) -> MethodSize:
        """Size of a method."""
        if spec.text not in self._sizes:
            self._sizes[spec.text] = self._size(spec)
        return self._sizes[spec.text]

    def _size(self, spec: MethodSpec) -> MethodSize:
        base, method, step = self.estimator(), spec.make(), self.step
        items = min(self.items(stage.task, "train") or 10**9 for stage in self.sequence.stages)
        features = self.config.hidden_size + 2 * (self.encoder.width if self.encoder else 0)
        shapes = Shapes(base.lm, features, items, held_out(items) * step.length)
        before, extra = bytes_of(base.lm.parameters()), method.extra(shapes)
        with torch.device("meta"):
            learning = method.trainable(shapes)
        base.learn_only(learning.values())
        stored = bytes_of(learning.values()) + HEADER * len(learning)
        return MethodSize(
            trained=numel_of(learning.values()),
            added=bytes_of(base.lm.parameters()) - before,
            stored=extra.stored_copies * stored + extra.stored,
            training=base.training(step) if learning else None,
            single=base.training(replace(step, rows=1, checkpointing=False)).operations,
            answering=base.answering(*self.scored),
            probe_steps=method.probe_steps,
            extra=extra,
        )

    @cached_property
    def alignment(self) -> float:
        """Operations of all alignments."""
        total = 0.0
        for align in self.sequence.alignments:
            step = Step(
                align.batch_size,
                self.length(align.task),
                ANSWER_TOKENS,
                align.bf16,
                align.gradient_checkpointing,
            )
            one = self.estimator().training(step, inputs=True).operations
            total += align.steps * align.gradient_accumulation * one
        return total

    def encoding(self, names: Sequence[str]) -> float:
        """Operations of the image encoder: once for each item's image, at most."""
        if self.encoder is None or self.encoder.operations is None:
            return 0.0
        images = {*names, *(align.task for align in self.sequence.alignments)}
        counts = [
            self.items(name, split) or 0
            for name in images
            for split in SPLITS
            if "image" in self.tasks[name].modalities
        ]
        return sum(counts) * self.encoder.operations

    def learning(
        self, size: MethodSize, names: Sequence[str], steps: Mapping[str, int], before: int
    ) -> dict[str, float]:
        """Operations of a stage with these tasks, after `before` others: of its training, and of other passes."""
        if size.training is None:
            return {"training": 0.0, "other passes": 0.0}
        step, extra, answers = self.step, size.extra, size.answering
        accumulation = self.sequence.train.gradient_accumulation
        count = sum(steps[name] for name in names)
        length = sum(self.length(name) * steps[name] for name in names) / count
        tokens, a_token = step.rows * length, size.training.operations / step.tokens
        each = tokens * a_token
        if before or self.generic:
            each += extra.replayed * a_token + extra.sampled * 6 * size.trained
        if before and extra.teacher:
            each += answers.forward(step.rows, length, step.labelled, step.rows)
        if before and extra.together:  # frozen parts of earlier stages: forward, and back to their inputs
            each += before * (3 if step.checkpointing else 2) * tokens * (answers.a_token - self.base.a_token)
        found = [self.items(name, "train") or 0 for name in names]
        held = sum(map(held_out, found))
        other = answers.forward(extra.held_out * held + extra.generic * self.generic, length, 0, step.rows)
        other += min(extra.gradients, sum(found) - held) * size.single * length / step.length
        if size.probe_steps:
            probe = self.estimator().probe(step).operations * length / step.length
            other += size.probe_steps * accumulation * probe
        return {"training": count * accumulation * each, "other passes": other}

    def scoring(
        self, names: Sequence[str], size: MethodSize | None = None, before: int = 0
    ) -> dict[str, float | None]:
        """Task -> operations of its scoring, of the base or a method; None: its number of items is not known."""
        how = self.base if size is None else size.answering
        if size is not None and size.extra.together:
            how = replace(how, a_token=how.a_token + before * (how.a_token - self.base.a_token))
        found: dict[str, float | None] = {}
        for name in names:
            items, task, batch = self.items(name, "test"), self.tasks[name], self.scored[0]
            if items is None:
                found[name] = None
            elif task.kind == "text":
                found[name] = how.forward(items * REQUESTS, TEXT_TOKENS, TEXT_TOKENS, batch)
            else:
                found[name] = how.operations(items, self.length(name), task.max_new_tokens, batch)
        return found

    def memory(self, size: MethodSize, stages: int) -> dict[str, dict[str, float]]:
        """Peak memory in GB of the training and the scoring of `stages` stages, and its parts."""
        encoder = 4 * (self.encoder.parameters or 0) if self.encoder else 0
        earlier = size.added * (stages - 1) if size.extra.adds else 0.0
        answers, later, training = size.answering, stages > 1, {}
        if size.training is not None:
            replayed = size.extra.replayed if later or self.generic else 0
            working = size.training.working * (1 + replayed / self.step.tokens)
            training = {
                "frozen": size.training.frozen + earlier,
                "encoder": encoder,
                "learning": size.training.states,
                "copies": 4.0 * size.extra.copies * size.trained * later,
                "working": working + (answers.working if later and size.extra.teacher else 0.0),
            }
        scoring = {"weights": answers.weights + earlier, "encoder": encoder, "working": answers.working}
        return {
            name: {
                "peak_gb": sum(parts.values()) / GB,
                **{f"{key}_gb": value / GB for key, value in parts.items()},
            }
            for name, parts in (("training", training), ("scoring", scoring))
        }


def estimate(configs: Sequence[RunConfig], plan: Plan, *, device: str = "auto") -> dict[str, Any]:
    """Estimates of runs, with the assumptions.

    Raises:
        InputError: the base's config cannot be read.
    """
    step, (rows, length, new) = plan.step, plan.scored
    total, active = parameter_counts(plan.make())
    kind = "cpu" if device.startswith("cpu") else "cuda"
    name, peak = THROUGHPUT[kind]
    return {
        "rows": step.rows, "tokens": step.length, "labelled": step.labelled,
        "base_dtype": str(plan.dtype).removeprefix("torch."), "base_mb": total * plan.dtype.itemsize / 1e6,
        "parameters": total, "active_parameters": active, "bf16": step.bf16,
        "gradient_checkpointing": step.checkpointing, "throughput": peak * UTILISATION,
        "throughput_of": f"{UTILISATION:.0%} of the peak of {name}",
        "unit": "CPU-hours" if kind == "cpu" else "GPU-hours", "overhead_gb": OVERHEAD / GB,
        "encoder": vars(plan.encoder) if plan.encoder else None, "items": plan.counts,
        "scoring": {"rows": rows, "tokens": length, "new": new},
        "cache_mb_a_token": plan.base.cache_a_token / 1e6,
        "runs": {config.slug: _run(config, plan, peak * UTILISATION) for config in configs},
    }  # fmt: skip


def _run(config: RunConfig, plan: Plan, reached: float) -> dict[str, Any]:
    size, steps = plan.size(config.parsed_method()), dict(stage_steps(config))
    stages = [list(steps)] if config.mode == "joint" else [[name] for name in steps]
    alone = config.mode == "independent"
    scored = [*config.stages, *config.retention, *config.transfer]
    rows = [plan.scoring(scored)]
    learned: list[dict[str, Any]] = []
    for index, names in enumerate(stages):
        before = 0 if alone else index
        found = plan.learning(size, names, steps, before)
        learned.append(
            {
                "task": "+".join(names),
                "steps": sum(steps[name] for name in names),
                "stored_mb": size.stored / 1e6,
                "teraflop": {key: value / TERA for key, value in found.items()},
            }
        )
        rows.append(plan.scoring(scored, size, before))
    parts = {
        "alignment": plan.alignment / TERA,
        "encoder": plan.encoding([*config.stages, *config.transfer]) / TERA,
        **{key: sum(stage["teraflop"][key] for stage in learned) for key in ("training", "other passes")},
        "scoring": sum(value or 0.0 for row in rows for value in row.values()) / TERA,
    }
    total = sum(parts.values())
    return {
        "method": config.method,
        "mode": config.mode,
        "parameters": {"trained": size.trained},
        "memory": plan.memory(size, 1 if alone else len(stages)),
        "stages": learned,
        "stored_mb": size.stored * len(stages) / 1e6,
        "teraflop": parts,
        "teraflop_in_all": total,
        "hours": total / reached / 3600,
        "without_scoring_of": sorted({name for row in rows for name, value in row.items() if value is None}),
    }
