"""Options for a base and data, and functions that open them, for the commands of the core library."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moextend.cli import options
from moextend.errors import InputError, at, short
from moextend.util import files
from moextend.util.lookup import MOST_BATCH, MOST_SEED, MOST_STEPS

if TYPE_CHECKING:
    from moextend.data.conversations import Conversation
    from moextend.data.media import MediaRef
    from moextend.model.multimodal import MultimodalLM
    from moextend.training.settings import Settings

Base = Annotated[
    str, typer.Argument(metavar="BASE", help="A folder, a .gguf file, a hub id, tiny or smollm2.")
]
Vision = Annotated[
    str | None,
    typer.Option(
        help="Image encoder: tiny, a folder, ViT-B-32/openai (open_clip) or timm:NAME. Default: none."
    ),
]
Audio = Annotated[
    str | None,
    typer.Option(help="Audio encoder: tiny, a folder or a hub id (openai/whisper-tiny). Default: none."),
]
Projector = Annotated[
    list[Path] | None,
    typer.Option(
        file_okay=False,
        metavar="FOLDER",
        help="Folder that 'moextend align' wrote a projector to; repeatable, one per encoder.",
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="JSON(L), CSV, parquet or text file, folder or hub id: questions and answers, LLaVA "
        "conversations, or plain text."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=COLUMN",
        help="Columns of the data, e.g. image=photo,answer=label; null: no such column. Default: guessed.",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        exists=True, file_okay=False, help="Folder of the images or sounds. Default: the folder of the data."
    ),
]
Template = Annotated[
    str | None, typer.Option(help='The prompt, e.g. "<image> {question}". Default: guessed.')
]
Out = Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="A new folder for the result.")]
Loaded = Annotated[
    list[Path] | None,
    typer.Option(
        "--extension",
        "-e",
        file_okay=False,
        metavar="FOLDER",
        help="Folder or hub id (also with @revision) of an extension; repeatable, oldest first.",
    ),
]
Weighed = Annotated[
    list[str] | None,
    typer.Option(
        "--extension",
        "-e",
        metavar="FOLDER[:STRENGTH]",
        help="Folder or hub id (also with @revision) of an extension, with a strength from 0 (the base) "
        "to 1 (default); repeatable, oldest first.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1, max=MOST_STEPS, metavar="N", help="Optimizer steps. Default: three passes over the data."
    ),
]
Batch = Annotated[int, typer.Option(min=1, max=MOST_BATCH, metavar="N", help="Conversations per step.")]
Rate = Annotated[float, typer.Option(min=0, metavar="<float>", help="Peak learning rate.")]
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of all random numbers.")]
Dtype = Annotated[
    str,
    typer.Option(
        help="Number type of the base: float32, bfloat16, float16, float64, or auto (the checkpoint's). "
        "A training computes in bf16 unless it is float32."
    ),
]
Attention = Annotated[
    str | None,
    typer.Option("--attention", help="eager, sdpa or flash_attention_2. Default: transformers' choice."),
]


ENCODERS = {
    "image": "Name one: --vision tiny, a folder, or a model of open_clip or timm.",
    "audio": "Name one: --audio tiny, a folder or a hub id.",
}
"""Modality -> how an encoder is named."""


def opened(
    base: str,
    encoders: Mapping[str, str],
    projectors: Sequence[Path] | None,
    dtype: str,
    attention: str | None,
    device: str,
    workspace: Path | None,
) -> MultimodalLM:
    """The base with its encoders (modality -> name) and their projectors.

    workspace: gets a cache of features; None: without one.
    """
    import moextend
    from moextend.model.feature_cache import store_features
    from moextend.util.quiet import quiet_process

    quiet_process()
    model = moextend.load(
        base,
        vision=encoders.get("image"),
        audio=encoders.get("audio"),
        dtype=dtype,
        device=device_of(device),
        attn_implementation=attention,
    )
    for folder in projectors or ():
        moextend.load_projector(model, folder, modality=_modality_of(folder))
    if workspace is not None:
        store_features(model, workspace / ".cache" / "features")
    return model


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


def encoders_of(vision: str | None, audio: str | None) -> dict[str, str]:
    """Modality -> its encoder, from the options."""
    return {name: encoder for name, encoder in (("image", vision), ("audio", audio)) if encoder is not None}


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


def load_active(
    model: MultimodalLM,
    extensions: Sequence[Path] | None,
    projectors: Sequence[Path] | None,
    *,
    allow_dtype: bool = False,
) -> list[str]:
    """Loads extensions, oldest first, and activates them; returns their names.

    An encoder without a projector in `projectors` gets that of the first extension whose folder holds one.
    """
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


def rows_of(
    data: str,
    columns: list[str] | None,
    images: Path | None,
    template: str | None,
    workspace: Path,
    encoders: Collection[str],
) -> Sequence[Conversation]:
    """The user's data as conversations. Raises InputError if they have media of a modality not in `encoders`."""
    from moextend.data.modalities import modality_types
    from moextend.data.own import own_data

    named = options.pairs(columns or [], "--columns")
    rows = own_data(data, workspace / ".cache", columns=named, template=template, images=images)
    for medium in rows[0].media:
        name = medium.modality
        if name not in encoders:
            raise InputError(
                f"the data have {modality_types()[name].plural} ({medium.where}), and there is no {name} encoder.",
                where=f"data {data}",
                hint=ENCODERS.get(name, "Train from Python: moextend.load(..., encoders=...)."),
            )
    return rows


def first_of(rows: Sequence[Conversation]) -> str:
    """The number of conversations, and how the first one begins."""
    prompt, answer = rows[0].turns[0]
    if rows[0].is_text:
        return f"{len(rows)} texts, the first: {short(answer, 80)!r}"
    return f"{len(rows)} conversations, the first prompt: {prompt!r}"


def settings_of(dtype: object, conversations: int, values: Mapping[str, Any]) -> Settings:
    """The training settings for a base of this number type; `steps` None: three passes over the data."""
    from moextend.training.settings import default_settings

    return default_settings(conversations, **{"bf16": str(dtype) != "torch.float32"} | dict(values))


def describe(record: dict[str, Any]) -> str:
    """An extension in one line."""
    layers = ", ".join(
        f"{block} (of {', '.join(map(str, found))})" for block, found in record["plan"].items()
    )
    width = f", {record['width']:g} as wide" if record["width"] < 1 else ""
    return (
        f"extension '{record['name']}', {record['mode']} routing, new experts in MoE layers {layers}{width}"
    )
