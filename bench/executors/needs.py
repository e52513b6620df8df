"""What a run needs of its machine, from the program's own estimate (`moextend bench run --dry-run`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moextend.bench.run import budget, matching
from moextend.bench.run.rundir import RunConfig
from moextend.errors import InputError
from moextend.util import content

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
    if _is_small(sequence.base.model, first.workspace):
        return [PROCESS_GB] * len(configs)
    tasks = {name: first.task_spec(name) for name in first.tasks}
    try:
        make = matching.skeletons(sequence.base, first.workspace)
        found = budget.budget(configs, budget.Plan(sequence, tasks, first.workspace), make)
    except (InputError, OSError):
        return [None] * len(configs)
    base = found["base_mb"] * 2**20 / 1e9
    if on_gpu:
        return [PROCESS_GB + base] * len(configs)
    memory = [found["runs"][config.slug]["memory"] for config in configs]
    return [PROCESS_GB + max(base, *(part["peak_gb"] for part in each.values())) for each in memory]


def _is_small(model: str, workspace: Path) -> bool:
    """Whether a base of the package or of a folder is so small that its run is not estimated."""
    places = (content.package_folder("registry") / "models" / model / "lm", workspace / model, Path(model))
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        return False
    return 0 < sum(file.stat().st_size for file in folder.rglob("*.safetensors")) < SMALL_GB * 1e9
