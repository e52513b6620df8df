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
    from moextend import flops

    with flops.Counter() as count:
        work()
    total: int = count.total
    return total


def peak_bytes(work: Work, device: str) -> int:
    """The most memory that tensors took at once within the work, beyond what they took before it."""
    import torch

    if device != "cpu":
        before: int = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        highest: int = torch.cuda.max_memory_allocated()
        return highest - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        work()
    kineto = profile.profiler.kineto_results
    events = [event for event in kineto.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def product(rows: int, inner: int, columns: int, device: str, dtype: str) -> tuple[Work, int]:
    """One matrix product, made often enough to be timed, and the operations of all."""
    import torch

    kind = getattr(torch, dtype)
    left, right = (torch.randn(*shape, device=device).to(kind) for shape in ((rows, inner), (inner, columns)))
    each = 2 * rows * inner * columns
    times = max(1, int(2e9 if device == "cpu" else 2e12) // each)

    def work() -> None:
        for _ in range(times):
            left @ right

    work()
    return work, each * times


def now(device: str) -> Moment:
    """What the clocks show once the device has done what it was given."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()
