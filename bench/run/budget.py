"""Estimates memory and operations of a step of each method on a GPU from the base's config (`bench run --dry-run`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from moextend.bench.methods import MethodSpec, Shapes

if TYPE_CHECKING:
    from moextend.bench.sequence import SequenceSpec
    from moextend.training.estimate import Estimate, Learns, Step

IMAGE_TOKENS = 576
"""Assumed visual tokens per image: those of a ViT-L/14 at 336 pixels."""
TEXT_TOKENS = 128
"""Assumed text tokens per conversation."""
ANSWER_TOKENS = 32
"""Assumed number of them with labels."""
GB = 1e9
PARTS = {
    "weights_gb": "frozen weights",
    "states_gb": "what learns, its gradients and AdamW's moments",
    "casts_gb": "bfloat16 copies of float32 weights",
    "activations_gb": "activations",
    "logits_gb": "logits",
}
"""Parts of the peak in a record -> their names in the output."""


def budget(
    specs: Iterable[MethodSpec], sequence: SequenceSpec, make: Callable[[], Any], *, images: bool
) -> dict[str, Any]:
    """Method -> memory and operations of one training step, with the assumptions.

    Args:
        specs: the methods.
        make: returns a new language model on device meta (matching.skeleton).
        images: whether a conversation has an image.

    Raises:
        InputError: the base's config cannot be read, or its forward pass cannot be traced.
    """
    from moextend.training import estimate

    lm = make()
    step = _step(sequence, lm, images)
    sizes: dict[Learns, Estimate] = {}
    found = {}
    for text, spec in {each.text: each for each in specs}.items():
        learns = spec.make().learns(Shapes(make()))
        if learns is None:
            continue
        kind = replace(learns, parameters=0)  # one trace serves adapters of every size
        if kind not in sizes:
            sizes[kind] = estimate.estimate(make(), step, kind)
        count = learns.parameters or sizes[kind].trained
        size = replace(sizes[kind], trained=count, states=float(estimate.STATE * count))
        found[text] = _record(size, sequence.train.gradient_accumulation)
    return {
        "rows": step.rows,
        "tokens": step.length,
        "labelled": step.labelled,
        "base_mb": sum(p.numel() for p in lm.parameters()) * step.dtype.itemsize / 2**20,
        "base_dtype": str(step.dtype).removeprefix("torch."),
        "bf16": step.bf16,
        "gradient_checkpointing": step.checkpointing,
        "utilisation": estimate.UTILISATION,
        "peak_operations": estimate.PEAK["H100"],
        "overhead_gb": estimate.OVERHEAD / GB,
        "scoring_rows": sequence.scoring.batch_size,
        "cache_mb_a_token": estimate.cache_a_token(make(), step.dtype) / 1e6 if found else None,
        "methods": found,
    }


def describe(found: Mapping[str, Any]) -> list[str]:
    """The record of `budget` as text."""
    how = f"base in {found['base_dtype']}, bf16 {_on(found['bf16'])}"
    again = f"gradient checkpointing {_on(found['gradient_checkpointing'])}"
    lines = [
        f"Estimated for one training step ({found['rows']} conversations of {found['tokens']} tokens, "
        f"{found['labelled']} of them learned; {how}, {again}); not measured:"
    ]
    for text, of in found["methods"].items():
        parts = ", ".join(f"{name} {of[key]:.1f}" for key, name in PARTS.items() if of[key])
        lines.append(
            f"  {text}: {of['peak_gb']:.1f} GB ({parts}); {of['teraflop']:.4g} TFLOP, {of['seconds']:.2g} s"
        )
    if found["methods"]:
        cache, per_second = found["cache_mb_a_token"], found["peak_operations"] / 1e12
        lines += [
            f"  On top: about {found['overhead_gb']:.0f} GB of a GPU for its context and kernels. "
            f"Seconds of an optimizer step: {found['utilisation']:.0%} of {per_second:.0f} TFLOP/s "
            "(an H100 in bfloat16) is assumed.",
            f"  In answering: weights, and {cache:.3g} MB of keys and values a token "
            f"({cache * found['scoring_rows'] * found['tokens'] / 1e3:.3g} GB for {found['scoring_rows']} rows).",
        ]
    return lines


def _on(value: bool) -> str:
    return "on" if value else "off"


def _step(sequence: SequenceSpec, lm: Any, images: bool) -> Step:
    import torch

    from moextend.training.estimate import Step

    config, train = lm.config.get_text_config(), sequence.train
    length = TEXT_TOKENS + (IMAGE_TOKENS if images else 0)
    name = sequence.base.dtype
    own = lm.config.dtype or torch.float32
    return Step(
        rows=train.batch_size,
        length=min(length, getattr(config, "max_position_embeddings", None) or length),
        labelled=ANSWER_TOKENS,
        dtype=own if name == "auto" else getattr(torch, name),
        bf16=train.bf16,
        checkpointing=train.gradient_checkpointing,
    )


def _record(found: Estimate, accumulation: int) -> dict[str, float]:
    return {
        "trained": found.trained,
        "peak_gb": found.peak / GB,
        "weights_gb": found.weights / GB,
        "casts_gb": found.casts / GB,
        "states_gb": found.states / GB,
        "activations_gb": found.activations / GB,
        "logits_gb": found.logits / GB,
        "teraflop": found.operations * accumulation / 1e12,
        "seconds": found.seconds() * accumulation,
    }
