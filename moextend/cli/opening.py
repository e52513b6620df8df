"""The base of a command: its options, the checks before it is loaded, and its extensions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from moextend.cli import options
from moextend.errors import InputError, at
from moextend.util import files

if TYPE_CHECKING:
    from moextend.data.media import MediaRef
    from moextend.export.auto import MoextendConfig
    from moextend.model.multimodal import MultimodalLM

Base = Annotated[str, Argument(metavar="BASE", help="A folder, a .gguf file, a hub id, tiny or smollm2.")]
Vision = Annotated[
    str | None,
    Option(help="Image encoder: tiny, a folder, ViT-B-32/openai (open_clip) or timm:NAME. Default: none."),
]
Audio = Annotated[
    str | None, Option(help="Audio encoder: tiny, a folder or a hub id (openai/whisper-tiny). Default: none.")
]
Projector = Annotated[
    list[Path] | None,
    Option(
        file_okay=False,
        metavar="FOLDER",
        help="Folder that 'moextend align' wrote a projector to; repeatable, one per encoder.",
    ),
]
Loaded = Annotated[
    list[Path] | None,
    Option(
        "--extension",
        "-e",
        file_okay=False,
        metavar="FOLDER",
        help="Folder or hub id (also with @revision) of an extension; repeatable, oldest first.",
    ),
]
Weighed = Annotated[
    list[str] | None,
    Option(
        "--extension",
        "-e",
        metavar="FOLDER[:STRENGTH]",
        help="Folder or hub id (also with @revision) of an extension, with a strength from 0 (the base) "
        "to 1 (default); repeatable, oldest first.",
    ),
]
Dtype = Annotated[
    str,
    Option(
        help="Number type of the base: float32, bfloat16, float16, float64, or auto (the checkpoint's). "
        "A training computes in bf16 unless it is float32."
    ),
]
OPTIONS = {"image": "--vision", "audio": "--audio"}
"""Modality -> option that names its encoder."""


def encoders_of(vision: str | None, audio: str | None) -> dict[str, str]:
    """Modality -> its encoder, from the options."""
    return {name: encoder for name, encoder in (("image", vision), ("audio", audio)) if encoder is not None}


@dataclass(frozen=True)
class BaseAsked:
    """A base as it is named on the command line, and how it is loaded."""

    name: str
    """What `moextend.load` takes."""
    encoders: Mapping[str, str]
    """Modality -> its encoder. An extended model has its own."""
    projectors: Sequence[Path] | None = None
    dtype: str | None = None
    """Number type; None: float32, of an extended model that of the training."""
    device: str = "cpu"
    may_be_extended: bool = False
    """Whether the name may be the folder of an extended model (`moextend export --as moextend`)."""

    @cached_property
    def config(self) -> MoextendConfig | None:
        """Config of an extended model; None for every other base."""
        from moextend.extension.folder import is_extended

        if not (self.may_be_extended and is_extended(self.name)):
            return None
        from moextend.export.opening import read_config

        return read_config(Path(self.name))

    @cached_property
    def extensions(self) -> dict[Path, float]:
        """Folder -> strength of the extensions of an extended model, oldest first."""
        if self.config is None:
            return {}
        from moextend.export.opening import extension_folders

        found = extension_folders(self.config, Path(self.name))
        return {folder: self.config.strengths.get(name, 1.0) for name, folder in found.items()}

    def projector_folders(self) -> Sequence[Path]:
        """Folders of the projectors of the base's encoders."""
        if self.config is None:
            return self.projectors or ()
        from moextend.export.saving import PROJECTORS

        return [Path(self.name) / PROJECTORS / modality for modality in self.config.encoders]

    def check(self) -> set[str]:
        """Modalities with an encoder. Raises InputError if the base, an encoder or an option does not exist."""
        from moextend.model import sources
        from moextend.model.encoders import locate
        from moextend.model.sources import check_device
        from moextend.util import lookup
        from moextend.util.lookup import DTYPES

        options.device(self.device)
        dtype = self.dtype or "float32"
        lookup.choose("dtype", dtype, dict.fromkeys(DTYPES), where="--dtype")
        base, encoders = self.name, self.encoders
        if self.config is not None:
            given = [OPTIONS[name] for name in encoders] + ["--projector"] * bool(self.projectors)
            if given:
                raise InputError(
                    f"'{base}' has its own encoders and projectors.", where=given[0], hint="Leave it out."
                )
            from moextend.export.opening import base_of

            base, encoders = base_of(self.config, Path(base)), self.config.encoders
        sources.check_hub(sources.find(base, where="BASE"), where="BASE")
        for modality, name in encoders.items():
            with at(OPTIONS[modality]):
                locate(modality, name)
        if self.projectors and not encoders:
            raise InputError(
                "needs --vision or --audio.",
                where="--projector",
                hint="Name the encoder that it was aligned with.",
            )
        for folder in self.projectors or ():
            if not folder.is_dir():
                raise InputError(
                    f"no folder '{folder}'.", where="--projector", hint="Name a folder of 'moextend align'."
                )
        check_device(self.device, dtype, None, where="--device")
        return set(encoders)

    def open(self, *, keep_features: bool = False) -> MultimodalLM:
        """The base with its encoders and projectors, without extensions.

        keep_features: whether frozen features are cached below the current folder.
        """
        import moextend
        from moextend.util.quiet import quiet_process

        quiet_process()
        if self.config is not None:
            from moextend.export.opening import load_base

            return load_base(Path(self.name), self.config, dtype=self.dtype, device=device_of(self.device))
        model = moextend.load(
            self.name,
            vision=self.encoders.get("image"),
            audio=self.encoders.get("audio"),
            dtype=self.dtype or "float32",
            device=device_of(self.device),
        )
        for folder in self.projectors or ():
            moextend.load_projector(model, folder, modality=_modality_of(folder))
        if keep_features:
            from moextend.model.feature_cache import store_features

            store_features(model, Path(".cache/features"))
        return model

    def open_for(self, extensions: Sequence[Path]) -> MultimodalLM:
        """The base with the projectors that extensions in these folders bring, which are not loaded yet."""
        model = self.open()
        projectors_of(model, extensions, self.projector_folders())
        return model

    def as_trained(self, extension: Path) -> BaseAsked:
        """The base in the number type in which an extension was trained."""
        from moextend.extension.card import read_extension

        return replace(self, dtype=read_extension(extension).base_dtype or "float32")


