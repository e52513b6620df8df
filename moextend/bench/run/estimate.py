"""What runs take by the shapes of the base on device meta: parameters, memory, operations, hours; and equal sizes.

`matched` chooses settings (`Method.knobs`) with which each method trains as many parameters as a reference. Steps,
batches and the data order are always the same for all methods. No weights are loaded.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench import methods
from moextend.bench.data import open_items
from moextend.bench.data.source import SPLITS, Split, is_generated, parse_split, place
from moextend.bench.methods import Knob, MethodSpec, Shapes
from moextend.bench.methods.shapes import Extra
from moextend.bench.run.config import RunConfig
from moextend.bench.run.preflight import readable
from moextend.bench.sequence import Base, SequenceSpec
from moextend.bench.task import HAND, TaskSpec
from moextend.data.conversations import held_out
from moextend.errors import InputError, at

if TYPE_CHECKING:
    import torch

    from moextend.training.estimate import Answering, EncoderSize, Estimator, Step, Training

NEAR = 0.1
"""Maximum relative difference of two matched sizes."""
TEXT_TOKENS, SOUND_TOKENS, ANSWER_TOKENS = 128, 256, 32
"""Assumed text tokens of a conversation, a prompt or a text; tokens of a sound; learned tokens of a conversation."""
REQUESTS = 4
"""Assumed continuations that are rated for an item of a text task."""
HEADER = 120
"""Bytes of a tensor's entry in the header of a safetensors file."""
GB, TERA = 1e9, 1e12
UPCYCLE = "base.upcycle"
"""Place of an error about a base that cannot be upcycled."""


def skeletons(base: Base, workspace: Path) -> Callable[[], Any]:
    """A function that returns another language model of the base on device meta, upcycled if the sequence says so.

    The base's files are read once, at the first call.
    """

    @cache
    def first() -> Any:
        from moextend.model import loading, upcycling

        lm = loading.skeleton(base.found(workspace), revision=base.revision)
        if base.upcycle is None:
            return lm
        with at(UPCYCLE):
            return upcycling.skeleton(lm, base.upcycle.experts, base.upcycle.top_k)

    return lambda: deepcopy(first())


def matched(
    specs: Sequence[MethodSpec],
    how: str,
    plan: Plan,
    read: Callable[[str], MethodSpec] = methods.parse,
) -> list[tuple[MethodSpec, str]]:
    """Every method with the setting whose trained parameters are nearest to those of the reference, and a note on it.

    `memory` also sets the raw data that a method keeps, so that as many bytes are kept after the last stage.

    Args:
        specs: the methods; one whose text sets a knob itself keeps it.
        how: `params` or `memory`, with `=METHOD` for the reference; else it is the first of `specs` with that role.
        read: parses the METHOD of `how`.

    Raises:
        InputError: the quantity is unknown, there is no reference, or the reference trains nothing.
    """
    by, equals, named = how.partition("=")
    make = plan.make
    if by not in ("params", "memory") or (equals and not named.strip()):
        raise InputError(
            f"cannot match '{how}'.",
            where="--match",
            hint="Match params, memory or steps; params=METHOD, memory=METHOD.",
        )
    reference = read(named) if named else next((each for each in specs if each.role == "reference"), None)
    if reference is None:
        raise InputError(
            f"there is no {methods.named('reference')} among the methods to match the others with.",
            where="--match",
            hint=f"Name the reference: --match {by}=METHOD or {by}=METHOD:KEY=VALUE.",
        )
    text, wanted = reference.text, _trained(reference, make)
    if not wanted:
        raise InputError(f"'{text}' trains nothing.", where="--match", hint="Name another reference.")
    note = (reference, f"{text}: {wanted:,} trained parameters, which the others are matched to")
    found = [note if each.text == text else _nearest(each, wanted, make) for each in specs]
    return [_of_size(*each, plan, plan.kept(reference)) for each in found] if by == "memory" else found


def _of_size(spec: MethodSpec, note: str, plan: Plan, wanted: float) -> tuple[MethodSpec, str]:
    """The method with as much raw data of each stage as makes up the bytes `wanted` after the last stage."""
    key, least, mb = spec.kind.memory_setting, plan.kept(spec), wanted / 1e6
    if key is None or spec.sets(key):
        return spec, f"{note}; {least / 1e6:.2f} MB kept, without raw data"
    if least >= wanted:
        return spec, f"{note}; {least / 1e6:.2f} MB kept without raw data, NOT matched with {mb:.2f}"
    each = (wanted - least) / len(plan.sequence.stages) / 1e6
    return spec.having(key, f"{each:.3g}"), f"{note}; {mb:.2f} MB kept, {each:.3g} of raw data a stage"


