"""Measures all variants of training and answering of a size in one process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench.perf import measure
from moextend.bench.perf.answers import Reader, all_readers
from moextend.bench.perf.measure import Clock, Times
from moextend.bench.perf.sizes import SIZES, make
from moextend.bench.perf.variants import Variant, all_variants
from moextend.util.environment import environment

if TYPE_CHECKING:
    from moextend import MultimodalLM

Say = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """Results of a variant of training; seconds per step, by `clock`."""

    name: str
    spec: str
    """The method as `bench run` names it."""
    key: str
    """Equal for methods with equal training steps (`specs.key`)."""
    trained_parameters: int
    seconds: float
    tokens_a_second: float
    of_full: float
    """Seconds relative to full fine-tuning."""
    operations: int
    """Operations, counted in one step."""
    lower_bound_operations: int
    """Lower bound of the operations."""
    lower_bound_seconds: float
    """Seconds of the lower bound at the rate of plain matrix products, measured in the same repeats."""
    peak_mb: float
    """Peak memory without the base's weights: added weights, gradients, AdamW's state, activations; 10^6 bytes."""
    peak_of_full: float
    new_share: float
    """Share of tokens with a computed new expert, over the extended layers."""
    shares: dict[str, float]
    """Kind of operators -> share of the time in operators, under the profiler."""
    times: Times


@dataclass(frozen=True)
class Answering:
    """Results of a variant of answering; seconds per token, by `clock`."""

    name: str
    prefill: float
    """Seconds per token of the prompts."""
    prefill_of_base: float
    lower_bound_of_base: float
    """Lower bound of the operations for reading the prompts, relative to the base."""
    decode: float
    """Seconds per new token; the rows are decoded together."""
    decode_of_base: float
    new_share: float
    times: dict[str, Times] = field(default_factory=dict)


@dataclass(frozen=True)
class Speed:
    """A complete measurement."""

    size: str
    about: str
    rows: int
    length: int
    device: str
    dtype: str
    threads: int
    repeats: int
    clock: Clock
    operations_a_second: float
    """Rate of plain matrix products with the shape of an expert's first product."""
    environment: dict[str, Any]
    training: list[Training]
    answering: list[Answering]

    def record(self) -> dict[str, Any]:
        """The measurement as a dictionary for JSON."""
        return asdict(self)


def speed(
    name: str, *, device: str, dtype: str, repeats: int, clock: Clock, more: Sequence[str] = (),
    say: Say = lambda text: None,
) -> Speed:  # fmt: skip
    """Measures a size; `more`: methods besides those of `measured_specs`.

    Raises:
        InputError: the size does not exist, or its packages are not installed.
    """
    import torch

    size = SIZES[name]
    base = make(name, device, dtype)
    rate, training = _training(base, name, device, dtype, repeats, clock, say, more)
    answering = _answering(base, name, device, repeats, clock, say)
    return Speed(
        size=name,
        about=size.about,
        rows=size.rows,
        length=size.length,
        device=torch.cuda.get_device_name() if device != "cpu" else "cpu",
        dtype=dtype,
        threads=torch.get_num_threads(),
        repeats=repeats,
        clock=clock,
        operations_a_second=rate,
        environment=environment(),
        training=training,
        answering=answering,
    )


@dataclass(frozen=True)
class _Seen:
    """Memory and operations of one step of a variant."""

    operations: int
    peak: int
    shares: dict[str, float]


def _seen(variant: Variant, device: str) -> _Seen:
    from moextend.training import flops

    count, shares = flops.Counter(), dict[str, float]()
    peak = measure.peak(lambda: variant.step(count), device)
    variant.step(measure.operators(device, shares))
    return _Seen(count.total, variant.added + peak, shares)


def _training(
    base: MultimodalLM, name: str, device: str, dtype: str, repeats: int, clock: Clock, say: Say, more: Sequence[str]
) -> tuple[float, list[Training]]:  # fmt: skip
    size, config = SIZES[name], base.lm.config
    pairs = max(1, size.tokens * config.num_experts_per_tok // config.num_local_experts)
    with tempfile.TemporaryDirectory() as folder, measure.quick_collections():
        variants: list[Variant] = []
        seen: list[_Seen] = []
        for prepare in all_variants(base, size, Path(folder), more):
            variants.append(prepare())
            say(f"memory and operations: {variants[-1].name}")
            seen.append(_seen(variants[-1], device))
        work, operations = measure.product(
            pairs, config.hidden_size, 2 * config.intermediate_size, device, dtype
        )
        plain = Times()

        def product() -> None:
            with plain.taken(device):
                work()

        works = [product, *(variant.timed for variant in variants)]
        measure.in_turns(works, repeats, lambda done: say(f"training steps: {done}/{repeats}"))
    rate = operations / plain.median(clock)
    full = variants[0].times.median(clock)
    rows = []
    for variant, took in zip(variants, seen, strict=True):
        seconds = variant.times.median(clock)
        rows.append(
            Training(
                name=variant.name,
                spec=variant.spec,
                key=variant.key,
                trained_parameters=sum(p.numel() for p in variant.model.trainable().values()),
                seconds=seconds,
                tokens_a_second=size.tokens / seconds,
                of_full=seconds / full,
                operations=took.operations,
                lower_bound_operations=variant.least,
                lower_bound_seconds=variant.least / rate,
                peak_mb=took.peak / 1e6,
                peak_of_full=took.peak / seen[0].peak,
                new_share=variant.new_share,
                shares=took.shares,
                times=variant.times,
            )
        )
    return rate, rows


def _answering(
    base: MultimodalLM, name: str, device: str, repeats: int, clock: Clock, say: Say
) -> list[Answering]:
    size = SIZES[name]
    readers = all_readers(base, size)
    say("answering")
    works = [reader.answer for reader in readers]
    measure.in_turns(works, repeats, lambda done: say(f"answering: {done}/{repeats}"))

    def costs(reader: Reader) -> tuple[float, float]:
        read, written = reader.reading.median(clock), reader.writing.median(clock)
        return read / size.tokens, written / size.rows / size.new_tokens

    prefill, decode = costs(readers[0])
    rows = []
    for reader in readers:
        own = costs(reader)
        rows.append(
            Answering(
                name=reader.name,
                prefill=own[0],
                prefill_of_base=own[0] / prefill,
                lower_bound_of_base=reader.least / readers[0].least,
                decode=own[1],
                decode_of_base=own[1] / decode,
                new_share=reader.new_share,
                times={"prefill": reader.reading, "decode": reader.writing},
            )
        )
    return rows
