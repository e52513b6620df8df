"""Base classes of methods with one set of weights, which all stages train and all tasks use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from moextend.bench.methods import adapters, trained
from moextend.bench.methods.method import Knob, Parameters, Stage

if TYPE_CHECKING:
    from moextend import MultimodalLM

LM = "lm."
"""Prefix of the names of the LM's parameters."""


class TrainedWeights(trained.Trained):
    """Trains weights of the LM: all of them, or those with `mark` in their names."""

    @property
    def mark(self) -> str:
        """Part of the names of the trained weights; here of all weights of the LM."""
        return LM

    def start(self, model: MultimodalLM, seed: int) -> None:
        """Freezes everything until the first training."""
        model.learn_only([])

    def parameters(self, model: MultimodalLM) -> Parameters:
        """Name -> trained parameter."""
        return {n: p for n, p in model.named_parameters() if n.startswith(LM) and self.mark in n}

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

    def trainable(self, model: Any) -> Parameters:
        """Trainable parameters after `start`."""
        self.start(model, 0)
        return self.parameters(model)


class OneAdapter(TrainedWeights):
    """One LoRA adapter on attention and experts; it has no effect until it is trained."""

    class Config(adapters.Adapter, trained.Trained.Config):
        """What can be set."""

    config: Config

    @property
    def mark(self) -> str:
        """The adapter's."""
        return adapters.LORA

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The rank."""
        return (Knob("rank"),)

    def start(self, model: MultimodalLM, seed: int) -> None:
        """Adds the adapter to the LM."""
        adapters.inject(model, self.config, seed)
        model.learn_only([])


class AdapterOrAll(OneAdapter):
    """One LoRA adapter, or with `over=full-ft` the LM's own weights."""

    class Config(OneAdapter.Config):
        """What can be set."""

        over: Literal["lora", "full-ft"] = "lora"

    config: Config

    @property
    def mark(self) -> str:
        """The adapter's, or all."""
        return adapters.LORA if self._adapted else LM

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The rank, with an adapter."""
        return super().knobs if self._adapted else ()

    def start(self, model: MultimodalLM, seed: int) -> None:
        """Adds the adapter to the LM, if it is used."""
        start = super().start if self._adapted else super(OneAdapter, self).start
        start(model, seed)

    @property
    def _adapted(self) -> bool:
        return self.config.over == "lora"
