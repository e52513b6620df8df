"""An extension on disk: the tensors of one stage (safetensors) and what they belong to (JSON)."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field, NonNegativeInt, field_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from moextend.errors import InputError, UnknownName
from moextend.extension.origin import Made
from moextend.model.fingerprint import tensors_digest
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from moextend.util import files, spec
from moextend.util.spec import Spec

FORMAT = 1
"""Version of what the files hold; a card that names another one is refused."""
STEM = "extension"
"""The files of an extension: extension.safetensors and extension.json."""
CHUNK = 1 << 22
"""Numbers that are read and checked at a time."""
READABLE = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Types of numbers that become float32 without a change."""


@dataclass(frozen=True)
class Extension:
    """An expert set of a model: what it is, not its weights."""

    name: str
    mode: Mode
    """How tokens reach it: the routing mode."""
    plan: dict[int, list[int]]
    """MoE block, lowest 0 -> the base experts that its new ones were copied from."""
    width: float
    """Share of their parents' inner neurons that its experts have."""
    coactive: tuple[str, ...]
    """Co-active extensions: those that were active when it was made, oldest first; it needs them."""
    parameters: int
    """Numbers that it adds to the model."""
    bytes: int
    """Memory that they take."""
    folder: Path | None
    """Where it was saved to or loaded from; None for one that is only in memory."""


class Card(Spec):
    """What an expert set is and which base it belongs to, as its JSON file says."""

    name: str
    mode: Mode
    plan: dict[Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,5})$")], list[NonNegativeInt]]
    """MoE block -> parents of its new experts."""
    calibrate: bool
    beside: list[dict[Literal["name", "digest"], str]]
    """Name and digest of its co-active extensions (those that were active when it was made), oldest first."""
    base: str
    """Fingerprint of the base."""
    width: float = 1.0
    """Share of the parents' inner neurons that the new experts have."""
    base_dtype: str = ""
    """Type of the base's weights ("float32"); empty in folders of earlier versions."""
    base_rounded: str = ""
    """Names the base's weights whatever type they were loaded in (see fingerprint.rounded_digest)."""
    made: Made | None = None
    """Of an extension that `extend` made."""

    @field_validator("beside")
    @classmethod
    def _both_keys(cls, value: list[dict[str, str]]) -> list[dict[str, str]]:
        if any(len(each) < 2 for each in value):
            raise ValueError("each entry has a name and a digest")
        return value


OPTIONAL = {"width", "base_dtype", "base_rounded", "made"}
"""What cards of earlier versions, or of other makers, do not have."""


def save_tensors(
    folder: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any], stem: str = STEM
) -> None:
    """Writes tensors, then the card with the format and their SHA-256; a folder without a card is incomplete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError("is no folder.", where=str(folder), hint="Name a new folder.") from error
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with files.atomic(folder / f"{stem}.safetensors") as path:
        save_file(ready, path)
        digest = files.sha256(path)
    files.write_json(folder / f"{stem}.json", {"format": FORMAT, "sha256": digest, **card})


def load_tensors(folder: Path, stem: str = STEM) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the card in a folder; InputError if it holds no complete extension of this format.

    A tensor with an infinite number or NaN is refused too.
    """
    card, path = read_card(folder, stem), folder / f"{stem}.safetensors"
    _check_sum(folder, card, stem)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise _unreadable(path, error) from error
    for name, tensor in tensors.items():
        _check_finite(path, name, tensor)
    return tensors, card


def read_card(folder: Path, stem: str = STEM) -> dict[str, Any]:
    """What the JSON file says; InputError where there is none, or it is of another format."""
    for name in (f"{stem}.safetensors", f"{stem}.json"):
        if not (folder / name).is_file():
            raise InputError(
                f"holds no {stem} ({name} is missing).",
                where=str(folder),
                hint=f"Name a folder that an {stem} was saved to." if stem == STEM else "Check the path.",
            )
    card = files.read_json(folder / f"{stem}.json")
    found = card.get("format") if isinstance(card, dict) else None
    if found == FORMAT:
        return cast(dict[str, Any], card)
    where = str(folder / f"{stem}.json")
    if isinstance(found, int) and found > FORMAT:
        raise InputError(
            f"is of format {found}, and this version of moextend reads format {FORMAT}.",
            where=where,
            hint="Use a newer version of moextend.",
        )
    raise InputError(
        f"names no known format, as files of early versions do ({found!r}; known: {FORMAT}).",
        where=where,
        hint="Remove the folder and make it again.",
    )


