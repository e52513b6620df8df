"""LoRA (arXiv 2106.09685) through peft: one adapter on attention and experts, trained on, stage after stage."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from moextend.bench.methods.dense import restore_trained, save_trained, trained_fingerprint
from moextend.bench.methods.method import Loop, Stage
from moextend.spec import Spec

if TYPE_CHECKING:
    from moextend import MultimodalLM


class Config(Spec):
    """Settings of LoRA."""

    learning_rate: float | None = None
    """None takes the sequence's."""
    rank: int = Field(8, ge=1)
    alpha: float | None = None
    """None takes twice the rank."""
    experts: bool = True
    """Adapt the experts' weights besides the attention's."""


def told(config: Config) -> bool:
    """Nothing is told: one adapter answers all."""
    return False


def probe_steps(config: Config) -> int:
    """No probe."""
    return 0


def start(model: MultimodalLM, config: Config, seed: int) -> None:
    """Puts the adapter into the LM; it changes nothing until it is trained."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    attention = sorted({n.rpartition(".")[2] for n, _ in model.lm.named_modules() if "self_attn." in n})
    experts = sorted({n for n, p in model.lm.named_parameters() if ".experts." in n and p.dim() == 3})
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=2 * config.rank if config.alpha is None else config.alpha,
        target_modules=[name for name in attention if name.endswith("proj")],
        target_parameters=experts if config.experts else None,
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inject_adapter_in_model(settings, model.lm)
    model.learn_only([])


def learn(model: MultimodalLM, config: Config, stage: Stage, loop: Loop) -> dict[str, Any]:
    """Trains the adapter on."""
    model.learn_only([name for name, _ in model.named_parameters() if "lora_" in name])
    report = loop(learning_rate=config.learning_rate)
    return {"trained_parameters": report.trained_parameters, "loss": report.loss_last}


def save(model: MultimodalLM, config: Config, stage: Stage) -> None:
    """Writes the adapter."""
    save_trained(model, stage, "lora")


def restore(model: MultimodalLM, config: Config, stage: Stage) -> None:
    """Puts the adapter of that stage back in place."""
    restore_trained(model, stage)


def select(model: MultimodalLM, config: Config, task: str, learnt: Sequence[str]) -> str:
    """The same weights for every task."""
    return trained_fingerprint(model, ("lora_",)) if learnt else model.base_fingerprint()
