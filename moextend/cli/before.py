"""Checks of the commands of the core library before they load a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.cli import options
from moextend.errors import InputError, UnknownName, at, counted, short

if TYPE_CHECKING:
    from moextend.data.media import MediaRef


OPTIONS = {"image": "--vision", "audio": "--audio"}
"""Modality -> option that names its encoder."""
FILES = {"image": "--image", "audio": "--sound"}
"""Modality -> option that names its files."""


def check_model(
    base: str,
    encoders: Mapping[str, str],
    projectors: Sequence[Path] | None,
    dtype: str,
    attention: str | None,
    device: str,
) -> None:
    """Raises InputError if the base, an encoder or a loading option does not exist."""
    from moextend.model import sources
    from moextend.model.encoders import locate
    from moextend.model.sources import check_device
    from moextend.util import lookup
    from moextend.util.lookup import ATTENTION, DTYPES

    options.device(device)
    lookup.choose("dtype", dtype, dict.fromkeys(DTYPES), where="--dtype")
    if attention is not None:
        lookup.choose("attention", attention, dict.fromkeys(ATTENTION), where="--attention")
    sources.check_hub(sources.find(base, where="BASE"), where="BASE")
    for modality, name in encoders.items():
        with at(OPTIONS[modality]):
            locate(modality, name)
    if projectors and not encoders:
        raise InputError(
            "needs --vision or --audio.",
            where="--projector",
            hint="Name the encoder that it was aligned with.",
        )
    for folder in projectors or ():
        if not folder.is_dir():
            raise InputError(
                f"no folder '{folder}'.", where="--projector", hint="Name a folder of 'moextend align'."
            )
    check_device(device, dtype, attention, where="--attention")


def aligned_modality(modality: str | None, encoders: Mapping[str, str]) -> str:
    """The modality to align; InputError if it is not clear, or has no encoder."""
    if not encoders:
        raise InputError(
            "no encoder is named.", where="--vision, --audio", hint="Name one, e.g. --vision tiny."
        )
    if modality is None:
        if len(encoders) > 1:
            raise InputError(
                f"there are {len(encoders)} encoders.",
                where="--modality",
                hint=f"One of: {', '.join(encoders)}.",
            )
        return next(iter(encoders))
    if modality not in encoders:
        raise UnknownName("encoder of the modality", modality, encoders, where="--modality")
    return modality


def check_extensions(folders: Sequence[Path]) -> set[str]:
    """Modalities that the extensions in these folders bring. Raises InputError if a folder has no extension."""
    found: set[str] = set()
    if folders:
        from moextend.extension.modalities import carried

        for folder in folders:
            with at("--extension"):
                found.update(carried(folder))
    return found


def check_out(folder: Path, *, holds: str = "", stem: str = "") -> None:
    """Raises InputError if a result cannot be written to this folder.

    With a stem the folder may only hold what an interrupted call left.
    """
    from moextend.util import files

    files.check_writable(folder, where="--out")
    if stem and folder.is_dir():
        from moextend.extension.tensor_files import is_complete
        from moextend.training.resuming import BEGUN

        if is_complete(folder, stem):
            raise InputError(f"'{folder}' already holds {holds}.", where="--out", hint="Name a new folder.")
        found = sorted(path.name for path in folder.iterdir())
        if found and BEGUN not in found:
            raise InputError(
                f"'{folder}' holds other files, such as {short(found[0], 100)}.",
                where="--out",
                hint="Name a new folder.",
            )


def check_settings(values: Mapping[str, Any]) -> None:
    """Raises InputError if training settings are out of range, or the tracker is not installed."""
    from moextend.training.settings import Settings, check_tracker

    if not values["learning_rate"] > 0:
        raise InputError(
            f"{values['learning_rate']} trains nothing.",
            where="--learning-rate",
            hint="Give a number above 0.",
        )
    check_tracker(values.get("report_to", "none"), where="--report-to")
    with at("--steps, --batch-size, --learning-rate, --seed"):
        Settings(**{**values, "steps": values["steps"] or 1})


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
    from moextend.data.examples import in_order
    from moextend.data.modalities import marks_in, modality_types

    types, marks, before = modality_types(), marks_in(prompt), ""
    found: list[MediaRef] = []
    for name in dict.fromkeys([*paths, *marks]):
        files, option = paths.get(name, ()), FILES.get(name, f"<{name}>")
        if name in marks and files and marks.count(name) != len(files):
            raise InputError(
                f"it has {counted(marks.count(name), f'<{name}> mark')}, and {option} is given "
                f"{counted(len(files), 'time')}.",
                where="--prompt",
                hint=f"Write one <{name}> for each {option}.",
            )
        if files and name not in encoders:
            raise InputError(
                f"needs {OPTIONS[name]}.",
                where=option,
                hint=f"Name the {name} encoder, e.g. {OPTIONS[name]} tiny, or load an extension that brings it.",
            )
        found += [types[name].ref(path=path, where=option) for path in files]
        before += f"<{name}>\n" * len(files) if name not in marks else ""
    for medium in found:
        check_readable(medium)
    return before + prompt, in_order(before + prompt, found)


def check_readable(medium: MediaRef) -> None:
    """Raises InputError if the medium cannot be read; an image and a sound are read up to the header."""
    from moextend.data.images import ImageRef
    from moextend.data.sounds import AudioRef

    if isinstance(medium, ImageRef):
        medium.size()
    elif isinstance(medium, AudioRef):
        assert medium.header