def is_complete(folder: Path, stem: str = STEM) -> bool:
    """Whether a folder holds an extension that was written to its end."""
    return all((folder / f"{stem}.{end}").is_file() for end in ("json", "safetensors"))


def save_extension(
    model: MultimodalLM,
    name: str,
    *,
    folder: str | Path,
    coactive: Sequence[str] | None = None,
    made: Made | None = None,
) -> None:
    """Saves expert set `name`, with the names and digests of its co-active extensions.

    Its weights are saved as float32, also where the model was moved to a shorter type since.

    Args:
        folder: gets extension.safetensors and extension.json.
        coactive: its co-active extensions; None: those that were active when it was attached.
        made: how it was made, for its card.

    Raises:
        UnknownName: the model has no such extension, or one of its co-active extensions is gone.
    """
    folder, scope = Path(folder), attach.scope_of(model.lm)
    if name not in scope.known:
        raise UnknownName("extension", name, scope.known)
    earlier = scope.coactive[name] if coactive is None else coactive
    tensors = _in_float32(model, name)
    card = Card(
        name=name,
        mode=scope.mode,
        plan={str(block): parents for block, parents in plan_of(model, name).items()},
        calibrate=any(f".ext_parts.{name}.calibration." in key for key in tensors),
        beside=[{"name": other, "digest": digest_of(model, other)} for other in earlier],
        base=model.base_fingerprint(),
        width=scope.widths[name],
        base_dtype=model.base_dtype,
        base_rounded=model.base_rounded(),
        made=made,
    )
    save_tensors(folder, tensors, card.model_dump(exclude_none=True))
    scope.folders[name] = folder


def load_extension(model: MultimodalLM, folder: str | Path, *, allow_dtype: bool = False) -> Extension:
    """Attaches the expert set in `folder` to `model`, frozen; nothing of it is in memory twice.

    The extension is then active, with its co-active extensions, as when it was made; `activate` changes that. The
    model no longer infers the task.

    Args:
        allow_dtype: accepts the base that it was made on in another type of numbers (`load(dtype=...)`), whose
            results are near those that it was trained with, and not the same.

    Raises:
        InputError: the folder holds no complete extension of this format, a damaged one, or one of another base; a
            co-active extension is not loaded, or they are loaded in another order; or the model has one of its name.
    """
    folder = Path(folder)
    card = read_extension(folder)
    _check_base(model, card, folder, allow_dtype)
    _check_earlier(model, card, folder)
    _check_sum(folder, read_card(folder))
    _check_plan(model, card, folder / f"{STEM}.safetensors")
    active = attach.scope_of(model.lm).active
    plan = {int(block): sources for block, sources in card.plan.items()}
    try:
        attach.activate(model.lm, [earlier["name"] for earlier in card.beside])
        attach.attach(
            model.lm, card.name, plan, mode=card.mode, calibrate=card.calibrate, width=card.width, empty=True
        )
        try:
            read_into(folder / f"{STEM}.safetensors", attach.new_parameters(model.lm, card.name))
        except BaseException:
            attach.detach(model.lm, card.name)
            raise
    except BaseException:
        attach.activate(model.lm, active)
        raise
    model.learn_only([])
    model.choose = None
    attach.scope_of(model.lm).folders[card.name] = folder
    return handle(model, card.name)


def read_extension(folder: str | Path) -> Card:
    """What the expert set in `folder` is, without its tensors; InputError where there is none of this format."""
    folder = Path(folder)
    values = {key: value for key, value in read_card(folder).items() if key not in ("format", "sha256")}
    known = set(Card.model_fields)
    if not known - OPTIONAL <= set(values) <= known:
        raise InputError(
            "holds no expert set, but what another method kept.",
            where=str(folder),
            hint="Name a folder that extend or save_extension wrote.",
        )
    return spec.parse(Card, values, where=str(folder / f"{STEM}.json"))


