"""One LoRA adapter a task, each made on the untouched base: nothing is shared, nothing is forgotten.

The rival of expert sets that are reached by task: told the task (`task=told`) like `scope: own`, or finding it out
from the input (`task=inferred`) like `scope: auto`, by the same recogniser. Text is answered by the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from moextend.bench.methods import adapters, inferred, trained
from moextend.bench.methods.method import Loop, Stage
from moextend.bench.methods.weights import probe_steps

if TYPE_CHECKING:
    from moextend import MultimodalLM

__all__ = ["Config", "learn", "probe_steps", "restore", "save", "select", "start", "text_untouched", "told"]


class Config(adapters.Adapter):
    """Settings of LoRA per task."""

    task: Literal["told", "inferred"] = "told"


def told(config: Config) -> bool:
    """Whether the task is named with every input."""
    return config.task == "told"


def text_untouched(config: Config) -> bool:
    """An adapter learnt from inputs with images is reached by no input without one."""
    return True


def start(model: MultimodalLM, config: Config, seed: int) -> None:
    """Nothing to prepare."""


def learn(model: MultimodalLM, config: Config, stage: Stage, loop: Loop) -> dict[str, Any]:
    """Trains a new adapter, alone on the base."""
    adapters.inject(model, config, stage.seed, stage.task)
    adapters.use(model, [stage.task])
    new = adapters.parameters(model, stage.task)
    facts = trained.tune(model, new, loop, learning_rate=config.learning_rate)
    if config.task == "inferred":
        facts["recognised"] = inferred.portray(model, stage)
    return facts


def save(model: MultimodalLM, config: Config, stage: Stage) -> None:
    """Writes the stage's adapter."""
    adapters.save(model, stage)
    _choose(model, config, stage)


def restore(model: MultimodalLM, config: Config, stage: Stage) -> None:
    """Puts the stage's adapter in."""
    adapters.restore(model, config, stage)
    _choose(model, config, stage)


def _choose(model: MultimodalLM, config: Config, stage: Stage) -> None:
    adapters.use(model, [])
    if config.task == "inferred":
        inferred.choose(model, stage, partial(adapters.using, model))


def select(model: MultimodalLM, config: Config, task: str, learnt: Sequence[str]) -> str:
    """told: the task's own adapter, or the base where there is none. inferred: left to the recogniser."""
    if config.task == "inferred":
        assert model.choose is not None, "restore and save set it"
        named = trained.fingerprint(model, [adapters.parameters(model, name) for name in learnt])
        return f"{named}-{model.choose.fingerprint()}"
    mine = [task] if task in learnt else []
    adapters.use(model, mine)
    return trained.fingerprint(model, [adapters.parameters(model, name) for name in mine])
