"""The record of `budget` as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moextend.errors import counted
from moextend.training.throughput import UTILISATION

PARTS = {
    "frozen": "frozen weights",
    "weights": "weights",
    "encoder": "image encoder",
    "learning": "trained parameters with gradients and AdamW's moments",
    "copies": "copies of trained parameters",
    "working": "activations and temporary tensors",
}
"""Parts of a peak -> their names."""


def describe(found: Mapping[str, Any]) -> list[str]:
    """Lines of the output of `--dry-run`."""
    again = f"gradient checkpointing {_on(found['gradient_checkpointing'])}"
    lines = [
        f"Estimated from shapes, not measured. Base: {_count(found['parameters'])} parameters, "
        f"{_count(found['active_parameters'])} of them per token, in {found['base_dtype']}; "
        f"bf16 {_on(found['bf16'])}, {again}.",
        f"Assumed: conversations of {found['tokens']} tokens, {found['labelled']} of them learned, "
        f"{found['rows']} at a time; answers of {found['scoring']['new']} tokens to prompts of "
        f"{found['scoring']['tokens']}, {found['scoring']['rows']} at a time; {_speed(found)}.",
    ]
    for slug, run in found["runs"].items():
        lines += _run(slug, run)
    unknown = sorted({name for run in found["runs"].values() for name in run["without_scoring_of"]})
    if unknown:
        lines.append(f"Scoring of {', '.join(unknown)} is not included: the number of items is not known.")
    lines.append(
        f"On top: about {found['overhead_gb']:.0f} GB of a GPU for its context and kernels. Keys and values take "
        f"{found['cache_mb_a_token']:.3g} MB per token in scoring, which is included."
    )
    return lines


def in_all(found: Mapping[str, Any]) -> str:
    """Hours of one run and of all; or why they are not known."""
    if "not" in found:
        return f"Hours: {found['not']}"
    hours = {slug: run["hours"] for slug, run in found["runs"].items()}
    longest = max(hours, key=lambda slug: hours[slug])
    return (
        f"Estimated: one run takes at most {_hours(hours[longest])} ({longest}), {counted(len(hours), 'run')} "
        f"{sum(hours.values()):,.3g} {found['unit']}, at {_speed(found)}."
    )


def _run(slug: str, run: Mapping[str, Any]) -> list[str]:
    memory = [
        f"{name} {peak['peak_gb']:.1f} GB ({_parts(peak)})"
        for name, peak in run["memory"].items()
        if peak["peak_gb"]
    ]
    work = ", ".join(f"{key} {_size(value)}" for key, value in run["teraflop"].items() if value)
    stored = run["stages"][0]["stored_mb"] if run["stages"] else 0.0
    return [
        f"  {slug}: trains {run['parameters']['trained']:,} parameters per stage; "
        f"stores {_mega(stored)} per stage, {_mega(run['stored_mb'])} in all",
        f"    memory: {'; '.join(memory)}",
        f"    operations: {_size(run['teraflop_in_all'])} ({work}); {_hours(run['hours'])}",
    ]


def _parts(peak: Mapping[str, float]) -> str:
    known = ((PARTS[key.removesuffix("_gb")], value) for key, value in peak.items() if key != "peak_gb")
    return ", ".join(f"{name} {value:.1f}" for name, value in known if value >= 0.05)


def _speed(found: Mapping[str, Any]) -> str:
    if found["throughput_of"] is None:
        return f"{found['throughput']:g} TFLOP/s, as --throughput says"
    share = f"{UTILISATION:.0%} of the peak of {found['throughput_of']}"
    return f"{found['throughput']:.3g} TFLOP/s ({share}; --throughput sets another)"


def _count(number: float) -> str:
    return f"{number / 1e9:.3g} billion" if number >= 1e9 else f"{number / 1e6:.3g} million"


def _size(teraflop: float) -> str:
    return f"{teraflop / 1e3:,.1f} PFLOP" if teraflop >= 1e3 else f"{teraflop:.3g} TFLOP"


def _mega(megabytes: float) -> str:
    return f"{megabytes / 1e3:,.1f} GB" if megabytes >= 1e3 else f"{megabytes:.3g} MB"


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{hours * 60:.3g} minutes" if hours * 60 >= 1 else f"{hours * 3600:.2g} seconds"


def _on(value: bool) -> str:
    return "on" if value else "off"
