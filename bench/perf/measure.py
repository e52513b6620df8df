"""Clocks, peak memory and operation counts of pieces of work in one process."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Clock = Literal["wall", "cpu"]
Work = Callable[[], object]
KINDS = {
    "products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": ("scaled_dot_product",),
    "optimizer": ("_fused_adamw", "vector_norm", "foreach", "Optimizer.step"),
    "moving rows": ("aten::index", "aten::_index", "aten::copy_", "aten::cat", "aten::fill_", "aten::zero_"),
}
"""Kind -> parts of the names of its operators."""
REST = "rest"
MATRICES = 8
"""Pairs of matrices that a plain product is measured on."""
Moment = tuple[float, float]
"""What both clocks show, in seconds."""


@dataclass(frozen=True)
class Times:
    """Seconds of one piece of work, repeat by repeat."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Of all threads of the process."""

    def add(self, start: Moment, end: Moment) -> None:
        """One more repeat."""
        self.wall.append(end[0] - start[0])
        self.cpu.append(end[1] - start[1])

    def median(self, clock: Clock) -> float:
        """The median of the repeats."""
        return median(self.wall if clock == "wall" else self.cpu)


def interleaved(
    works: Mapping[str, Work], repeats: int, device: str, on_round: Callable[[int], None] | None = None
) -> dict[str, Times]:
    """Times of all works, one after the other in every repeat: what disturbs the machine disturbs them alike."""
    found: dict[str, Times] = {name: Times() for name in works}
    names = list(works)
    gc.collect()
    gc.disable()  # a collection takes as long as a step of a small model, and would come in the midst of any
    try:
        for repeat in range(repeats):
            for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
                start = now(device)
                works[name]()
                found[name].add(start, now(device))
            if on_round:
                on_round(repeat + 1)
    finally:
        gc.enable()
    return found


def operations(work: Work) -> int:
    """Operations of one piece of work; a multiply-add is two, elementwise work none."""
    from moextend.training import flops

    with flops.Counter() as count:
        work()
    total: int = count.total
    return total


@dataclass(frozen=True)
class Profile:
    """What a piece of work takes besides time."""

    peak: int
    """Bytes: the most that tensors took at once within the work, beyond what they took before it."""
    shares: dict[str, float]
    """Kind of operator -> its part of the time in operators; empty on a GPU."""


def profile(work: Work, device: str) -> Profile:
    """Runs a piece of work once, under the profiler."""
    import torch

    if device != "cpu":
        before: int = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        highest: int = torch.cuda.max_memory_allocated()
        return Profile(highest - before, {})
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True) as seen:
        work()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    spent = dict.fromkeys((*KINDS, REST), 0.0)
    for row in seen.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(part in row.key for part in parts)), REST)
        spent[kind] += row.self_cpu_time_total
    return Profile(peak, {kind: part / sum(spent.values()) for kind, part in spent.items()})


def product(rows: int, inner: int, columns: int, device: str, dtype: str) -> tuple[Work, int]:
    """Matrix products of one shape, of several matrices in turn, and the operations of all.

    They go on for some tenths of a second: in a hundredth the caches and the clock of the processor are still cold.
    """
    import torch

    kind = getattr(torch, dtype)
    pairs = [
        tuple(torch.randn(*shape, device=device).to(kind) for shape in ((rows, inner), (inner, columns)))
        for _ in range(MATRICES)
    ]
    each = 2 * rows * inner * columns
    times = max(1, int(4e10 if device == "cpu" else 2e13) // each)

    def work() -> None:
        for turn in range(times):
            left, right = pairs[turn % MATRICES]
            left @ right

    work()
    return work, each * times


def now(device: str) -> Moment:
    """What the clocks show once the device has done what it was given."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()
