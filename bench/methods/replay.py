"""Replay: a share of every earlier stage's training items is kept and learnt again among the new ones.

The only method here that keeps raw data of earlier stages. Each stage's share is drawn once, from the run's seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from moextend.bench.methods import trained
from moextend.bench.methods.method import Loop, Stage
from moextend.bench.methods.weights import (
    Either,
    parameters,
    probe_steps,
    restore,
    save,
    select,
    start,
    told,
)

if TYPE_CHECKING:
    from moextend import Conversation, MultimodalLM

__all__ = ["Config", "learn", "probe_steps", "restore", "save", "select", "start", "told"]


class Config(Either):
    """Settings of replay."""

    share: float = Field(0.01, gt=0, le=1)
    """Of the training items of each earlier stage; at least one item."""


def learn(model: MultimodalLM, config: Config, stage: Stage, loop: Loop) -> dict[str, Any]:
    """Learns the new items and the kept ones together, all drawn alike."""
    kept = _kept(stage, config.share)
    facts = trained.tune(
        model, parameters(model, config), loop, learning_rate=config.learning_rate, data=[*stage.data, *kept]
    )
    return {**facts, "replayed": len(kept)}


def _kept(stage: Stage, share: float) -> list[Conversation]:
    import torch

    kept: list[Conversation] = []
    for task, _ in stage.earlier:
        data = stage.earlier_data(task)
        # of the task alone, so that the same items are kept from stage to stage
        drawn = torch.randperm(len(data), generator=torch.Generator().manual_seed(len(data)))
        kept += [data[int(i)] for i in drawn[: max(1, round(share * len(data)))]]
    return kept