def extensions(model: MultimodalLM) -> list[Extension]:
    """The extensions that `model` has, oldest first, active or not."""
    return [handle(model, name) for name in attach.scope_of(model.lm).known]


def handle(model: MultimodalLM, name: str) -> Extension:
    """What extension `name` of `model` is; UnknownName where it has none of that name."""
    scope = attach.scope_of(model.lm)
    if name not in scope.known:
        raise UnknownName("extension", name, scope.known)
    new = attach.new_parameters(model.lm, name).values()
    return Extension(
        name=name,
        mode=scope.mode,
        plan=plan_of(model, name),
        width=scope.widths[name],
        coactive=scope.coactive[name],
        parameters=sum(p.numel() for p in new),
        bytes=sum(p.numel() * p.element_size() for p in new),
        folder=scope.folders.get(name),
    )


def plan_of(model: MultimodalLM, name: str) -> dict[int, list[int]]:
    """MoE block -> the base experts that the new ones of extension `name` were copied from."""
    return {
        site.layer: list(cast(Any, site.router).ext_parts[name].parents)
        for site in find_sites(model.lm)
        if name in getattr(site.router, "ext_parts", {})
    }


def digest_of(model: MultimodalLM, name: str) -> str:
    """Names the weights of extension `name`, as float32; UnknownName where the model has none of that name."""
    known = attach.scope_of(model.lm).known
    if name not in known:
        raise UnknownName("extension", name, known)
    return tensors_digest(_in_float32(model, name))


def active_fingerprint(model: MultimodalLM) -> str:
    """Names the base and the reachable extensions: all weights that compute now."""
    parts = [model.base_fingerprint()]
    parts += [digest_of(model, name) for name in attach.scope_of(model.lm).active]
    return "-".join(parts)


@torch.no_grad()
def read_into(path: Path, places: Mapping[str, Tensor]) -> None:
    """Fills float32 tensors (contiguous) from a safetensors file, whose bytes go straight into their memory.

    safetensors maps the file or reads whole tensors, which for a while takes the largest tensor's memory again: it is
    asked where the tensors are, and the bytes are read here. Shorter types of numbers are widened.

    Raises:
        InputError: the file holds other names, shapes or types than `places`, or a number that is not finite.
    """
    held = _held(path)
    if {name: shape for name, (shape, _) in held.items()} != {n: tuple(p.shape) for n, p in places.items()}:
        raise _misfit(path)
    sizes = {name: math.prod(shape) * READABLE[kind].itemsize for name, (shape, kind) in held.items()}
    with path.open("rb", buffering=0) as file:
        # The format has no gaps between tensors or behind them.
        file.seek(path.stat().st_size - sum(sizes.values()))
        for name, (_, kind) in held.items():
            for piece in torch.split(places[name].detach().view(-1), CHUNK):
                straight = piece.device.type == "cpu" and READABLE[kind] == piece.dtype
                buffer = piece if straight else torch.empty(piece.shape, dtype=READABLE[kind])
                _fill(file, buffer, path)
                _check_finite(path, name, buffer)
                if not straight:
                    piece.copy_(buffer)


