"""What methods share that train one set of weights on, stage after stage, and answer every task with it.

A method over the LM's own weights takes `Trained` as its config, one over a LoRA adapter `Adapted`, one over either
`Either`; the functions below are then most of the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from moextend.bench.methods import adapters, trained
from moextend.bench.methods.method import Loop, Rate, Stage
from moextend.spec import Spec

if TYPE_CHECKING:
    from torch import nn

    from moextend import MultimodalLM

LM = "lm."
"""What the names of the LM's parameters begin with."""


class Trained(Spec):
    """Settings of a method that trains weights of the LM."""

    learning_rate: Rate | None = None
    """None takes the sequence's."""

    @property
    def mark(self) -> str:
        """Part of the names of what is trained; here of all weights of the LM."""
        return LM


class Adapted(adapters.Adapter, Trained):
    """Settings of a method that trains a LoRA adapter."""

    @property
    def mark(self) -> str:
        """The adapter's."""
        return adapters.LORA


class Either(Adapted):
    """Settings of a method that works over an adapter or over the LM's own weights."""

    over: Literal["lora", "full-ft"] = "lora"

    @property
    def mark(self) -> str:
        """The adapter's, or all."""
        return adapters.LORA if self.over == "lora" else LM


def told(config: Spec) -> bool:
    """Nothing is told: one model answers all."""
    return False


def probe_steps(config: Spec) -> int:
    """No probe."""
    return 0


def start(model: MultimodalLM, config: Trained, seed: int) -> None:
    """Puts the adapter into the LM, if there is to be one; it changes nothing until it is trained."""
    if isinstance(config, Adapted) and config.mark == adapters.LORA:
        adapters.inject(model, config, seed)
    model.learn_only([])


def parameters(model: MultimodalLM, config: Trained) -> dict[str, nn.Parameter]:
    """What is trained, by name."""
    return {n: p for n, p in model.named_parameters() if n.startswith(LM) and config.mark in n}


def learn(model: MultimodalLM, config: Trained, stage: Stage, loop: Loop) -> dict[str, Any]:
    """Trains the weights on."""
    return trained.tune(model, parameters(model, config), loop, learning_rate=config.learning_rate)


def save(model: MultimodalLM, config: Trained, stage: Stage) -> None:
    """Writes the weights as they are after the stage."""
    trained.write(model, stage, parameters(model, config))


def restore(model: MultimodalLM, config: Trained, stage: Stage) -> None:
    """Puts the weights of that stage back in place."""
    trained.put_back(model, stage)


def select(model: MultimodalLM, config: Trained, task: str, learnt: Sequence[str]) -> str:
    """The same weights for every task."""
    return trained.fingerprint(model, [parameters(model, config)] if learnt else [])
