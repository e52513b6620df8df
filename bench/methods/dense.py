"""What the baselines share: weights trained in place, saved whole, the same for every task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import moextend
from moextend.bench.methods.method import Stage

if TYPE_CHECKING:
    from moextend import MultimodalLM


def save_trained(model: MultimodalLM, stage: Stage, method: str) -> None:
    """Writes the parameters that learn."""
    card = {"method": method, "task": stage.task, "base": model.base_fingerprint()}
    moextend.extension.save_tensors(stage.folder, dict(model.trainable()), card)


def restore_trained(model: MultimodalLM, stage: Stage) -> None:
    """Puts the saved parameters back in place."""
    import torch

    tensors, _ = moextend.extension.load_tensors(stage.folder)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)


def trained_fingerprint(model: MultimodalLM, marks: tuple[str, ...] = ("lm.",)) -> str:
    """Names the base and the parameters below any of `marks` as they are now."""
    from moextend.vision import tensors_digest

    now = {n: p for n, p in model.named_parameters() if any(mark in n for mark in marks)}
    return f"{model.base_fingerprint()}-{tensors_digest(now)}"