def _held(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> shape and type of the tensors in a file, in the order of their bytes."""
    held: dict[str, tuple[tuple[int, ...], str]] = {}
    try:
        with safe_open(path, "pt") as file:
            for name in file.offset_keys():
                part = file.get_slice(name)
                held[name] = (tuple(part.get_shape()), part.get_dtype())
    except SafetensorError as error:
        raise _unreadable(path, error) from error
    if any(kind not in READABLE for _, kind in held.values()):
        raise _misfit(path)
    return held


def _fill(file: io.FileIO, buffer: Tensor, path: Path) -> None:
    rest = memoryview(buffer.view(torch.uint8).numpy().data)
    while len(rest):
        count = file.readinto(rest)
        if not count:
            raise InputError(
                "ends too early.",
                where=str(path),
                hint="Copy the folder again, or make it again.",
            )
        rest = rest[count:]


def _check_plan(model: MultimodalLM, card: Card, path: Path) -> None:
    """InputError where the file holds another number of experts than the card: before their memory is taken."""
    held, sites = _held(path), find_sites(model.lm)
    for block, sources in card.plan.items():
        if not block.isdecimal() or int(block) >= len(sites):
            continue  # attach says so
        start = f"{sites[int(block)].name}."
        mine = [
            shape for name, (shape, _) in held.items() if name.startswith(start) and ".ext_groups." in name
        ]
        if not mine or any(shape[:1] != (len(sources),) for shape in mine):
            raise _misfit(path)


def _check_finite(path: Path, name: str, tensor: Tensor) -> None:
    # The extremes pass NaN on, and take no memory of the tensor's size.
    if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
        raise InputError(
            f"tensor '{name}' holds numbers that are not finite (NaN or infinite).",
            where=str(path),
            hint="Its training diverged: make it again, with a lower learning rate.",
        )


def _misfit(path: Path) -> InputError:
    return InputError(
        f"holds other tensors than {STEM}.json says.", where=str(path), hint="Make the extension again."
    )


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"is no safetensors file ({error}).", where=str(path), hint="Copy the folder again, or make it again."
    )


def _in_float32(model: MultimodalLM, name: str) -> dict[str, Tensor]:
    """The parameters of an extension as they are saved and named, whatever type the model was moved to."""
    return {key: p.detach().float() for key, p in attach.new_parameters(model.lm, name).items()}


def _check_sum(folder: Path, card: Mapping[str, Any], stem: str = STEM) -> None:
    path = folder / f"{stem}.safetensors"
    if files.sha256(path) != card.get("sha256"):
        raise InputError(
            f"is damaged: its SHA-256 is not the one that {stem}.json names.",
            where=str(path),
            hint="Copy the folder again, or make it again.",
        )


def _check_base(model: MultimodalLM, card: Card, folder: Path, allow_dtype: bool) -> None:
    base = model.base_fingerprint()
    if card.base == base:
        return
    if model.projector is not None and card.base.rpartition("-")[0] == base.rpartition("-")[0]:
        raise InputError(
            f"extension '{card.name}' was made with another projector.",
            where=str(folder),
            hint="Load the one of its alignment first: load_projector(model, folder).",
        )
    if _differs_in_dtype(model, card):
        if allow_dtype:
            return
        raise InputError(
            f"extension '{card.name}' was made on a {card.base_dtype} base, and this one is {model.base_dtype}.",
            where=str(folder),
            hint=f"Load the base with dtype='{card.base_dtype}', or accept results that differ a little: "
            "load_extension(..., allow_dtype=True).",
        )
    made = f"{card.base}, {card.base_dtype}" if card.base_dtype else card.base
    raise InputError(
        f"extension '{card.name}' belongs to another base ({made}; this one is {base}, {model.base_dtype}).",
        where=str(folder),
        hint="Load the base that it was trained on, with the same encoder"
        + ("." if card.base_dtype else " and dtype."),
    )


def _differs_in_dtype(model: MultimodalLM, card: Card) -> bool:
    """Whether the base is the extension's own in another type of numbers, with the same encoder and projector."""
    if card.base_dtype in ("", model.base_dtype):
        return False
    around = card.base.partition("-")[2] == model.base_fingerprint().partition("-")[2]
    return around and card.base_rounded == model.base_rounded()


def _check_earlier(model: MultimodalLM, card: Card, folder: Path) -> None:
    """Raises InputError if a co-active extension is missing, is another one, or is loaded in another order."""
    known = attach.scope_of(model.lm).known
    names = [earlier["name"] for earlier in card.beside]
    for earlier in card.beside:
        name = earlier["name"]
        if name not in known:
            raise InputError(
                f"extension '{card.name}' was made with '{name}' active, and it is not loaded.",
                where=str(folder),
                hint=f"Load '{name}' first.",
            )
        if digest_of(model, name) != earlier["digest"]:
            raise InputError(
                f"extension '{card.name}' was made with another extension '{name}' than the loaded one.",
                where=str(folder),
                hint=f"Unload '{name}' and load the one that it was made with.",
            )
    loaded = [name for name in known if name in names]
    if loaded != names:
        raise InputError(
            f"extension '{card.name}' was made with {', '.join(names)} active, but the order is "
            f"{', '.join(loaded)}.",
            where=str(folder),
            hint="Unload them and load them in that order.",
        )
