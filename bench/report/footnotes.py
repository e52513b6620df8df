"""Notes of tables: the seeds of the runs."""

from __future__ import annotations

from collections.abc import Sequence

from moextend.bench.report.collect import Experiment, grouped


def seeds_note(experiment: Experiment) -> str:
    """ "Seeds: 0, 1, 2; lora: 0, 1."; "" where nothing was learned in sequence."""
    seeds = {
        method: tuple(sorted({result.config.seed for result in group}))
        for (method, _), group in grouped(experiment.of("sequence")).items()
    }
    if not seeds:
        return ""
    common = max(seeds.values(), key=list(seeds.values()).count)
    others = [f"{method}: {_numbers(own)}" for method, own in seeds.items() if own != common]
    return f"Seeds: {'; '.join([_numbers(common), *others])}."


def _numbers(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
