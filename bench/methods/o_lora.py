"""O-LoRA (Wang et al., 2023, arXiv 2310.14152): each stage's adapter is kept orthogonal to those before it.

A stage adds an adapter and trains it with ``orthogonality sum_tau sum |A_tau A_t^T|`` over the frozen adapters of
earlier stages (as in the authors' code); all adapters together answer every task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from moextend.bench.methods import adapters, trained
from moextend.bench.methods.method import Loop, Stage
from moextend.bench.methods.weights import probe_steps, told

if TYPE_CHECKING:
    from torch import Tensor

    from moextend import MultimodalLM
    from moextend.trainer import ExtraLoss

__all__ = ["Config", "learn", "probe_steps", "restore", "save", "select", "start", "told"]


class Config(adapters.Adapter):
    """Settings of O-LoRA."""

    orthogonality: float = Field(0.5, ge=0)
    """lambda_1 of the paper."""


def start(model: MultimodalLM, config: Config, seed: int) -> None:
    """Nothing to prepare."""


def learn(model: MultimodalLM, config: Config, stage: Stage, loop: Loop) -> dict[str, Any]:
    """Trains a new adapter beside the frozen ones."""
    earlier = [task for task, _ in stage.earlier]
    adapters.inject(model, config, stage.seed, stage.task)
    adapters.use(model, [*earlier, stage.task])
    new = adapters.parameters(model, stage.task)
    penalty = _overlap(model, stage.task, earlier, config.orthogonality) if earlier else None
    return trained.tune(model, new, loop, learning_rate=config.learning_rate, extra_loss=penalty)


def _overlap(model: MultimodalLM, new: str, earlier: Sequence[str], weight: float) -> ExtraLoss:
    pairs = []
    for layer in adapters.layers(model):
        blocks = getattr(layer, "num_experts", 1)  # of a fused tensor each expert has a subspace of its own
        a = layer.lora_A[new].weight
        pairs += [(a, layer.lora_A[task].weight.detach(), blocks) for task in earlier]

    def penalty(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        parts = [
            (_blocks(a, blocks) @ _blocks(old, blocks).transpose(1, 2)).abs().sum()
            for a, old, blocks in pairs
        ]
        return weight * sum(parts[1:], parts[0])

    return penalty


def _blocks(a: Tensor, blocks: int) -> Tensor:
    """[blocks rank, H] as [blocks, rank, H]."""
    return a.view(blocks, -1, a.shape[-1])


def save(model: MultimodalLM, config: Config, stage: Stage) -> None:
    """Writes the stage's adapter."""
    adapters.save(model, stage)


def restore(model: MultimodalLM, config: Config, stage: Stage) -> None:
    """Puts the stage's adapter in, beside those of the stages before."""
    adapters.restore(model, config, stage)


def select(model: MultimodalLM, config: Config, task: str, learnt: Sequence[str]) -> str:
    """All adapters so far, for every task."""
    adapters.use(model, learnt)
    return trained.fingerprint(model, [adapters.parameters(model, name) for name in learnt])