def _nearest(spec: MethodSpec, wanted: int, make: Callable[[], Any]) -> tuple[MethodSpec, str]:
    knobs = spec.make().knobs
    given = next((knob.key for knob in knobs if spec.sets(knob.key)), None)
    left = ""
    if given or not knobs:
        left = f"left as it is, {f'its {given} is set' if given else 'it has no rank'}; "
        knobs = ()
    for knob in sorted(knobs, key=lambda knob: not knob.fraction):
        spec = _turned(spec, knob, wanted, make)
    found = _trained(spec, make)
    mark = "" if abs(found - wanted) <= NEAR * wanted else f", NOT matched within {NEAR:.0%}"
    return spec, f"{spec.text}: {left}{found:,} trained parameters{mark}"


def _turned(spec: MethodSpec, knob: Knob, wanted: int, make: Callable[[], Any]) -> MethodSpec:
    """The method with the nearest value of one setting."""
    now = getattr(spec.config, knob.key)
    if knob.fraction:
        # Not by a straight line: widths are rounded up to a multiple of some neurons.
        sizes = cache(lambda percent: _trained(spec.having(knob.key, percent / 100), make))
        if sizes(1) == sizes(100):
            return spec
        below = bisect_right(range(1, 101), wanted, key=sizes)
        above = bisect_right(range(1, 101), sizes(min(100, below + 1)), key=sizes)
        percent = min((max(1, below), above), key=lambda each: abs(sizes(each) - wanted))
        return spec if percent / 100 == now else spec.having(knob.key, f"{percent / 100:g}")
    one, two = (_trained(spec.having(knob.key, value), make) for value in (1, 2))
    count = max(1, 1 + round((wanted - one) / (two - one))) if two > one else 1
    return spec if count == now else spec.having(knob.key, count)


def _trained(spec: MethodSpec, make: Callable[[], Any]) -> int:
    """Parameters that the first stage of a method trains."""
    return sum(parameter.numel() for parameter in spec.make().trainable(Shapes(make())).values())


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
    probe: float
    """Operations of the probe before a stage, as far as they depend on the tokens of a conversation of `step`."""
    merge: float
    """Operations of the merge after the first stage, in the same way."""
    merge_steps: int
    answering: Answering
    """After one stage."""
    extra: Extra


