"""The base of a command: its options, the checks before it is loaded, and its extensions."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from typer import Argument, Option

import moextend
from moextend.cli import options
from moextend.errors import InputError, at
from moextend.extension.folder import is_extended, local_folder
from moextend.model import sources
from moextend.model.base_name import type_parts
from moextend.model.encoders import locate
from moextend.moe.strengths import checked
from moextend.util import files
from moextend.util.lookup import Dtype, Quantisation
from moextend.util.quiet import quiet_process

if TYPE_CHECKING:
    from moextend.data.media import MediaRef
    from moextend.export.auto import MoextendConfig
    from moextend.model.multimodal import MultimodalLM

Loaded = Annotated[
    list[Path] | None,
    Option(
        "--extension", "-e", file_okay=False, metavar="FOLDER",
        help="Folder or hub id (also with @revision) of an extension; repeatable, oldest first.",
    ),
]  # fmt: skip
OPTIONS = {"image": "--vision", "audio": "--audio"}
"""Modality -> option that names its encoder."""


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """Options for the encoders of a base."""

    vision: Annotated[
        str | None, Option(help="Image encoder: tiny, a folder, ViT-B-32/openai (open_clip) or timm:NAME.")
    ] = None
    audio: Annotated[
        str | None, Option(help="Audio encoder: tiny, a folder or a hub id (openai/whisper-tiny).")
    ] = None
    projector: Annotated[
        list[Path] | None,
        Option(
            exists=True, file_okay=False, metavar="FOLDER", help="What 'moextend align' wrote; repeatable."
        ),
    ] = None

    @property
    def encoders(self) -> dict[str, str]:
        """Modality -> its encoder."""
        named = {"image": self.vision, "audio": self.audio}
        return {modality: name for modality, name in named.items() if name is not None}


@dataclass(frozen=True, kw_only=True)
class BaseAsked:
    """Options for a base, and how it is loaded."""

    base: Annotated[str, Argument(metavar="BASE", help="A folder, a .gguf file, a hub id, tiny or smollm2.")]
    dtype: Annotated[
        Dtype | None,
        Option(
            help="Number type of the base; a training computes in bf16 unless it is float32, the default."
        ),
    ] = None
    quantize: Annotated[
        Quantisation | None,
        Option(help="Quantise attention, MLPs and experts of the base, by bitsandbytes."),
    ] = None
    device: options.Device = "auto"

    def check(self) -> set[str]:
        """Modalities with an encoder. Raises InputError if the base, an encoder or an option does not exist."""
        options.device(self.device)
        if is_extended(self.base):
            raise InputError(
                f"'{self.base}' is an extended model, and this command takes the base alone.",
                where="BASE",
                hint="Name its base. 'moextend serve' opens an extended model.",
            )
        sources.check_hub(sources.find(self.base, where="BASE"), where="BASE")
        sources.check_device(self.device, self.dtype or "float32", None, where="--device")
        return set()

    def open(self) -> MultimodalLM:
        """The base with its encoders and projectors, without extensions."""
        quiet_process()
        return moextend.load(
            self.base,
            dtype=self.dtype or "float32",
            device=sources.device_of(self.device),
            quantize=self.quantize,
        )


@dataclass(frozen=True, kw_only=True)
class EncodedBase(Encoders, BaseAsked):
    """A base and new encoders, which an extension that is trained with them carries."""

    def check(self) -> set[str]:
        """As that of a base alone."""
        super().check()
        for modality, name in self.encoders.items():
            with at(OPTIONS[modality]):
                locate(modality, name)
        if not self.encoders:
            options.refuse_except_with("a base with --vision or --audio", {"--projector": self.projector})
        return set(self.encoders)

    def open(self) -> MultimodalLM:
        """The base with its encoders and projectors; frozen features are cached below the current folder."""
        from moextend.model.feature_cache import store_features

        model = super().open()
        for modality, name in self.encoders.items():
            moextend.add_modality(model, modality, sources.lasting(name))
        for folder in self.projector or ():
            moextend.load_projector(model, folder, modality=_modality_of(folder))
        store_features(model, Path(".cache/features"))
        return model


@dataclass(frozen=True, kw_only=True)
class ExtendedBase(BaseAsked):
    """A base that may be the folder of an extended model (`moextend export --as moextend`)."""

    @cached_property
    def config(self) -> MoextendConfig | None:
        """Config of an extended model; None for every other base."""
        if not is_extended(self.base):
            return None
        quiet_process()  # the import below imports what logs
        from moextend.export.opening import read_config

        return read_config(Path(self.base))

    @cached_property
    def extensions(self) -> dict[Path, float]:
        """Folder -> strength of the extensions of an extended model, oldest first."""
        if self.config is None:
            return {}
        from moextend.export.opening import extension_folders

        found = extension_folders(self.config, Path(self.base))
        return {folder: self.config.strengths.get(name, 1.0) for name, folder in found.items()}

    def check(self) -> set[str]:
        """As that of a base alone, and of what an extended model names."""
        if self.config is None:
            return super().check()
        options.refuse_except_with("a base that is not exported", {"--quantize": self.quantize})
        from moextend.export.opening import base_of

        with at("BASE"):
            for modality, name in self.config.encoders.items():
                locate(modality, name)
        BaseAsked(base=base_of(self.config, Path(self.base)), dtype=self.dtype, device=self.device).check()
        return set(self.config.encoders)

    def open(self) -> MultimodalLM:
        """The base with the encoders and projectors of an extended model, without extensions."""
        if self.config is None:
            return super().open()
        from moextend.export.opening import load_base

        device = sources.device_of(self.device)
        return load_base(Path(self.base), self.config, dtype=self.dtype, device=device)

    def open_for(self, extensions: Sequence[Path]) -> MultimodalLM:
        """As `open`, with the modalities that extensions in these folders bring, which are not loaded yet."""
        from moextend.extension.modalities import keep_missing

        model = self.open()
        for folder in extensions:
            keep_missing(model, folder)
        return model

    def as_trained(self, extension: Path) -> ExtendedBase:
        """The base as an extension was trained on it; the quantisation of an extended model stays."""
        from moextend.extension.card import read_extension

        dtype, quantize = type_parts(read_extension(extension).base_dtype or "float32")
        kept = self.quantize if self.config is not None else quantize
        return replace(self, dtype=cast(Any, dtype), quantize=cast(Any, kept))


def _modality_of(projector: Path) -> str:
    """Modality of the projector in a folder; a folder without one is named when it is loaded."""
    try:
        return str(files.read_json(projector / "projector.json").get("modality", "image"))
    except (FileNotFoundError, InputError, AttributeError):
        return "image"


def weighed(values: Sequence[str] | None) -> tuple[list[Path], list[float]]:
    """Folders and strengths of values as FOLDER:0.6; a folder whose own name ends so is taken as it is.

    Raises:
        InputError: a strength is not a number from 0 to 1.
    """
    folders, given = list[Path](), list[float]()
    for value in values or ():
        folder, colon, number = value.rpartition(":")
        # A drive (C:skill), and a colon in the name of a folder or before a further one, separate nothing.
        if not colon or len(folder) < 2 or re.search(r"[/\\]", number) or files.exists(value):
            folder, number = value, "1"
        strength = float(number) if re.fullmatch(r"\d*\.?\d+", number) else number
        folders.append(Path(folder))
        with at("--extension"):
            given += checked({folder: strength}).values()
    return folders_of(folders), given


def folders_of(extensions: Sequence[Path] | None) -> list[Path]:
    """Folders of extensions; those that are named by a hub id are downloaded."""
    if not extensions:
        return []

    return [local_folder(one, where="--extension") for one in extensions]


def check_extensions(folders: Sequence[Path]) -> set[str]:
    """Modalities that the extensions in these folders bring. Raises InputError if a file of one is missing."""
    if not folders:
        return set()
    from moextend.extension import modalities, store
    from moextend.extension.card import read_extension

    with at("--extension"):
        for folder in folders:
            store.check_files(folder, read_extension(folder))
        return {name for folder in folders for name in modalities.carried(folder)}


def load_active(
    model: MultimodalLM,
    extensions: Sequence[Path],
    projectors: Sequence[Path] | None = None,
    *,
    allow_dtype: bool = False,
) -> list[str]:
    """Loads extensions, oldest first, and activates them; returns their names."""
    if not extensions:
        return []

    projectors_of(model, extensions, projectors)
    from moextend.extension.card import read_extension
    from moextend.extension.store import quantised_otherwise

    for folder in extensions:
        if note := quantised_otherwise(model, read_extension(folder)):
            options.echo(f"note: {note}", err=True)
    names = [moextend.load_extension(model, folder, allow_dtype=allow_dtype).name for folder in extensions]
    moextend.activate(model, "all")
    return names


def projectors_of(model: MultimodalLM, extensions: Sequence[Path], projectors: Sequence[Path] | None) -> None:
    """Gives an encoder without a projector in `projectors` that of the first extension whose folder holds one."""
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
                f"none is given for the {medium.modality} encoder, which would start with a random one.",
                where="--projector", hint="Train it on captions (moextend align), then: --projector FOLDER.",
            )  # fmt: skip
