"""LoRA adapters of peft by name, one or several in a model, and the base class of methods with an adapter per task."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from moextend.bench.methods import trained
from moextend.bench.methods.method import Knob, LoraRank, Parameters, Rate, Stage
from moextend.bench.methods.shapes import Extra
from moextend.errors import InputError
from moextend.moe.strengths import named

if TYPE_CHECKING:
    from peft import LoraConfig

    from moextend import MultimodalLM

LORA = ".lora_"
"""Part of the names of all adapter parameters."""
ONE = "default"
"""Name of the adapter of a method with only one."""


class Adapter(trained.Trained.Config):
    """Settings of a LoRA adapter (arXiv 2106.09685)."""

    rank: LoraRank = 8
    alpha: Rate | None = None
    """None: twice the rank."""
    experts: bool = True
    """Adapt the experts' weights too, not only the attention's."""


def inject(model: MultimodalLM, config: Adapter, seed: int, name: str = ONE) -> None:
    """Adds adapter `name` to attention and, if set, to the stacked experts; the outputs do not change yet."""
    import torch
    from peft import inject_adapter_in_model

    from moextend.bench.methods.low_rank import factored
    from moextend.moe.low_bits import shapes_shown

    settings = lora_config(model, config)
    torch.manual_seed(seed)
    with warnings.catch_warnings(), shapes_shown(model.lm):
        warnings.simplefilter("ignore")
        inject_adapter_in_model(settings, model.lm, adapter_name=name)
    factored(layers(model))


def lora_config(model: MultimodalLM, config: Adapter) -> LoraConfig:
    """Settings of an adapter for peft; the model may have adapters already.

    Raises:
        InputError: the model has nothing that the adapter could change.
    """
    from peft import LoraConfig

    from moextend.model import lm_head
    from moextend.moe.low_bits import shapes_shown

    attention, inside = attention_maps(model.lm), lm_head.prefix(model.lm)
    with shapes_shown(model.lm):
        fused = [
            n
            for n, p in model.lm.named_parameters()
            if n.startswith(inside) and ".experts." in n and p.dim() == 3
        ]
    if not attention and not (fused and config.experts):
        raise InputError(
            f"a LoRA adapter finds no linear maps of attention in {type(model.lm).__name__}"
            f"{'' if config.experts else ' (experts=false)'}.",
            hint="Choose another method, such as full-ft or moextend.",
        )
    return LoraConfig(
        r=config.rank,
        lora_alpha=2 * config.rank if config.alpha is None else config.alpha,  # type: ignore[arg-type]  # any number
        target_modules=attention,
        target_parameters=sorted({n.replace(".base_layer", "") for n in fused}) if config.experts else None,
    )


def attention_maps(lm: Any) -> list[str]:
    """Names of the linear maps of a language model's attention, linear attention included, without those of towers.

    Also without an attention's `gate_proj` (AfMoE), which peft takes for a part of a fused `gate_up_proj`, and without
    the indexer of sparse attention (DeepSeek V3.2), which gets no gradient.
    """
    from moextend.model import lm_head

    blocks = tuple(f"{name}." for name in lm_head.attention_blocks(lm))
    found = list[str]()
    for name, module in lm.named_modules():
        inner = bool(found) and name.startswith(f"{found[-1]}.")  # of a map with adapters
        if name.startswith(blocks) and not inner and _is_linear(module):
            found.append(name)
    return [name for name in found if not name.endswith(".gate_proj") and ".indexer." not in name]


def _is_linear(module: Any) -> bool:
    """Whether peft can adapt a module: a linear map, also a quantised one, or one with adapters; no block-diagonal one
    (DeepSeek V4), which is a linear map by its class alone.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    kinds = [kind.__name__ for kind in type(module).__mro__]
    linear = hasattr(module, "in_features") and any("Linear" in kind for kind in kinds)
    return isinstance(module, BaseTunerLayer) or (linear and not any("Grouped" in kind for kind in kinds))


def parameters(model: MultimodalLM, name: str) -> Parameters:
    """Name in the model -> parameter, for the parameters of adapter `name`."""
    own = re.compile(rf"\{LORA}\w+\.{re.escape(name)}(\.|$)")  # a name may also be that of a layer
    return {n: p for n, p in model.named_parameters() if own.search(n)}


def use(model: MultimodalLM, names: Sequence[str]) -> None:
    """Activates exactly these adapters; none of them gives the base."""
    for layer in layers(model):
        layer.enable_adapters(bool(names))
        if names:
            layer.set_adapter(list(names), inference_mode=True)


def scale(model: MultimodalLM, strengths: Mapping[str, float], active: Sequence[str] | None = None) -> str:
    """Scales the outputs of adapters and activates those with a strength above 0, or of these only `active`.

    Returns the fingerprint of the base with them.
    """
    from moextend.model.fingerprint import tensors_digest

    present = {name: strength for name, strength in strengths.items() if strength}
    for layer in layers(model):
        for name, strength in present.items():
            layer.set_scale(name, strength)
    use(model, [name for name in present if active is None or name in active])
    digests = [
        named(tensors_digest(dict(parameters(model, name))), strength) for name, strength in present.items()
    ]
    return "-".join([model.base_fingerprint(), *digests])


@contextmanager
def using(model: MultimodalLM, names: Sequence[str]) -> Iterator[None]:
    """Context in which exactly these adapters are active; afterwards none is."""
    use(model, names)
    try:
        yield
    finally:
        use(model, [])


def layers(model: MultimodalLM) -> list[Any]:
    """The adapted modules."""
    return list(named_layers(model).values())


def named_layers(model: MultimodalLM) -> dict[str, Any]:
    """Name in the LM -> module, for the adapted modules."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in model.lm.named_modules() if isinstance(module, BaseTunerLayer)}


class AdapterPerTask(trained.Trained):
    """A new adapter per stage, trained with the earlier ones frozen."""

    scales = "each"

    class Config(Adapter):
        """What can be set."""

    config: Config

    def check(self, model: Any) -> None:
        """Raises InputError if the model has nothing to adapt."""
        lora_config(model, self.config)

    def check_stages(self, names: Sequence[str]) -> None:
        """Refuses names that no module of a ModuleDict can have, where peft keeps adapters."""
        from torch.nn import ModuleDict

        for name in names:
            if "." in name or hasattr(ModuleDict(), name):
                raise InputError(
                    f"an adapter cannot be called '{name}'.",
                    hint="Rename the task: no dot, and no name such as 'train', 'keys' or 'type'.",
                )

    def active(self, stage: Stage) -> Sequence[str]:
        """Adapters that are active in the training of the stage."""
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
        """Adds the stage's adapter to those in the model."""
        inject(model, self.config, stage.seed, stage.task)
        trained.put_back(model, stage)

    def select(self, model: MultimodalLM, task: str, learned: Sequence[str]) -> str:
        """Activates all adapters so far, for every task."""
        use(model, learned)
        return trained.fingerprint(model, [parameters(model, name) for name in learned])

    def scale(self, model: MultimodalLM, task: str, strengths: Mapping[str, float]) -> str:
        """Scales the output of each adapter."""
        return scale(model, strengths)

    def extra(self, model: Any) -> Extra:
        """Adapters of earlier stages stay in memory."""
        return Extra(adds=True)

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The rank."""
        return (Knob("rank"),)

    def trainable(self, model: Any) -> Parameters:
        """Parameters of the adapter of a first stage."""
        inject(model, self.config, 0)
        return parameters(model, ONE)
