"""Notes of tables: the seeds of the runs, and the costs that are not matched."""

from __future__ import annotations

from collections.abc import Sequence

from moextend.bench.report.collect import Experiment, grouped
from moextend.bench.report.costs import NEAR, reference_of, unmatched

COSTS = {
    "trained_parameters": "trained parameters",
    "tokens": "training tokens",
    "flops": "training operations",
}
"""Columns of costs that are compared -> how they are called."""


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


def unmatched_note(experiment: Experiment) -> str:
    """The costs in which methods differ from the one that they are matched with; "" if there are none."""
    reference, found = reference_of(experiment), unmatched(experiment)
    if reference is None or not found:
        return ""
    every = list(dict.fromkeys(method for method, _ in grouped(experiment.of("sequence"))))
    parts = []
    for key, methods in found.items():
        matched = [method for method in every if method not in methods and method != reference[0]]
        shorter = len(matched) < len(methods)
        named = (
            f"all but {', '.join(matched)}"
            if shorter and matched
            else "all"
            if shorter
            else ", ".join(methods)
        )
        parts.append(f"{COSTS[key]} of {named}")
    return f"Not matched (more than {NEAR:.0%} from {reference[0]}): {'; '.join(parts)}."
