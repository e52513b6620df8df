"""Full fine-tuning: every weight of the language model is trained, stage after stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moextend.bench.methods.dense import restore_trained, save_trained, trained_fingerprint
from moextend.bench.methods.method import Loop, Stage
from moextend.spec import Spec

if TYPE_CHECKING:
    from moextend import MultimodalLM


class Config(Spec):
    """Settings of full fine-tuning."""

    learning_rate: float | None = None
    """None takes the sequence's."""


def told(config: Config) -> bool:
    """Nothing is told: one model answers all."""
    return False


def probe_steps(config: Config) -> int:
    """No probe."""
    return 0


def start(model: MultimodalLM, config: Config, seed: int) -> None:
    """Nothing to prepare."""


def learn(model: MultimodalLM, config: Config, stage: Stage, loop: Loop) -> dict[str, Any]:
    """Trains the whole LM; encoder and projector stay frozen, as for every method."""
    model.learn_only([name for name, _ in model.named_parameters() if name.startswith("lm.")])
    report = loop(learning_rate=config.learning_rate)
    return {"trained_parameters": report.trained_parameters, "loss": report.loss_last}


def save(model: MultimodalLM, config: Config, stage: Stage) -> None:
    """Writes the whole LM."""
    save_trained(model, stage, "full-ft")


def restore(model: MultimodalLM, config: Config, stage: Stage) -> None:
    """Puts the LM of that stage back in place."""
    restore_trained(model, stage)


def select(model: MultimodalLM, config: Config, task: str, learnt: Sequence[str]) -> str:
    """The same weights for every task."""
    return trained_fingerprint(model) if learnt else model.base_fingerprint()
