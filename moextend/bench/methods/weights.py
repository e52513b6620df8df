"""Base classes of methods with one set of weights, which all stages train and all tasks use.

Between the base and the last stage, weights are interpolated (WiSE-FT, Wortsman et al., 2022, arXiv 2109.01903), and
the output of an adapter is scaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from moextend.bench.methods import adapters, trained
from moextend.bench.methods.method import Knob, Parameters, Stage
from moextend.util.search_space import SearchSpace

if TYPE_CHECKING:
    from torch import Tensor

    from moextend import MultimodalLM

Copies = dict[str, "Tensor"]
"""Name in the model -> copy of a parameter."""
LM = "lm."
"""Prefix of the names of the LM's parameters."""


class TrainedWeights(trained.Trained):
    """Trains weights of the LM: all of them, or those with `mark` in their names."""

    scales = "together"
    needs_earlier = False
    _ends: tuple[Copies, Copies | None] = ({}, None)
    """Trained weights of the base and of the last stage, on the CPU."""

    @property
    def mark(self) -> str:
        """Part of the names of the trained weights; here of all weights of the LM."""
        return LM

    @property
    def trains_base(self) -> bool:
        """Unless the trained weights are added ones."""
        return self.mark == LM

    def start(self, model: MultimodalLM, seed: int) -> None:
        """Freezes everything until the first training."""
        model.learn_only([])

    def parameters(self, model: MultimodalLM) -> Parameters:
        """Name -> trained parameter."""
        from moextend.model import lm_head

        known = lm_head.without_towers(model.lm)
        return {
            n: p
            for n, p in model.named_parameters()
            if n.startswith(LM) and self.mark in n and known(n.removeprefix(LM))
        }

    def prepare(self, model: MultimodalLM, stage: Stage) -> Parameters:
        """The same weights in every stage."""
        return self.parameters(model)

    def save(self, model: MultimodalLM, stage: Stage) -> None:
        """Writes the weights as they are after the stage."""
        trained.write(model, stage, self.parameters(model))

    def restore(self, model: MultimodalLM, stage: Stage) -> None:
        """Restores the weights of that stage."""
        trained.put_back(model, stage)

    def select(self, model: MultimodalLM, task: str, learned: Sequence[str]) -> str:
        """The same weights for every task."""
        return trained.fingerprint(model, [self.parameters(model)] if learned else [])

    def keep_base(self, model: MultimodalLM) -> None:
        """Copies the weights before their training."""
        self._ends = (_copied(self.parameters(model)), None)

    def scale(self, model: MultimodalLM, task: str, strengths: Mapping[str, float]) -> str:
        """Interpolates between the weights of the base and of the last stage."""
        import torch

        own, strength = self.parameters(model), one_strength(strengths)
        base, tuned = self._ends[0], self._ends[1] or _copied(own)
        self._ends = (base, tuned)
        with torch.no_grad():
            for name, parameter in own.items():
                ends = {0.0: base[name], 1.0: tuned[name]}
                parameter.copy_(ends.get(strength, torch.lerp(base[name], tuned[name], strength)))
        return trained.fingerprint(model, [own] if strength else [])

    def trainable(self, model: Any) -> Parameters:
        """Trainable parameters after `start`."""
        self.start(model, 0)
        return self.parameters(model)


def one_strength(strengths: Mapping[str, float]) -> float:
    """The strength that all stages have."""
    (strength,) = set(strengths.values())
    return strength


def _copied(parameters: Parameters) -> Copies:
    return {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}


class OneAdapter(TrainedWeights):
    """One LoRA adapter on attention and experts; it has no effect until it is trained."""

    class Config(adapters.Adapter, trained.Trained.Config):
        """What can be set."""

    config: Config

    @property
    def adapted(self) -> bool:
        """Whether the adapter is trained, and not the LM's own weights."""
        return True

    @property
    def mark(self) -> str:
        """Part of the names of the trained weights."""
        return adapters.LORA if self.adapted else LM

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The rank."""
        return (Knob("rank"),) if self.adapted else ()

    def check(self, model: Any) -> None:
        """Raises InputError if the model has nothing to adapt."""
        if self.adapted:
            adapters.lora_config(model, self.config)

    def start(self, model: MultimodalLM, seed: int) -> None:
        """Adds the adapter to the LM."""
        if self.adapted:
            adapters.inject(model, self.config, seed)
        super().start(model, seed)

    def keep_base(self, model: MultimodalLM) -> None:
        """Copies the LM's own weights, if they are trained; without the adapter the model is the base."""
        if not self.adapted:
            super().keep_base(model)

    def scale(self, model: MultimodalLM, task: str, strengths: Mapping[str, float]) -> str:
        """Scales the output of the adapter, or interpolates the LM's own weights."""
        if not self.adapted:
            return super().scale(model, task, strengths)
        return adapters.scale(model, {adapters.ONE: one_strength(strengths)})


class AdapterOrAll(OneAdapter):
    """One LoRA adapter, or with `over=full-ft` the LM's own weights."""

    class Config(OneAdapter.Config):
        """What can be set."""

        over: Literal["lora", "full-ft"] = "lora"

    config: Config

    @property
    def adapted(self) -> bool:
        """The setting `over`."""
        return self.config.over == "lora"

    @property
    def search_space(self) -> SearchSpace:
        """The rank only with an adapter."""
        return {name: one for name, one in super().search_space.items() if self.adapted or name != "rank"}
