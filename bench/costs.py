"""What a stage costs: to learn, to keep, and to answer with."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moextend import Conversation, MultimodalLM

TESTED = 32
"""Conversations that the cost of answering is counted on."""


def stored_mb(folder: Path) -> float:
    """What a stage keeps on disk for later stages and for use, in MB (10^6 bytes)."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6


def peak_memory(model: MultimodalLM) -> dict[str, float]:
    """Peak memory of this process so far, and of its GPU, in MiB."""
    import torch

    peak = {"peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if model.device.type == "cuda":
        peak["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return peak


def forward_flops(model: MultimodalLM, conversations: Sequence[Conversation]) -> float:
    """Operations a token of a forward pass with what is active now, the head at every position."""
    import torch

    from moextend import flops
    from moextend.batches import Collator

    rows: list[Any] = list(conversations[:TESTED])
    collate = Collator.of(model)
    batch = {name: tensor.to(model.device) for name, tensor in collate(rows).items() if name != "labels"}
    with torch.no_grad(), flops.Counter() as count:
        model(**batch)
    return float(count.total) / int(batch["attention_mask"].sum())
