"""The file of `moextend extend --config`: settings of the training, and the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from moextend.bench.sequence import Batch, Seed, Steps, Training
from moextend.util import spec
from moextend.util.spec import Spec


class OwnSettings(Training):
    """The training settings of a sequence's `train`, all optional, and the seed."""

    steps: Steps = 1
    batch_size: Batch = 1
    learning_rate: float = Field(1.0, gt=0)
    seed: Seed = 0


class Config(Spec):
    """What the file holds."""

    settings: OwnSettings = OwnSettings()
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Fields of moextend.moe.recipe.Recipe."""


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings, recipe) that the file sets. SpecError where it cannot be read."""
    found = spec.read(Config, path)
    return found.settings.model_dump(exclude_unset=True), dict(found.recipe)
