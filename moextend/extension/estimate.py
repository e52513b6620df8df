"""Memory and time of a call of `extend`, estimated from shapes before the base is loaded (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moextend.data.conversations import Conversation
from moextend.moe import attach
from moextend.moe.recipe import Recipe, count_layers
from moextend.training.estimate import (
    ASSUMED_TOKENS,
    OVERHEAD,
    THROUGHPUT,
    UTILISATION,
    Estimator,
    Step,
    bytes_of,
    image_encoder,
)
from moextend.training.settings import Settings

LOOKED_AT = 200
"""Number of conversations whose tokens are counted."""
OTHER_TOKENS = 256
"""Assumed tokens of a medium that is no image."""
GB, TERA = 1e9, 1e12


@dataclass(frozen=True)
class Estimate:
    """What a call would take: parameters are exact, memory is within about 15%; time was not compared."""

    parameters: int
    """Parameters that are trained."""
    layers: int
    """MoE layers that get new experts."""
    of_layers: int
    stored_mb: float
    """Size of the extension's weights."""
    steps: int
    probe_steps: int
    batch_size: int
    tokens: int
    """Of the longest of the first conversations."""
    weights_gb: float
    """Frozen weights: of the base, and of the image encoder."""
    learning_gb: float
    """What is trained, its gradients and the optimizer's state."""
    working_gb: float
    """Activations and other temporary tensors."""
    peak_gb: float
    """All of these; a CUDA context takes more (`overhead_gb`)."""
    overhead_gb: float
    teraflop: float
    """Operations of the probe and the training, in units of 1e12."""
    throughput: float
    """Operations a second that are assumed to be reached, in units of 1e12."""
    throughput_of: str
    """Device that reaches five times as much by its data sheet."""
    hours: float


def estimate(
    lm: Any,
    data: Sequence[Conversation],
    recipe: Recipe,
    settings: Settings,
    tokenizer: Any,
    *,
    vision: str | None = None,
    device: str = "cpu",
) -> Estimate:
    """Estimate of an extension of `lm`, a language model on device meta in its number type, which is changed.

    Not counted: the image encoder's operations, inputs of earlier extensions, and the scoring of held-out data.
    """
    encoder = image_encoder(vision) if vision else None
    first = [data[i] for i in range(min(LOOKED_AT, len(data)))]
    image = encoder.tokens if encoder else ASSUMED_TOKENS
    lengths = [_tokens(row, tokenizer, image) for row in first]
    context = getattr(lm.config, "max_position_embeddings", None) or 2**31
    step = Step(
        rows=settings.batch_size, length=min(context, max(total for total, _ in lengths)),
        labelled=max(answers for _, answers in lengths), bf16=settings.bf16,
        checkpointing=settings.gradient_checkpointing, accumulated=settings.gradient_accumulation > 1,
    )  # fmt: skip
    base = Estimator(lm)
    probe_steps = recipe.probe_steps if recipe.layers == "probe" else 0
    passes = probe_steps * base.probe(step).operations if probe_steps else 0.0
    total = len(base.sites)
    count = count_layers(recipe.layers, recipe.share, total)
    layers = recipe.layers if isinstance(recipe.layers, list) else range(count)
    attach.attach(
        lm, "new", {layer: [0] * recipe.experts for layer in layers}, mode=recipe.routing,
        calibrate=recipe.calibration, width=recipe.width,
    )  # fmt: skip
    learning = attach.new_parameters(lm, "new")
    base.learn_only(learning.values())
    found = base.training(step)
    operations = settings.gradient_accumulation * (passes + settings.steps * found.operations)
    name, peak = THROUGHPUT["cuda" if device.startswith("cuda") else "cpu"]
    weights = found.frozen + 4 * (encoder.parameters or 0 if encoder else 0)
    return Estimate(
        parameters=found.learns, layers=count, of_layers=total, stored_mb=bytes_of(learning.values()) / 1e6,
        steps=settings.steps, probe_steps=probe_steps, batch_size=settings.batch_size, tokens=step.length,
        weights_gb=weights / GB, learning_gb=found.states / GB, working_gb=found.working / GB,
        peak_gb=(weights + found.states + found.working) / GB,
        overhead_gb=OVERHEAD / GB if device.startswith("cuda") else 0.0,
        teraflop=operations / TERA, throughput=peak * UTILISATION, throughput_of=name,
        hours=operations / TERA / (peak * UTILISATION) / 3600,
    )  # fmt: skip


def _tokens(row: Conversation, tokenizer: Any, image: int) -> tuple[int, int]:
    """Tokens of a conversation, its media included, and of its answers; without those of a chat template."""
    asked, answers = (
        sum(len(tokenizer(text)["input_ids"]) for text in texts) for texts in zip(*row.turns, strict=True)
    )
    media = sum(image if medium.modality in ("image", "video") else OTHER_TOKENS for medium in row.media)
    return asked + answers + media, answers