@dataclass(frozen=True)
class Plan:
    """What the runs of a command have in common."""

    sequence: SequenceSpec
    tasks: Mapping[str, TaskSpec]
    workspace: Path
    make: Callable[[], Any]
    """Returns a new language model on device meta (`skeletons`)."""

    @cached_property
    def encoder(self) -> EncoderSize | None:
        """The image encoder."""
        from moextend.training.estimate import image_encoder

        name = self.sequence.base.encoders_in(self.workspace).get("image")
        return image_encoder(name) if name else None

    @cached_property
    def config(self) -> Any:
        """Config of the base's language model."""
        from moextend.model.lm_head import text_config

        return text_config(self.make().config)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Number type of the base's weights."""
        import torch

        named = self.sequence.base.dtype
        found = (self.config.dtype or torch.float32) if named == "auto" else getattr(torch, named)
        assert isinstance(found, torch.dtype)
        return found

    def length(self, name: str) -> int:
        """Tokens of a conversation of a task."""
        from moextend.training.estimate import ASSUMED_TOKENS

        found = TEXT_TOKENS
        for modality in self.tasks[name].modalities:
            image = modality in ("image", "video")
            found += (self.encoder.tokens if self.encoder else ASSUMED_TOKENS) if image else SOUND_TOKENS
        return min(found, getattr(self.config, "max_position_embeddings", None) or found)

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
        from moextend.training.estimate import Step

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
        from moextend.training.estimate import Estimator

        return Estimator(self.make(), self.dtype, self.sequence.base.quantize)

    @cached_property
    def sizes(self) -> dict[str, MethodSize]:
        """The sizes that `size` has found."""
        return {}

    def size(self, spec: MethodSpec) -> MethodSize:
        """Size of a method."""
        import torch

        from moextend.extension.task_rule import KEPT
        from moextend.training.estimate import bytes_of, numel_of

        if spec.text in self.sizes:
            return self.sizes[spec.text]
        base, method, step = self.estimator(), spec.make(), self.step
        items = min(self.items(stage.task, "train") or 10**9 for stage in self.sequence.stages)
        features = self.config.hidden_size + KEPT * (self.encoder.width if self.encoder else 0)
        shapes = Shapes(base.lm, features, items, held_out(items) * step.length)
        before, extra = bytes_of(base.lm.parameters()), method.extra(shapes)
        with torch.device("meta"):
            learning = method.trainable(shapes)
        base.learn_only(learning.values())
        stored = bytes_of(learning.values()) + HEADER * len(learning)
        found = self.sizes[spec.text] = MethodSize(
            trained=numel_of(learning.values()),
            added=bytes_of(base.lm.parameters()) - before,
            stored=extra.stored_copies * stored + extra.stored,
            training=base.training(step) if learning else None,
            probe=method.probe_steps * self.estimator().probe(step).operations if method.probe_steps else 0.0,
            merge=self._merge(base, method.merge_steps, learning),
            merge_steps=method.merge_steps,
            answering=(self.estimator() if extra.merged else base).answering(*self.scored),
            extra=extra,
        )
        return found

    def kept(self, spec: MethodSpec) -> float:
        """Bytes of files that are kept after the last stage, without raw data (`records.StageCost.kept_mb`)."""
        return self.size(spec).stored * (len(self.sequence.stages) if spec.make().needs_earlier else 1)

    def _merge(self, base: Estimator, steps: int, learning: Mapping[str, Any]) -> float:
        """Operations of so many steps in which the routers of an extension learn."""
        if not steps:
            return 0.0
        base.learn_only(row for name, row in learning.items() if ".ext_parts." in name)
        return steps * base.training(self.step).operations

    @cached_property
    def alignment(self) -> float:
        """Operations of all alignments."""
        total = 0.0
        for align in self.sequence.align:
            like = replace(
                self.step, rows=align.batch_size, length=self.length(align.task), bf16=align.bf16,
                checkpointing=align.gradient_checkpointing, accumulated=False,
            )  # fmt: skip
            one = self.estimator().training(like, inputs=True).operations
            total += align.steps * align.gradient_accumulation * one
        return total

    def encoding(self, names: Sequence[str]) -> float:
        """Operations of the image encoder: once for each item's image, at most."""
        if self.encoder is None or self.encoder.operations is None:
            return 0.0
        seen = {*names, *(align.task for align in self.sequence.align)}
        images = [name for name in seen if "image" in self.tasks[name].modalities]
        return (
            sum(self.items(name, split) or 0 for name in images for split in SPLITS) * self.encoder.operations
        )

    def learning(self, size: MethodSize, steps: Mapping[str, int], before: int) -> float:
        """Operations of a stage with the steps of these tasks, after `before` others."""
        if size.training is None:
            return 0.0
        step, extra, answers = self.step, size.extra, size.answering
        tokens = step.rows * sum(self.length(name) * count for name, count in steps.items())
        share = tokens / step.tokens
        found = share * size.training.operations
        if before and extra.teacher:
            found += share * answers.forward(step.rows, step.length, step.labelled)
        if extra.sampled:  # the question and its answer, and the question
            shown = step.length + min(step.length, TEXT_TOKENS)
            found += share * answers.operations(step.rows, step.length - step.labelled, step.labelled)
            found += share * answers.forward(step.rows, shown, step.labelled)
        each = 1 / sum(steps.values())
        if before and extra.together:  # frozen parts of earlier stages: forward, and back to their inputs
            passes = before * (3 if step.checkpointing else 2) * (size.merge_steps * each or 1)
            found += passes * tokens * (answers.a_token - self.base.a_token)
        found += (size.probe + size.merge) * share * each
        return self.sequence.train.gradient_accumulation * found

    def scoring(
        self, names: Sequence[str], size: MethodSize | None = None, before: int = 0
    ) -> dict[str, float | None]:
        """Task -> operations of its scoring, of the base or a method; None: its number of items is not known."""
        how = self.base if size is None else size.answering
        if size is not None and size.extra.together:
            how = replace(how, a_token=how.a_token + before * (how.a_token - self.base.a_token))
        found: dict[str, float | None] = {}
        for name in names:
            items, task = self.items(name, "test"), self.tasks[name]
            if items is None:
                found[name] = None
            elif task.kind == "text":
                found[name] = how.forward(items * REQUESTS, TEXT_TOKENS, TEXT_TOKENS)
            else:
                found[name] = how.operations(items, self.length(name), task.max_new_tokens)
        return found

    def memory(self, size: MethodSize, stages: int) -> dict[str, float]:
        """Peak memory in GB of the training and the scoring of `stages` stages."""
        encoder = 4 * (self.encoder.parameters or 0) if self.encoder else 0
        earlier = size.added * (stages - 1) if size.extra.adds else 0.0
        answers, later, training, one = size.answering, stages > 1, 0.0, size.training
        if one is not None:
            copies = 4.0 * size.extra.copies * size.trained * later
            teacher = answers.working if size.extra.sampled or (later and size.extra.teacher) else 0.0
            training = one.frozen + earlier + encoder + one.states + copies + one.working + teacher
        scoring = answers.weights + earlier + encoder + answers.working
        return {"training": training / GB, "scoring": scoring / GB}


