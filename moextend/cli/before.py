"""Checks of the commands of the core library before they load a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.cli import options
from moextend.errors import InputError, at

if TYPE_CHECKING:
    from moextend.data.images import ImageRef


def check_model(
    base: str, vision: str | None, projector: Path | None, dtype: str, attention: str | None, device: str
) -> None:
    """Raises InputError if the base, the encoder or a loading option does not exist."""
    from moextend.model import encoders, sources
    from moextend.model.preflight import check_device
    from moextend.util import lookup
    from moextend.util.limits import ATTENTION, DTYPES

    options.device(device)
    lookup.choose("dtype", dtype, dict.fromkeys(DTYPES), where="--dtype")
    if attention is not None:
        lookup.choose("attention", attention, dict.fromkeys(ATTENTION), where="--attention")
    sources.find(base, where="BASE")
    if vision is not None:
        with at("--vision"):
            encoders.locate(vision)
    if projector is not None and vision is None:
        raise InputError(
            "needs --vision.", where="--projector", hint="Name the encoder that it was aligned with."
        )
    if projector is not None and not projector.is_dir():
        raise InputError(
            f"no folder '{projector}'.", where="--projector", hint="Name a folder of 'moextend align'."
        )
    check_device(device, dtype, attention, where="--attention")


def check_extensions(folders: Sequence[Path]) -> None:
    """Raises InputError if a folder has no extension."""
    if folders:
        from moextend.extension.card import read_extension

        for folder in folders:
            with at("--extension"):
                read_extension(folder)


def check_out(folder: Path, *, holds: str = "", stem: str = "") -> None:
    """Raises InputError if a result cannot be written to this folder, or it already has one with this stem."""
    from moextend.util import files

    files.check_writable(folder, where="--out")
    if stem and folder.is_dir():
        from moextend.extension.tensor_files import is_complete

        if is_complete(folder, stem):
            raise InputError(f"'{folder}' already holds {holds}.", where="--out", hint="Name a new folder.")


def check_settings(values: Mapping[str, Any]) -> None:
    """Raises InputError if training settings are out of range, or the tracker is not installed."""
    from moextend.training.settings import Settings
    from moextend.training.trackers import check_tracker

    if not values["learning_rate"] > 0:
        raise InputError(
            f"{values['learning_rate']} trains nothing.",
            where="--learning-rate",
            hint="Give a number above 0.",
        )
    check_tracker(values.get("report_to", "none"), where="--report-to")
    with at("--steps, --batch-size, --learning-rate, --seed"):
        Settings(**{**values, "steps": values["steps"] or 1})


def pictures(prompt: str, images: Sequence[Path], vision: str | None) -> tuple[ImageRef, ...]:
    """Images of a prompt; InputError if they do not fit it, or one cannot be read."""
    from moextend.data.images import MARK, ImageRef

    marks = prompt.count(MARK)
    if marks and marks != len(images):
        raise InputError(
            f"{marks} times {MARK}, and {len(images)} images.",
            where="--prompt",
            hint="Give one --image a mark.",
        )
    if images and vision is None:
        raise InputError(
            "needs --vision.", where="--image", hint="Name the image encoder, e.g. --vision tiny."
        )
    found = tuple(ImageRef(path=path, where=f"--image {path}") for path in images)
    for image in found:
        image.size()
    return found
