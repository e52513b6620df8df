"""Zero-shot: nothing is learnt; the lower bound, and the row that shows that not forgetting is no merit by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import moextend
from moextend.bench.methods.method import Loop, Stage
from moextend.bench.methods.weights import probe_steps, told
from moextend.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moextend import MultimodalLM

__all__ = ["Config", "learn", "probe_steps", "restore", "save", "select", "start", "told"]


class Config(Spec):
    """Nothing to set."""


def start(model: MultimodalLM, config: Config, seed: int) -> None:
    """Nothing to prepare."""


def learn(model: MultimodalLM, config: Config, stage: Stage, loop: Loop) -> dict[str, Any]:
    """Nothing."""
    return {"trained_parameters": 0, "loss": None, "tokens": 0, "flops": 0.0}


def save(model: MultimodalLM, config: Config, stage: Stage) -> None:
    """Only notes that the stage is over."""
    moextend.extension.save_tensors(stage.folder, {}, {"task": stage.task, "base": model.base_fingerprint()})


def restore(model: MultimodalLM, config: Config, stage: Stage) -> None:
    """Nothing."""


def select(model: MultimodalLM, config: Config, task: str, learnt: Sequence[str]) -> str:
    """The base."""
    return model.base_fingerprint()
