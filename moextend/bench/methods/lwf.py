"""Learning without forgetting (Li and Hoiem, 2016, arXiv 1606.09282), for a language model.

A distillation loss keeps the next-token distributions on the new data close to those of the model before the stage:
``weight T^2 mean KL(old || new)`` over the labelled positions, at temperature T. No earlier data is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from moextend.bench.methods.method import Stage
from moextend.bench.methods.shapes import Extra
from moextend.bench.methods.weights import AdapterOrAll
from moextend.util.search_space import LogRange

if TYPE_CHECKING:
    from torch import Tensor

    from moextend import MultimodalLM
    from moextend.training.trainer import ExtraLoss


class Lwf(AdapterOrAll):
    """Distillation from the model before the stage, on the new data."""

    look = ("brown", "X")
    later_only = ("weight", "temperature")

    class Config(AdapterOrAll.Config):
        """What can be set."""

        weight: Annotated[float, LogRange(0.1, 10)] = Field(default=1.0, gt=0)
        temperature: float = Field(default=2.0, gt=0)

    config: Config

    def extra(self, model: Any) -> Extra:
        """The model before the stage answers every batch, too."""
        return Extra(teacher=True, copies=1)

    def extra_loss(self, model: MultimodalLM, stage: Stage) -> ExtraLoss | None:
        """Distillation loss; none in the first stage."""
        if not stage.earlier:
            return None
        import torch
        import torch.nn.functional as F
        from torch.func import functional_call

        config, before = self.config, {n: p.detach().clone() for n, p in self.parameters(model).items()}

        def hold(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
            with torch.no_grad():
                old = functional_call(model, before, kwargs=dict(batch))["logits"]
            new = F.log_softmax(out["logits"].float() / config.temperature, -1)
            target = F.log_softmax(old.float() / config.temperature, -1)
            # A part of a batch may have no token to learn.
            lost = F.kl_div(new, target, log_target=True, reduction="sum") / max(1, len(new))
            return config.weight * config.temperature**2 * lost

        return hold
