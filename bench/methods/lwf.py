"""Learning without forgetting (Li and Hoiem, 2016, arXiv 1606.09282), for a language model.

While a stage is learnt, the model's next-token distributions on the new data are held to those of the model before
the stage: ``weight T^2 mean KL(old || new)`` over the labelled positions, at temperature T. No earlier data is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    from torch import Tensor

    from moextend import MultimodalLM

__all__ = ["Config", "learn", "probe_steps", "restore", "save", "select", "start", "told"]


class Config(Either):
    """Settings of LwF."""

    weight: float = Field(1.0, gt=0)
    temperature: float = Field(2.0, gt=0)


def learn(model: MultimodalLM, config: Config, stage: Stage, loop: Loop) -> dict[str, Any]:
    """Trains with the distillation term; from the second stage on, since nothing was learnt before the first."""
    import torch
    import torch.nn.functional as F
    from torch.func import functional_call

    weights = parameters(model, config)
    before = {name: p.detach().clone() for name, p in weights.items()}

    def hold(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            old = functional_call(model, before, kwargs=dict(batch))["logits"]
        new = F.log_softmax(out["logits"].float() / config.temperature, -1)
        target = F.log_softmax(old.float() / config.temperature, -1)
        lost = F.kl_div(new, target, log_target=True, reduction="batchmean")
        return config.weight * config.temperature**2 * lost

    held = hold if stage.earlier else None
    return trained.tune(model, weights, loop, learning_rate=config.learning_rate, extra_loss=held)
