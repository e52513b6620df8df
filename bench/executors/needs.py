"""What a run needs of its machine, from the program's own estimate (`moextend bench run --dry-run`)."""

from __future__ import annotations

from collections.abc import Sequence

from moextend.bench.run import downloads, matching
from moextend.bench.run.estimate import Plan, estimate
from moextend.bench.run.rundir import RunConfig
from moextend.errors import InputError

PROCESS_GB = 2.0
"""Main memory in GB that a worker takes besides the model: its libraries, and the data of a task."""
SMALL_GB = 0.2
"""Size in GB of the weights of a base whose runs take no more than that."""


def memory_gb(configs: Sequence[RunConfig], *, on_gpu: bool) -> list[float | None]:
    """Estimated main memory of each run in GB (1e9 bytes); None where the base cannot be estimated here.

    Args:
        configs: runs of one sequence.
        on_gpu: whether the model is on a GPU; its weights then only pass through the main memory.
    """
    if not configs:
        return []
    first = configs[0]
    sequence = first.sequence_spec()
    tasks = {name: first.task_spec(name) for name in first.tasks}
    try:
        size = downloads.local_bytes(sequence.base, first.workspace)
        if size and size < SMALL_GB * 1e9:
            return [PROCESS_GB] * len(configs)
        plan = Plan(sequence, tasks, first.workspace, matching.skeletons(sequence.base, first.workspace))
        found = estimate([] if on_gpu else configs, plan)
    except (InputError, OSError):
        return [None] * len(configs)
    base = found["base_mb"] / 1e3
    if on_gpu:
        return [PROCESS_GB + base] * len(configs)
    memory = [found["runs"][config.slug]["memory"] for config in configs]
    return [PROCESS_GB + max(base, *(part["peak_gb"] for part in each.values())) for each in memory]
