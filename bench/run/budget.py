"""Estimates parameters, memory, files, operations and hours of runs before anything is downloaded (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench.methods.extra import Pass
from moextend.bench.run.data_size import SPLITS, Split, items_of
from moextend.bench.run.method_size import MethodSize, Sizes
from moextend.bench.run.plan import stage_steps
from moextend.bench.sequence import SequenceSpec, memory_texts
from moextend.bench.task import TaskSpec
from moextend.training.encoder_size import ASSUMED_TOKENS, EncoderSize, image_encoder
from moextend.training.splits import held_out
from moextend.training.throughput import THROUGHPUT, UTILISATION

if TYPE_CHECKING:
    from moextend.bench.run.config import RunConfig
    from moextend.training.estimate import Answering, Training

TEXT_TOKENS = 128
"""Assumed text tokens of a conversation, a prompt or a text."""
SOUND_TOKENS = 256
"""Assumed tokens of a sound or another medium that is no image."""
ANSWER_TOKENS = 32
"""Assumed number of learned tokens of a conversation."""
REQUESTS = 4
"""Assumed continuations that are rated for an item of a text task."""
GB, TERA = 1e9, 1e12


@dataclass(frozen=True)
class Plan:
    """What the runs of a command have in common."""

    sequence: SequenceSpec
    tasks: Mapping[str, TaskSpec]
    workspace: Path

    @cached_property
    def encoder(self) -> EncoderSize | None:
        """The image encoder."""
        name = self.sequence.base.encoders_in(self.workspace).get("image")
        return image_encoder(name) if name else None

    def length(self, name: str) -> int:
        """Tokens of a conversation of a task."""
        found = TEXT_TOKENS
        for modality in self.tasks[name].modalities:
            image = modality in ("image", "video")
            found += (self.encoder.tokens if self.encoder else ASSUMED_TOKENS) if image else SOUND_TOKENS
        return found

    @property
    def text(self) -> int:
        """Tokens of a generic text."""
        return TEXT_TOKENS

    @cached_property
    def generic(self) -> int:
        """Number of generic texts."""
        return len(memory_texts(self.sequence.memory_file()))

    @cached_property
    def counts(self) -> dict[str, dict[Split, int | None]]:
        """Task -> split -> number of its items; small local files are read for it."""
        return {name: {split: self._count(name, split) for split in SPLITS} for name in self.tasks}

    def items(self, name: str, split: Split) -> int | None:
        """Number of items of a task; None: not known."""
        return self.counts[name][split]

    def _count(self, name: str, split: Split) -> int | None:
        found, limit = items_of(self.tasks[name], split, self.workspace), self.sequence.scoring.limit
        if split == "train" or limit is None:
            return found
        return limit if found is None else min(limit, found)


def budget(
    configs: Sequence[RunConfig],
    plan: Plan,
    make: Callable[[], Any],
    *,
    device: str = "auto",
    throughput: float | None = None,
) -> dict[str, Any]:
    """Estimates of runs, with the assumptions.

    Args:
        make: returns a new language model on device meta (matching.skeleton).
        throughput: operations a second that are reached, in units of 1e12; None: a share of the device's peak.

    Raises:
        InputError: the base's config cannot be read, or its forward pass cannot be traced.
    """
    import torch

    from moextend.training.estimate import OVERHEAD, size_of

    lm, sequence = make(), plan.sequence
    own = lm.config.dtype or torch.float32
    dtype = own if sequence.base.dtype == "auto" else getattr(torch, sequence.base.dtype)
    sizes = _sizes(plan, make, lm, dtype)
    size = size_of(sizes.base())
    kind = "cpu" if device.startswith("cpu") else "cuda"
    reached = throughput or THROUGHPUT[kind][1] * UTILISATION
    shared = _Shared(plan, sizes, sizes.answers(), _alignment(plan, sizes))
    runs = {config.slug: _run(config, shared, reached) for config in configs}
    return {
        "rows": sizes.step.rows,
        "tokens": sizes.step.length,
        "labelled": sizes.step.labelled,
        "base_dtype": str(dtype).removeprefix("torch."),
        "base_mb": size.total * dtype.itemsize / 1e6,
        "parameters": size.total,
        "active_parameters": size.active,
        "largest_layer_gb": size.largest_layer / GB,
        "bf16": sizes.step.bf16,
        "gradient_checkpointing": sizes.step.checkpointing,
        "throughput": reached,
        "throughput_of": None if throughput else THROUGHPUT[kind][0],
        "unit": f"{'CPU' if kind == 'cpu' else 'GPU'}-hours",
        "overhead_gb": OVERHEAD / GB,
        "encoder": vars(plan.encoder) if plan.encoder else None,
        "items": plan.counts,
        "scoring": {"rows": sizes.rows, "tokens": sizes.length, "new": sizes.new},
        "cache_mb_a_token": shared.answers.cache_a_token / 1e6,
        "runs": runs,
    }


@dataclass
class _Shared:
    """What all runs have in common."""

    plan: Plan
    sizes: Sizes
    answers: Answering
    """Of the base."""
    alignment: float
    """Operations of all alignments, in units of 1e12."""

    @cached_property
    def probe(self) -> Training:
        """A step that tunes routers."""
        return self.sizes.probe()


def _sizes(plan: Plan, make: Callable[[], Any], lm: Any, dtype: Any) -> Sizes:
    from moextend.model.lm_head import text_config
    from moextend.training.tracing import Step

    sequence, train = plan.sequence, plan.sequence.train
    config = text_config(lm.config)
    context = getattr(config, "max_position_embeddings", None) or 2**31
    scored = [*(stage.task for stage in sequence.stages), *sequence.retention, *sequence.transfer]
    new = max((plan.tasks[name].max_new_tokens for name in scored), default=1)
    return Sizes(
        make=make,
        dtype=dtype,
        step=Step(
            rows=train.batch_size,
            length=min(context, max(plan.length(stage.task) for stage in sequence.stages)),
            labelled=ANSWER_TOKENS,
            bf16=train.bf16,
            checkpointing=train.gradient_checkpointing,
            accumulated=train.gradient_accumulation > 1,
        ),
        rows=sequence.scoring.batch_size,
        length=min(context, max(plan.length(name) for name in scored)),
        new=new,
        features=config.hidden_size + 2 * (plan.encoder.width if plan.encoder else 0),
        items=min(plan.items(stage.task, "train") or 10**9 for stage in sequence.stages),
    )


def _alignment(plan: Plan, sizes: Sizes) -> float:
    """Operations of all alignments, in units of 1e12."""
    from moextend.training.tracing import Step

    total = 0.0
    for align in plan.sequence.alignments:
        step = Step(
            align.batch_size, plan.length(align.task), ANSWER_TOKENS, align.bf16, align.gradient_checkpointing
        )
        total += align.steps * align.gradient_accumulation * sizes.alignment(step).operations
    return total / TERA


def _run(config: RunConfig, shared: _Shared, reached: float) -> dict[str, Any]:
    plan, size = shared.plan, shared.sizes.of(config.parsed_method())
    steps = dict(stage_steps(config))
    joint = config.mode == "joint"
    stages = [list(steps)] if joint else [[name] for name in steps]
    alone = config.mode == "independent"
    scored = [*config.stages, *config.retention, *config.transfer]
    rows = [_scoring(shared, scored, shared.answers)]
    learned: list[dict[str, Any]] = []
    for index, names in enumerate(stages, 1):
        before = 0 if alone else index - 1
        learned.append(
            {
                "task": "+".join(names),
                "steps": sum(steps[name] for name in names),
                "stored_mb": size.stored / 1e6,
                "teraflop": _stage(shared, size, names, steps, before),
            }
        )
        rows.append(_scoring(shared, scored, size.answering, size.extra.together * before))
    unknown = sorted({name for row in rows for name, value in row.items() if value is None})
    parts = {
        "alignment": shared.alignment,
        "encoder": _encoding(plan, [*config.stages, *config.transfer]),
        **{key: sum(stage["teraflop"][key] for stage in learned) for key in ("training", "other passes")},
        "scoring": sum(value or 0.0 for row in rows for value in row.values()),
    }
    total = sum(parts.values())
    return {
        "method": config.method,
        "mode": config.mode,
        "parameters": {"trained": size.trained},
        "memory": _memory(shared, size, 1 if alone else len(stages)),
        "stages": learned,
        "stored_mb": size.stored * len(stages) / 1e6,
        "teraflop": parts,
        "teraflop_in_all": total,
        "hours": total / reached / 3600,
        "without_scoring_of": unknown,
    }


def _stage(
    shared: _Shared, size: MethodSize, names: list[str], steps: Mapping[str, int], before: int
) -> dict[str, float]:
    """Operations of a stage, in units of 1e12."""
    plan, step, answers = shared.plan, shared.sizes.step, size.answering
    train = plan.sequence.train
    length = sum(plan.length(name) * steps[name] for name in names) / sum(steps[name] for name in names)
    batches = sum(steps[name] for name in names) * train.gradient_accumulation
    tokens = step.rows * min(length, step.length)
    if size.training is None:
        return {"training": 0.0, "other passes": 0.0}
    a_token = size.training.operations / step.tokens - size.skipped
    more = size.sampled + size.extra.replayed * a_token if before or plan.generic else 0.0
    if before and size.extra.teacher:
        more += answers.forward(step.rows, tokens / step.rows, step.labelled, step.rows)
    if before and size.extra.together:  # frozen parts of earlier stages: forward, and back to their inputs
        one = replace(answers, a_call=shared.answers.a_call)
        own = one.forward(step.rows, tokens / step.rows, 0, step.rows)
        base = shared.answers.forward(step.rows, tokens / step.rows, 0, step.rows)
        more += before * (3 if step.checkpointing else 2) * (own - base)
    passes = sum(_pass(shared, each, size, names) for each in size.extra.passes)
    if size.probe_steps:
        share = tokens / step.tokens
        passes += size.probe_steps * train.gradient_accumulation * shared.probe.operations * share
    return {"training": batches * (a_token * tokens + more) / TERA, "other passes": passes / TERA}


def _pass(shared: _Shared, over: Pass, size: MethodSize, names: list[str]) -> float:
    """Operations of a pass over data; of data that is not known, none."""
    plan, step = shared.plan, shared.sizes.step
    if over.over == "generic":
        count, length = plan.generic, plan.text
    else:
        found = [plan.items(name, "train") or 0 for name in names]
        kept = [held_out(many) for many in found]
        count = sum(kept) if over.over == "held-out" else sum(found) - sum(kept)
        length = max(plan.length(name) for name in names)
    count = over.times * min(count, over.most or count)
    if size.single is not None and over.backward:
        return count * size.single.operations * length / step.length
    return size.answering.forward(count, length, 0, step.rows)


def _scoring(
    shared: _Shared, names: Sequence[str], answers: Answering, before: int = 0
) -> dict[str, float | None]:
    """Task -> operations of its scoring in units of 1e12; None: its number of items is not known."""
    # peft adds the weights of all stacked adapters in the operations of one.
    one, base = replace(answers, a_call=shared.answers.a_call), shared.answers
    found: dict[str, float | None] = {}
    for name in names:
        items = shared.plan.items(name, "test")
        if items is None:
            found[name] = None
        else:
            own, adapted, bare = (_answers(shared, name, items, how) for how in (answers, one, base))
            found[name] = (own + before * (adapted - bare)) / TERA
    return found


def _answers(shared: _Shared, name: str, items: int, how: Answering) -> float:
    """Operations of the scoring of a task's items."""
    task, batch = shared.plan.tasks[name], shared.sizes.rows
    if task.kind == "text":
        return how.forward(items * REQUESTS, TEXT_TOKENS, TEXT_TOKENS, batch)
    return how.operations(items, shared.plan.length(name), task.max_new_tokens, batch)


