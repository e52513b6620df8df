"""How an extension was made, as its card tells it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import moextend
from moextend.moe.recipe import Recipe
from moextend.training import resuming
from moextend.training.loop import Report
from moextend.training.settings import Settings
from moextend.util.spec import Spec


@dataclass(frozen=True)
class Origin:
    """What a caller knows of an extension's origin, for its card."""

    base: str = ""
    data: str = ""
    licence: str = ""


NOWHERE = Origin()


class Made(Spec):
    """How an extension was made: for people, nothing is computed from it."""

    base: str
    """The base as it was named."""
    data: str
    """Where the data came from."""
    data_digest: str
    """Names the content that was learned."""
    conversations: int
    """Learned and held out."""
    recipe: dict[str, Any]
    settings: dict[str, Any]
    loss_first: float
    loss_last: float
    """Mean loss over the first and the last tenth of the steps."""
    date: str
    """UTC."""
    version: str
    """Of moextend."""
    licence: str = ""


def made_of(
    origin: Origin, recipe: Recipe, settings: Settings, report: Report, content: str, conversations: int
) -> Made:
    """The record of a training that is over."""
    return Made(
        base=origin.base,
        data=origin.data,
        licence=origin.licence,
        data_digest=content,
        conversations=conversations,
        recipe=recipe.model_dump(),
        settings=dict(resuming.settings_facts(settings)),
        loss_first=report.loss_first,
        loss_last=report.loss_last,
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        version=moextend.__version__,
    )
