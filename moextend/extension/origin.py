"""How an extension was made: the record in its card."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moextend.moe.recipe import Recipe
from moextend.training.loop import Report
from moextend.training.settings import Settings
from moextend.util import spec
from moextend.util.release import __version__
from moextend.util.spec import Spec


@dataclass(frozen=True)
class Origin:
    """Origin of an extension as far as the caller knows it, for its card."""

    base: str = ""
    data: str = ""
    licence: str = ""
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Option of `moextend extend` -> its values, besides base, data, recipe and settings."""


NOWHERE = Origin()


@dataclass(frozen=True)
class Scores:
    """Scores of some texts."""

    likelihood: float
    """Mean log-likelihood per token of the answers, in nats."""
    exact: float | None = None
    """Share of answers that are generated exactly, 0..1; None if an answer is long."""


@dataclass(frozen=True)
class Effect:
    """Effect of an extension."""

    held_out: int
    """Number of scored conversations."""
    before: Scores
    after: Scores
    generic: float
    """Change of the mean log-likelihood per token of generic text, with the extension used as its scope does."""


class Made(Spec):
    """How an extension was made, as information for users only."""

    base: str
    """Name of the base."""
    data: str
    """Origin of the data."""
    data_digest: str
    """Digest of the training content."""
    conversations: int
    """Number of conversations for training, with held-out ones."""
    recipe: dict[str, Any]
    settings: dict[str, Any]
    loss_first: float
    loss_last: float
    """Mean loss over the first and the last tenth of the steps."""
    date: str
    """UTC."""
    version: str
    """Version of moextend."""
    licence: str = ""
    options: dict[str, list[str]] = spec.unset({})
    """Option of `moextend extend` -> its values, for those given besides base, data, name, recipe and settings."""
    effect: Effect | None = spec.unset(None)
    """What `moextend extend` measured on held-out conversations; None: the library made the extension."""


def made_of(
    origin: Origin, recipe: Recipe, settings: Settings, report: Report, content: str, conversations: int
) -> Made:
    """Record of a finished training."""
    return Made(
        base=origin.base,
        data=origin.data,
        licence=origin.licence,
        options={option: list(values) for option, values in origin.options.items()},
        data_digest=content,
        conversations=conversations,
        recipe=recipe.model_dump(),
        settings=settings.model_dump(mode="json"),
        loss_first=report.loss_first,
        loss_last=report.loss_last,
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        version=__version__,
    )