def _encoding(plan: Plan, names: Sequence[str]) -> float:
    """Operations of the image encoder in units of 1e12: once for each item's image, at most."""
    encoder = plan.encoder
    if encoder is None or encoder.operations is None:
        return 0.0
    counts = [
        plan.items(name, split) or 0
        for name in {*names, *(align.task for align in plan.sequence.alignments)}
        for split in ("train", "test")
        if "image" in plan.tasks[name].modalities
    ]
    return sum(counts) * encoder.operations / TERA


def _memory(shared: _Shared, size: MethodSize, stages: int) -> dict[str, Any]:
    """Peak memory in GB, of a device that holds everything."""
    encoder = shared.plan.encoder
    encoding = 4 * (encoder.parameters or 0) if encoder else 0
    earlier = size.added * (stages - 1) if size.extra.adds else 0.0
    scoring = {
        "weights": size.answering.weights + earlier,
        "encoder": encoding,
        "working": size.answering.working,
    }
    training: dict[str, float] = {}
    if size.training is not None:
        later = stages > 1
        teacher = size.answering.working if later and size.extra.teacher else 0.0
        known = size.extra.replayed if later or shared.plan.generic else 0
        replayed = size.training.working * known / shared.sizes.step.tokens
        training = {
            "frozen": size.training.frozen + earlier,
            "encoder": encoding,
            "learning": size.training.states,
            "copies": 4.0 * size.extra.copies * size.trained * later,
            "working": size.training.working + teacher + replayed,
        }
    return {
        name: {
            "peak_gb": sum(parts.values()) / GB,
            **{f"{key}_gb": value / GB for key, value in parts.items()},
        }
        for name, parts in (("training", training), ("scoring", scoring))
    }
