"""Full fine-tuning: all weights of the language model, or those of some of its maps, are trained in every stage.

`part=attention` and `part=gate_up` are the two recipes of Zhu et al. (2025, arXiv 2510.08564): they train the
projections of self-attention alone, or the gate and up projections of the MLPs with the down projection frozen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from moextend.bench.methods import adapters
from moextend.bench.methods.method import Parameters
from moextend.bench.methods.weights import LM, TrainedWeights
from moextend.errors import InputError

if TYPE_CHECKING:
    from moextend import MultimodalLM

GATE_UP = ("gate_proj", "up_proj", "gate_up_proj", "input_linear", "w1", "w3")
"""Names of the gate and up projections of MLPs and experts: the last two of LFM2, the one before of Granite's shared
experts. A stack of experts is a parameter, and has its bias in another one."""


class FullFineTuning(TrainedWeights):
    """All weights of the LM are trained in every stage, or those of one kind of map."""

    role = "bound"
    look = ("vermilion", "v")

    class Config(TrainedWeights.Config):
        """What can be set."""

        part: Literal["all", "attention", "gate_up"] = "all"
        """attention: its linear maps, which LoRA adapts, too. gate_up: the gate and up projections of all MLPs, routed,
        shared and dense; without a gate, the up projections."""

    config: Config

    def check(self, model: Any) -> None:
        """Raises InputError if the model has no such maps."""
        if not self.parameters(model):
            raise InputError(
                f"full-ft finds no weights of part={self.config.part} in {type(model.lm).__name__}.",
                hint="Choose another part, or leave the setting out.",
            )

    def parameters(self, model: MultimodalLM) -> Parameters:
        """Name -> trained parameter."""
        from moextend.model import lm_head

        found, part = super().parameters(model), self.config.part
        if part == "attention":
            maps = {f"{LM}{name}" for name in adapters.attention_maps(model.lm)}
            return {name: p for name, p in found.items() if name.rpartition(".")[0] in maps}
        if part == "gate_up":
            blocks = tuple(f"{LM}{name}." for name in lm_head.attention_blocks(model.lm))
            return {name: p for name, p in found.items() if _is_gate_up(name) and not name.startswith(blocks)}
        return found


def _is_gate_up(name: str) -> bool:
    module, _, leaf = name.rpartition(".")
    own = module.rpartition(".")[2] if leaf in ("weight", "bias") else leaf.removesuffix("_bias")
    return own in GATE_UP
