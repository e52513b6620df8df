"""What a model card says of an extension, from its folder, its certificate, and its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moextend.certificate.certify import trained_scope
from moextend.certificate.record import Certificate, check_record, files_in
from moextend.extension import task_inference
from moextend.extension.card import Card, read_extension
from moextend.model.sources import is_hub_name
from moextend.sharing.contents import Kind, Pushed


@dataclass(frozen=True)
class TaskResult:
    """Scores of a task in a run, 0..100; None: not scored."""

    task: str
    metric: str
    kind: str
    """learned: the task of a stage. text: one that is only scored."""
    before: float | None
    """Of the base."""
    learned: float | None
    """After its own stage."""
    final: float | None
    """After the last stage."""
    licence: str = ""
    """Licence of its data."""


@dataclass(frozen=True)
class RunFacts:
    """A run of the benchmark that made an extension."""

    name: str
    stage: str
    task: str
    method: str
    task_identity: str
    row: Mapping[str, float]
    """Name of a metric -> its value in points."""
    tasks: Sequence[TaskResult] = ()
    base: str = ""
    """Name of the base."""
    scope: str = ""
    command: str = ""


@dataclass(frozen=True)
class CardFacts:
    """Everything that a model card says."""

    name: str
    """Name of the extension or of the folder."""
    kind: Kind
    base: str
    """Name of the base; "" if it is not known."""
    licence: str
    """"" if it is not stated."""
    names: tuple[str, ...]
    bytes: int
    card: Card | None = None
    reads: tuple[str, ...] = ()
    scope: str = ""
    run: RunFacts | None = None
    certificates: tuple[Certificate, ...] = ()
    """One for each scope that is certified for these files."""
    modalities: tuple[str, ...] = field(default=())

    @property
    def base_model(self) -> str | None:
        """Hub id of the base; None for one that has none."""
        return self.base if is_hub_name(self.base) else None

    @property
    def datasets(self) -> list[str]:
        """Hub ids of the data."""
        data = self.card.made.data if self.card and self.card.made else ""
        return [data] if is_hub_name(data) else []


def facts_of(what: Pushed, *, base: str = "", licence: str = "", run: RunFacts | None = None) -> CardFacts:
    """Facts for the model card of a folder.

    Args:
        base: name of the base; "": that of the card or of the run. licence: "": that of the card.
    """
    folder, card = what.folder, None
    if what.kind == "extension":
        card = read_extension(folder)
    made = card.made if card else None
    scope = (str(made.recipe.get("scope", "")) if made else "") or (run.scope if run else "")
    scope = scope or (trained_scope(card, folder) if card else "")
    return CardFacts(
        name=card.name if card else folder.resolve().name, kind=what.kind, names=what.names, bytes=what.bytes,
        base=base or (made.base if made else "") or (run.base if run else "") or _base_of(what),
        licence=licence or (made.licence if made else ""), card=card, reads=_reads(folder, card), scope=scope,
        run=run, certificates=_certificates(folder), modalities=_modalities(folder, card),
    )  # fmt: skip


def _base_of(what: Pushed) -> str:
    """Name of the base in the config of an exported folder."""
    from moextend.util import files

    keys = {"moextend": ("config.json", "base"), "peft": ("adapter_config.json", "base_model_name_or_path")}
    if what.kind not in keys:
        return ""
    name, key = keys[what.kind]
    return str(files.read_json(what.folder / name).get(key) or "")


def _reads(folder: Path, card: Card | None) -> tuple[str, ...]:
    if card is None or task_inference.find(folder) is None:
        return ()
    return task_inference.read(folder).kind


def _modalities(folder: Path, card: Card | None) -> tuple[str, ...]:
    from moextend.model.fingerprint import base_parts

    return tuple(base_parts(card.base)[1]) if card else ()


def _certificates(folder: Path) -> tuple[Certificate, ...]:
    """The certificates in the folder that are about these files."""
    checked = [check_record(path, folder) for path in files_in(folder)]
    return tuple(found for found, problems in checked if not problems)