def device_of(device: str) -> str:
    """A device of torch; auto: a GPU if there is one."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _modality_of(projector: Path) -> str:
    """Modality of the projector in a folder; a folder without one is named when it is loaded."""
    try:
        card = files.read_json(projector / "projector.json")
    except (FileNotFoundError, InputError):
        card = {}
    return str(card.get("modality", "image")) if isinstance(card, dict) else "image"


def weighed(values: Sequence[str] | None) -> tuple[list[Path], list[float]]:
    """Folders and strengths of values as FOLDER:0.6; a folder whose own name ends so is taken as it is.

    Raises:
        InputError: a strength is not a number from 0 to 1.
    """
    from moextend.moe.strengths import checked

    folders, given = list[Path](), list[float]()
    for value in values or ():
        folder, number = _split_strength(value)
        strength: float | str = 1.0
        if number is not None:
            try:
                strength = float(number)
            except ValueError:  # 0.1.2, or nothing
                strength = number
        folders.append(Path(folder))
        with at("--extension"):
            given.append(checked({folder: strength})[folder])
    return folders_of(folders), given


def _split_strength(value: str) -> tuple[str, str | None]:
    """A folder and what stands after its last colon; None without a strength.

    A folder with a colon in its name, a colon before a further folder and that of a drive (C:skill) separate nothing.
    """
    folder, colon, number = value.rpartition(":")
    if not colon or len(folder) < 2 or re.search(r"[/\\]", number) or files.exists(value):
        return value, None
    return folder, number


def folders_of(extensions: Sequence[Path] | None) -> list[Path]:
    """Folders of extensions; those that are named by a hub id are downloaded."""
    if not extensions:
        return []
    from moextend.extension.folder import local_folder

    return [local_folder(one, where="--extension") for one in extensions]


def check_extensions(folders: Sequence[Path]) -> set[str]:
    """Modalities that the extensions in these folders bring. Raises InputError if a folder has no extension."""
    found: set[str] = set()
    if folders:
        from moextend.extension.modalities import carried

        for folder in folders:
            with at("--extension"):
                found.update(carried(folder))
    return found


def load_active(
    model: MultimodalLM,
    extensions: Sequence[Path],
    projectors: Sequence[Path] | None,
    *,
    allow_dtype: bool = False,
) -> list[str]:
    """Loads extensions, oldest first, and activates them; returns their names."""
    if not extensions:
        return []
    import moextend

    projectors_of(model, extensions, projectors)
    names = [moextend.load_extension(model, folder, allow_dtype=allow_dtype).name for folder in extensions]
    moextend.activate(model, "all")
    return names


def projectors_of(model: MultimodalLM, extensions: Sequence[Path], projectors: Sequence[Path] | None) -> None:
    """Gives an encoder without a projector in `projectors` that of the first extension whose folder holds one."""
    import moextend
    from moextend.extension.modalities import carried

    given = {_modality_of(folder) for folder in projectors or ()}
    for folder in extensions:
        for name in carried(folder):
            if name in model.modalities and name not in given:
                moextend.load_projector(model, folder, modality=name)
                given.add(name)


def check_aligned(
    media: Sequence[MediaRef], projectors: Sequence[Path] | None, brought: Collection[str] = ()
) -> None:
    """Raises InputError for media of an encoder without a projector: it would be a random one.

    brought: modalities that the folders of extensions hold.
    """
    aligned = {*map(_modality_of, projectors or ()), *brought}
    for medium in media:
        if medium.modality not in aligned:
            raise InputError(
                f"none is given for the {medium.modality} encoder, which starts with a random one.",
                where="--projector",
                hint="Train it on captions: moextend align --help. Then give its folder: --projector FOLDER.",
            )
