"""Data, prompts and places of results of the library's commands: their options, and checks before a model is loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from moextend.cli import options
from moextend.cli.opening import OPTIONS
from moextend.data.examples import in_order
from moextend.data.images import ImageRef
from moextend.data.modalities import marks_in, modality_types
from moextend.data.own import own_data
from moextend.data.sounds import AudioRef
from moextend.errors import InputError, at, short
from moextend.training.settings import Settings, check_tracker, default_settings
from moextend.util import files
from moextend.util.lookup import BATCH, MOST_BATCH, MOST_SEED, RATE

if TYPE_CHECKING:
    from moextend.data.conversations import Conversation
    from moextend.data.media import MediaRef

Data = Annotated[
    str,
    Option(help="JSON(L), CSV, parquet or text file, folder or hub id: questions and answers, LLaVA "
           "conversations, or plain text."),
]  # fmt: skip
Out = Annotated[Path, Option("--out", "-o", file_okay=False, help="A new folder for the result.")]
FILES = {"image": "--image", "audio": "--sound"}
"""Modality -> option that names its files."""


@dataclass(frozen=True)
class Training:
    """Options for the settings of a training."""

    steps: options.Steps = None
    batch_size: Annotated[int, Option(min=1, max=MOST_BATCH, metavar="N", help="Conversations per step.")] = (
        BATCH
    )
    learning_rate: Annotated[float, Option(min=0, metavar="<float>", help="Peak learning rate.")] = RATE
    seed: Annotated[int, Option(min=0, max=MOST_SEED, help="Seed of all random numbers.")] = 0


@dataclass(frozen=True)
class Reading:
    """Options for how data are read."""

    columns: Annotated[
        list[str] | None,
        Option(metavar="KEY=COLUMN", help="Columns of the data: image=photo,answer=label. Default: guessed."),
    ] = None
    images: Annotated[
        Path | None,
        Option(exists=True, file_okay=False, help="Folder of images or sounds. Default: that of the data."),
    ] = None
    template: Annotated[
        str | None, Option(help='The prompt, e.g. "<image> {question}". Default: guessed.')
    ] = None

    def rows(self, data: str, encoders: Collection[str]) -> Sequence[Conversation]:
        """The user's data as conversations. Raises InputError if they have media of a modality not in `encoders`."""
        named = options.pairs(options.words(self.columns or [], "--columns"), "--columns")
        rows = own_data(data, Path(".cache"), columns=named, template=self.template, images=self.images)
        for medium in rows[0].media:
            name = medium.modality
            if name not in encoders:
                plural = modality_types()[name].plural
                what = f"the data have {plural} ({medium.where}), and there is no {name} encoder."
                hint = f"Name one: {OPTIONS.get(name, 'encoders= of moextend.load')} (docs/modalities.md)."
                raise InputError(what, where=f"data {data}", hint=hint)
        return rows


def first_of(rows: Sequence[Conversation]) -> str:
    """The number of conversations, and how the first one begins."""
    prompt, answer = rows[0].turns[0]
    if rows[0].is_text:
        return f"{len(rows)} texts, the first: {short(answer, 80)!r}"
    return f"{len(rows)} conversations, the first prompt: {prompt!r}"


def settings_of(dtype: object, conversations: int, values: Mapping[str, Any]) -> Settings:
    """The training settings for a base of this number type; `steps` None: three passes over the data."""
    return default_settings(conversations, **{"bf16": str(dtype) != "torch.float32"} | dict(values))


def check_settings(values: Mapping[str, Any]) -> None:
    """Raises InputError if training settings are out of range, or the tracker is not installed."""
    check_tracker(values.get("report_to", "none"), where="report_to")
    with at("--steps, --batch-size, --learning-rate, --seed"):
        Settings(**{**values, "steps": values["steps"] or 1})


def check_out(folder: Path, *, holds: str = "", stem: str = "") -> None:
    """Raises InputError if a result cannot be written to this folder.

    With a stem the folder may only hold what an interrupted call left.
    """
    files.check_writable(folder, where="--out")
    if stem and folder.is_dir():
        from moextend.extension.tensor_files import is_complete
        from moextend.training.resuming import BEGUN

        found = sorted(path.name for path in folder.iterdir())
        what = (
            holds
            if is_complete(folder, stem)
            else f"other files, such as {short(found[0], 100)}"
            if found
            else ""
        )
        if what and (what == holds or BEGUN not in found):
            raise InputError(f"'{folder}' already holds {what}.", where="--out", hint="Name a new folder.")


def shown(
    prompt: str, paths: Mapping[str, Sequence[Path]], encoders: Collection[str]
) -> tuple[str, tuple[MediaRef, ...]]:
    """The prompt with a mark for each file, and the media in the order of the marks.

    Args:
        paths: modality -> files; those of a modality without a mark stand before the text, and a mark of a modality
            without files is text.
        encoders: modalities with an encoder.

    Raises:
        InputError: files and marks do not agree, a modality has no encoder, or a file cannot be read.
    """
    types, marks, before = modality_types(), marks_in(prompt), ""
    found: list[MediaRef] = []
    for name in dict.fromkeys([*paths, *marks]):
        files, option, count = paths.get(name, ()), FILES.get(name, f"<{name}>"), marks.count(name)
        if files and count not in (0, len(files)):
            what = f"it has <{name}> {count} times, and {option} is given {len(files)} times."
            raise InputError(what, where="--prompt", hint=f"Write one <{name}> for each {option}.")
        if files and name not in encoders:
            hint = "Name the encoder, or load an extension that brings it."
            raise InputError(f"needs {OPTIONS[name]}.", where=option, hint=hint)
        found += [types[name].ref(path=path, where=option) for path in files]
        before += f"<{name}>\n" * len(files) if not count else ""
    for medium in found:  # an image and a sound are read up to the header
        if isinstance(medium, ImageRef):
            medium.size()
        elif isinstance(medium, AudioRef):
            assert medium.header
    return before + prompt, in_order(before + prompt, found)