def items_of(task: TaskSpec, split: Split, workspace: Path) -> int | None:
    """Number of items of a split; None: not known without its data. Nothing but small local files is opened."""
    if task.data is None:
        return None if task.lm_eval is None else task.lm_eval.limit
    name = getattr(task.data, split)
    if name is None or task.data.path.startswith(HAND):
        return None
    try:
        part = parse_split(name, where=f"{task.task}: data.{split}")
        if is_generated(task):
            name = task.data.located.partition(":")[2]
            return part.of(_generated(name, part.split)) if part.split in SPLITS else None
        if place(task.data.located, task.folder(), workspace).exists():
            small = readable(task, split, workspace)
            return len(open_items(task, split, workspace, media=False, strict=False)) if small else None
    except InputError:  # the run says what is wrong
        pass
    return None


def _generated(name: str, split: str) -> int:
    from moextend.bench.world import data, hearing

    if name in hearing.HEARINGS:
        count = {hearing.MATCH: data.MATCHED, hearing.SCENES: data.RECITED}.get(name, data.SOUNDS)
        return count[split] * data.ASKED[split]
    return data.CAPTIONED[split] if name == data.CAPTIONS else data.IMAGES[split] * data.ASKED[split]


def estimate(configs: Sequence[RunConfig], plan: Plan, *, device: str = "auto") -> dict[str, Any]:
    """Estimates of runs, with the assumptions."""
    from moextend.model.upcycling import parameter_counts
    from moextend.training.estimate import OVERHEAD, THROUGHPUT, UTILISATION

    step, (rows, length, new) = plan.step, plan.scored
    total, active = parameter_counts(plan.make())
    kind = "cpu" if device.startswith("cpu") else "cuda"
    name, peak = THROUGHPUT[kind]
    return {
        "rows": step.rows, "tokens": step.length, "labelled": step.labelled,
        "base_dtype": str(plan.dtype).removeprefix("torch."), "parameters": total, "active_parameters": active,
        "bf16": step.bf16, "gradient_checkpointing": step.checkpointing, "throughput": peak * UTILISATION,
        "throughput_of": f"{UTILISATION:.0%} of the peak of {name}",
        "unit": "CPU-hours" if kind == "cpu" else "GPU-hours", "overhead_gb": OVERHEAD / GB,
        "scoring": {"rows": rows, "tokens": length, "new": new},
        "runs": {config.slug: _run(config, plan, peak * UTILISATION) for config in configs},
    }  # fmt: skip


def _run(config: RunConfig, plan: Plan, reached: float) -> dict[str, Any]:
    size, steps = plan.size(config.method_spec), config.steps
    stages = [steps] if config.mode == "joint" else [{name: count} for name, count in steps.items()]
    alone = config.mode == "independent"
    scored = [*config.stages, *config.retention, *config.transfer]
    rows = [plan.scoring(scored)]
    rows += [plan.scoring(scored, size, 0 if alone else before) for before in range(len(stages))]
    learned = [plan.learning(size, own, 0 if alone else before) for before, own in enumerate(stages)]
    parts = {
        "alignment": plan.alignment,
        "encoder": plan.encoding([*config.stages, *config.transfer]),
        "training": sum(learned),
        "scoring": sum(value or 0.0 for row in rows for value in row.values()),
    }
    return {
        "method": config.method,
        "mode": config.mode,
        "trained": size.trained,
        "memory_gb": plan.memory(size, 1 if alone else len(stages)),
        "stored_mb": size.stored * len(stages) / 1e6,
        "teraflop": {name: value / TERA for name, value in parts.items()},
        "hours": sum(parts.values()) / TERA / reached / 3600,
        "without_scoring_of": sorted({name for row in rows for name, value in row.items() if value is None}),
    }
