"""Elastic weight consolidation (Kirkpatrick et al., 2017, arXiv 1612.00796).

The penalty ``strength / 2 sum_tau sum_i F_tau,i (theta_i - theta_tau,i)^2`` keeps weights that are important for
earlier stages. F_tau is the diagonal of the empirical Fisher information of stage tau, computed at its end on some of
its items. With an adapter (`over: lora`) theta are the adapter's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from safetensors.torch import load_file, save_file

from moextend.bench.methods.method import Parameters, Stage
from moextend.bench.methods.shapes import Extra
from moextend.bench.methods.weights import AdapterOrAll
from moextend.util import files
from moextend.util.lookup import MOST_STEPS
from moextend.util.search_space import LogRange

if TYPE_CHECKING:
    from torch import Tensor

    from moextend import MultimodalLM
    from moextend.training.trainer import ExtraLoss

FILE = "fisher.safetensors"


class Ewc(AdapterOrAll):
    """A penalty on changes of important weights, by their Fisher information."""

    look = ("purple", "P")
    later_only = ("strength", "items")
    needs_earlier = True  # their weights and Fisher information

    class Config(AdapterOrAll.Config):
        """What can be set."""

        strength: Annotated[float, LogRange(1, 1e5)] = Field(default=1000.0, gt=0)
        """lambda."""
        items: int = Field(default=128, ge=1, le=MOST_STEPS)
        """Number of training items for the Fisher information."""

    config: Config

    def extra(self, model: Any) -> Extra:
        """The Fisher information; it, the earlier weights and the distance from them are held by a training."""
        return Extra(copies=3, stored_copies=2)

    def extra_loss(self, model: MultimodalLM, stage: Stage) -> ExtraLoss | None:
        """Penalty of all earlier stages."""
        weights = self.parameters(model)
        fisher, anchor = (
            {name: tensor.to(weights[name].device) for name, tensor in found.items()}
            for found in _earlier(stage)
        )

        def penalty(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
            parts = [(fisher[n] * (p - anchor[n]).square()).sum() for n, p in weights.items()]
            return self.config.strength / 2 * sum(parts[1:], parts[0])

        return penalty if fisher else None

    def after_stage(self, model: MultimodalLM, stage: Stage) -> Mapping[str, Any]:
        """Computes this stage's Fisher information."""
        with files.atomic(stage.folder / FILE) as path:
            save_file(_fisher(model, self.parameters(model), self.config.items, stage), path)
        return {}


def _earlier(stage: Stage) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Sum of all F_tau, and the F_tau-weighted mean of all theta_tau, which give the same penalty up to a constant."""
    from moextend.extension import tensor_files

    total: dict[str, Tensor] = {}
    weighted: dict[str, Tensor] = {}
    for _, folder in stage.earlier:
        weights, _ = tensor_files.load_tensors(folder)
        for name, fisher in load_file(folder / FILE).items():
            fisher = fisher.float()
            part = fisher * weights[name].float()
            total[name] = total[name] + fisher if name in total else fisher
            weighted[name] = weighted[name] + part if name in weighted else part
    return total, {name: weighted[name] / total[name].clamp_min(1e-30) for name in total}


def _fisher(model: MultimodalLM, weights: Parameters, items: int, stage: Stage) -> dict[str, Tensor]:
    """Mean over items of the squared gradient of an item's mean log-likelihood per token."""
    import torch

    from moextend.model.batches import Collator, on_device
    from moextend.model.feature_cache import expecting

    model.learn_only(list(weights))
    collate = Collator.of(model)
    drawn = torch.randperm(len(stage.data), generator=torch.Generator().manual_seed(stage.seed))
    rows = drawn[:items].tolist()
    # A running sum in bfloat16 loses what the last items add.
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in weights.items()}
    with expecting(model, stage.data, rows):
        for row in rows:
            batch = on_device(collate([stage.data[row]]), model.device)
            gradients = torch.autograd.grad(model(**batch)["loss"], list(weights.values()), allow_unused=True)
            for sums, gradient in zip(total.values(), gradients, strict=True):
                if gradient is not None:
                    sums += gradient.float().square() / len(rows)
    model.learn_only([])
    return {name: sums.cpu() for name, sums in total.items()}
