"""Measures times, peak memory and operators of functions in one process."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Clock = Literal["wall", "cpu"]
Work = Callable[[], object]
KINDS = {
    "products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": ("scaled_dot_product",),
    "optimizer": ("_fused_adamw", "vector_norm", "foreach", "Optimizer.step"),
    "gather/scatter": (
        "aten::index",
        "aten::_index",
        "aten::copy_",
        "aten::cat",
        "aten::fill_",
        "aten::zero_",
    ),
}
"""Kind of operators -> parts of their names."""
REST = "rest"
MATRICES = 8
"""Number of pairs of matrices for measuring plain products."""
Moment = tuple[float, float]
"""Both clocks, in seconds."""


@dataclass(frozen=True)
class Times:
    """Seconds of one function, for each repeat."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """CPU time of all threads of the process."""

    def add(self, start: Moment, end: Moment) -> None:
        """Adds a repeat."""
        self.wall.append(end[0] - start[0])
        self.cpu.append(end[1] - start[1])

    @contextmanager
    def taken(self, device: str) -> Iterator[None]:
        """Context that is measured as a repeat."""
        start = now(device)
        yield
        self.add(start, now(device))

    def median(self, clock: Clock) -> float:
        """Median of the repeats."""
        return median(self.wall if clock == "wall" else self.cpu)


@contextmanager
def quick_collections() -> Iterator[None]:
    """Context in which the garbage collector ignores older objects; every training starts with a collection."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def in_turns(works: Sequence[Work], repeats: int, on_round: Callable[[int], None] | None = None) -> None:
    """Runs all functions in turn in every repeat, so that other load on the machine affects all of them."""
    gc.collect()
    gc.disable()  # a garbage collection takes as long as a step of a small model and would occur in any of them
    try:
        for repeat in range(repeats):
            for place in range(len(works)):
                works[(place + repeat) % len(works)]()
            if on_round:
                on_round(repeat + 1)
    finally:
        gc.enable()


def peak(work: Work, device: str) -> int:
    """Peak memory of tensors during a function, in bytes above the memory before it."""
    import torch

    if device != "cpu":
        before: int = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        highest: int = torch.cuda.max_memory_allocated()
        return highest - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        work()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@contextmanager
def operators(device: str, shares: dict[str, float]) -> Iterator[None]:
    """Context that fills `shares`: kind of operators -> share of the time in operators. Stays empty on a GPU."""
    import torch

    if device != "cpu":
        yield
        return
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        yield
    spent = dict.fromkeys((*KINDS, REST), 0.0)
    for row in seen.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(part in row.key for part in parts)), REST)
        spent[kind] += row.self_cpu_time_total
    shares |= {kind: part / sum(spent.values()) for kind, part in spent.items()}


def product(rows: int, inner: int, columns: int, device: str, dtype: str) -> tuple[Work, int]:
    """A function that computes matrix products of one shape, and its number of operations.

    It takes some tenths of a second: within a hundredth of a second the caches and the processor clock are not warm.
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
    """Both clocks after the device has finished its work."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()
