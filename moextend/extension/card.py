"""Cards on disk: of an expert set (extension.json), with how it was made, and of a modality that it needs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, field_validator

from moextend.errors import InputError
from moextend.extension.tensor_files import STEM, read_card
from moextend.model.base_name import TYPE
from moextend.moe.recipe import Mode, Recipe
from moextend.util import files, spec
from moextend.util.environment import __version__
from moextend.util.spec import Spec

if TYPE_CHECKING:
    from moextend.training.loop import Report
    from moextend.training.settings import Settings


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


class Card(Spec):
    """What an expert set is and which base it belongs to; the fields are the keys of the JSON file."""

    name: str
    mode: Mode
    """Routing mode."""
    plan: dict[Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,5})$")], list[NonNegativeInt]]
    """MoE block -> parents of its new experts."""
    calibrate: bool
    """Whether paper routing has calibrations."""
    beside: list[dict[Literal["name", "digest"], str]]
    """Name and digest of its co-active extensions (those that were active when it was made), oldest first."""
    base: str
    """Fingerprint of the base."""
    width: float = 1.0
    """Inner neurons of a new expert as a share of its parent's, 0..1."""
    base_dtype: Annotated[str, Field(pattern=TYPE)] = ""
    """Type of the base's weights ("float32", or quantised "float32+nf4"); "": not known."""
    base_rounded: str = ""
    """Fingerprint of the base that does not depend on the type of its weights (see fingerprint.rounded_digest)."""
    made: Made | None = None
    """How `extend` made it; None for other extensions."""
    files: dict[str, str] = spec.unset({})
    """Other files that its inference needs -> their SHA-256: task statistics, modalities."""

    @field_validator("beside")
    @classmethod
    def _both_keys(cls, value: list[dict[str, str]]) -> list[dict[str, str]]:
        if any(len(each) < 2 for each in value):
            raise ValueError("each entry has a name and a digest")
        return value


class ModalityCard(Spec):
    """A modality that the model of an extension had besides those of `load`; its projector is in the tensor file."""

    modality: str
    encoder: str | None
    """Name that its encoder is loaded by; None: it has none."""
    settings: dict[str, Any]
    """Further arguments of the encoder's loader."""
    facts: dict[str, Any]
    """Facts of the encoder, as information for users only."""
    fingerprint: str
    """Fingerprint of the encoder."""
    projector: str
    """Fingerprint of the projector."""
    base: str
    """Fingerprint of the language model and the encoder."""


def read_extension(folder: str | Path) -> Card:
    """Card of the expert set in `folder`; InputError if there is none of this format."""
    folder = Path(folder)
    values = {key: value for key, value in read_card(folder).items() if key not in ("format", "sha256")}
    if not {"name", "plan"} <= set(values):
        raise InputError(
            "holds no expert set, but files of another method.",
            where=str(folder),
            hint="Name a folder that extend or save_extension wrote.",
        )
    return spec.parse(Card, values, where=str(folder / f"{STEM}.json"))


def note_effect(folder: Path, effect: Effect) -> None:
    """Adds the effect of an extension to its card; one that is not finite (no answers) is left out."""
    card = read_extension(folder)
    numbers = (effect.before.likelihood, effect.after.likelihood, effect.generic)
    if card.made is not None and all(map(math.isfinite, numbers)):
        values = read_card(folder)
        noted = card.made.model_copy(update={"effect": effect})
        files.write_json(folder / f"{STEM}.json", values | {"made": noted.model_dump(exclude_none=True)})
