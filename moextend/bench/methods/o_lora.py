"""O-LoRA (Wang et al., 2023, arXiv 2310.14152): each stage's adapter is kept orthogonal to the earlier ones.

A stage adds an adapter and trains it with the penalty ``orthogonality sum_tau sum |A_tau A_t^T|`` over the frozen
adapters of earlier stages (as in the authors' code). All adapters are active for every task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from moextend.bench.methods import adapters
from moextend.bench.methods.method import Stage
from moextend.bench.methods.shapes import Extra
from moextend.util.search_space import LogRange

if TYPE_CHECKING:
    from torch import Tensor

    from moextend import MultimodalLM
    from moextend.training.trainer import ExtraLoss


class OLora(adapters.AdapterPerTask):
    """A new adapter per stage, orthogonal to the earlier ones; all are summed."""

    look = ("wine", "<")
    later_only = ("orthogonality",)

    class Config(adapters.AdapterPerTask.Config):
        """What can be set."""

        orthogonality: Annotated[float, LogRange(0.01, 10)] = Field(default=0.5, ge=0)
        """lambda_1 of the paper."""

    config: Config

    def active(self, stage: Stage) -> Sequence[str]:
        """All adapters so far."""
        return [*(task for task, _ in stage.earlier), stage.task]

    def extra(self, model: Any) -> Extra:
        """All adapters so far compute."""
        return Extra(adds=True, together=True)

    def extra_loss(self, model: MultimodalLM, stage: Stage) -> ExtraLoss | None:
        """Penalty on the overlap of the new adapter with the earlier ones."""
        if not stage.earlier:
            return None
        pairs = []
        for layer in adapters.layers(model):
            blocks = getattr(layer, "num_experts", 1)  # in a stacked tensor each expert has its own subspace
            a = layer.lora_A[stage.task].weight
            pairs += [(a, layer.lora_A[task].weight.detach(), blocks) for task, _ in stage.earlier]

        def penalty(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
            parts = [
                (_blocks(a, blocks) @ _blocks(old, blocks).transpose(1, 2)).abs().sum()
                for a, old, blocks in pairs
            ]
            return self.config.orthogonality * sum(parts[1:], parts[0])

        return penalty


def _blocks(a: Tensor, blocks: int) -> Tensor:
    """[blocks rank, H] as [blocks, rank, H]."""
    return a.view(blocks, -1, a.shape[-1])
