"""LoRA adapters of peft by name, one or several in a model, and methods that make one a task."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from moextend.bench.methods import trained
from moextend.bench.methods.method import Knob, Parameters, Rank, Rate, Stage

if TYPE_CHECKING:
    from moextend import MultimodalLM

LORA = ".lora_"
"""What the names of all parameters of adapters hold."""
ONE = "default"
"""The adapter of a method that has only one."""


class Adapter(trained.Trained.Config):
    """Settings of a LoRA adapter (arXiv 2106.09685)."""

    rank: Rank = 8
    alpha: Rate | None = None
    """None takes twice the rank."""
    experts: bool = True
    """Adapt the experts' weights besides the attention's."""


def inject(model: MultimodalLM, config: Adapter, seed: int, name: str = ONE) -> None:
    """Puts adapter `name` on attention and, if wanted, on the fused experts; it changes nothing yet."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    attention = sorted({n.rpartition(".")[2] for n, _ in model.lm.named_modules() if "self_attn." in n})
    fused = [n for n, p in model.lm.named_parameters() if ".experts." in n and p.dim() == 3]
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=2 * config.rank if config.alpha is None else config.alpha,  # type: ignore[arg-type]  # any number
        target_modules=[module for module in attention if module.endswith("proj")],
        target_parameters=sorted({n.replace(".base_layer", "") for n in fused}) if config.experts else None,
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inject_adapter_in_model(settings, model.lm, adapter_name=name)


def parameters(model: MultimodalLM, name: str) -> Parameters:
    """The parameters of adapter `name`, by their name in the model."""
    return {n: p for n, p in model.named_parameters() if LORA in n and f".{name}." in n}


def use(model: MultimodalLM, names: Sequence[str]) -> None:
    """Makes exactly these adapters compute; none gives the base."""
    for layer in layers(model):
        layer.enable_adapters(bool(names))
        if names:
            layer.set_adapter(list(names), inference_mode=True)


@contextmanager
def using(model: MultimodalLM, names: Sequence[str]) -> Iterator[None]:
    """Within it, exactly these adapters compute; afterwards none."""
    use(model, names)
    try:
        yield
    finally:
        use(model, [])


def layers(model: MultimodalLM) -> list[Any]:
    """The adapted modules."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.lm.modules() if isinstance(module, BaseTunerLayer)]


class AdapterPerTask(trained.Trained):
    """A new adapter a stage, trained while the earlier ones are frozen."""

    class Config(Adapter):
        """What can be set."""

    config: Config

    def active(self, stage: Stage) -> Sequence[str]:
        """The adapters that compute while the stage is learned."""
        return [stage.task]

    def prepare(self, model: MultimodalLM, stage: Stage) -> Parameters:
        """Adds the stage's adapter."""
        inject(model, self.config, stage.seed, stage.task)
        use(model, self.active(stage))
        return parameters(model, stage.task)

    def save(self, model: MultimodalLM, stage: Stage) -> None:
        """Writes the stage's adapter."""
        trained.write(model, stage, parameters(model, stage.task))

    def restore(self, model: MultimodalLM, stage: Stage) -> None:
        """Puts the stage's adapter in, beside those that are there."""
        inject(model, self.config, stage.seed, stage.task)
        trained.put_back(model, stage)

    def select(self, model: MultimodalLM, task: str, learned: Sequence[str]) -> str:
        """All adapters so far, for every task."""
        use(model, learned)
        return trained.fingerprint(model, [parameters(model, name) for name in learned])

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The rank."""
        return (Knob("rank"),)

    def trainable(self, model: Any) -> Parameters:
        """The adapter of a first stage."""
        inject(model, self.config, 0)
        return parameters(model, ONE)
