"""Saves extensions to folders, loads them, and describes those of a model."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from moextend.errors import InputError, UnknownName
from moextend.extension import modalities, tensor_files
from moextend.extension.card import Card, Made, read_extension
from moextend.extension.folder import STATISTICS, contents, local_folder
from moextend.extension.tensor_files import STEM
from moextend.model.base_name import base_parts, type_parts
from moextend.model.fingerprint import tensors_digest
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.moe.recipe import Mode
from moextend.moe.routing import Scope
from moextend.moe.sites import find_sites
from moextend.moe.strengths import named
from moextend.util import files


class QuantisationWarning(UserWarning):
    """An extension was made on a base with another quantisation: results differ a little (docs/gpu.md)."""


def quantised_otherwise(model: MultimodalLM, card: Card) -> str:
    """That an extension was made with another quantisation of the base, in words; "" if it was not."""
    made, here = (type_parts(name)[1] or "full precision" for name in (card.base_dtype, model.base_dtype))
    if made == here or not card.base_dtype:
        return ""
    return (
        f"extension '{card.name}' was made on a base in {made}, and this one is in {here}: results differ a little "
        "(docs/gpu.md)."
    )


def check_base(
    model: MultimodalLM, card: Card, folder: Path, allow_dtype: bool, lm_only: bool = False
) -> None:
    """Raises InputError if the extension was made on another base, or with another encoder, projector or dtype.

    Warns if it was made with another quantisation of the base. Modalities that the model has besides those of the
    training do not matter. `lm_only`: nor do those of the training.
    """
    (lm, needed), (own, has) = base_parts(card.base), base_parts(model.base_fingerprint())
    differing = next((name for name, part in needed.items() if has.get(name) != part and not lm_only), None)
    same_weights = card.base_dtype not in ("", model.base_dtype) and card.base_rounded == model.base_rounded()
    if lm == own and differing is None:
        return
    if lm == own and differing not in has:
        what = f"was made with a model that has modality '{differing}', and this one does not have it."
        hint = (
            f"Add it first: moextend.add_modality(model, '{differing}', ...). A stage of a run is exported with its "
            "encoders: moextend export RUN:STAGE --as moextend."
        )
    elif lm == own and differing and has[differing][0] == needed[differing][0]:
        what = f"was made with another projector of '{differing}'."
        hint = "Load the one of its alignment first: load_projector, or --vision (--audio) with --projector FOLDER."
    elif differing is None and same_weights:
        if note := quantised_otherwise(model, card):
            warnings.warn(note, QuantisationWarning, stacklevel=5)
        if allow_dtype or type_parts(card.base_dtype)[0] == type_parts(model.base_dtype)[0]:
            return
        what = f"was made on a {card.base_dtype} base, and this one is {model.base_dtype}."
        hint = (
            f"Load the base in {type_parts(card.base_dtype)[0]} (dtype, --dtype), or accept results that differ a "
            "little: load_extension(..., allow_dtype=True)."
        )
    else:
        made = f"{card.base}, {card.base_dtype}" if card.base_dtype else card.base
        what = (
            f"belongs to another base ({made}; this one is {model.base_fingerprint()}, {model.base_dtype})."
        )
        hint = "Load the base that it was trained on, with the same encoder and dtype."
    raise InputError(f"extension '{card.name}' {what}", where=str(folder), hint=hint)


def coactive_of(model: MultimodalLM, card: Card, folder: Path) -> list[str]:
    """Names that the co-active extensions of a card have in `model`, oldest first.

    Raises:
        InputError: one is missing, is another one, or they are loaded in another order.
    """
    scope, names = attach.scope_of(model.lm), list[str]()
    for earlier in card.beside:
        title, digest = earlier["name"], earlier["digest"]
        titled = [name for name in scope.known if scope.titles.get(name, name) == title]
        same = [name for name in titled if digest_of(model, name) == digest]
        if not same:
            what = "another one of this name is loaded" if titled else "it is not loaded"
            raise InputError(
                f"extension '{card.name}' was made with '{title}' active, and {what}.", where=str(folder),
                hint=f"Load that '{title}' first.",
            )  # fmt: skip
        names += same[:1]
    loaded = [name for name in scope.known if name in names]
    if loaded != names:
        raise InputError(
            f"extension '{card.name}' was made with {', '.join(names)} active, but the order is {', '.join(loaded)}.",
            where=str(folder), hint="Unload them and load them in that order.",
        )  # fmt: skip
    return names


def _needed(folder: Path) -> list[str]:
    """Files of an extension that its inference needs, besides its card and its tensors."""
    return [
        name for name in contents(folder).own if name == STATISTICS or name.startswith(modalities.stem(""))
    ]


def check_files(folder: Path, card: Card) -> None:
    """Raises InputError if a file that the card of an extension names is missing, or another one."""
    for name, digest in card.files.items():
        if not (folder / name).is_file():
            raise InputError(
                f"is missing, and {STEM}.json names it.", where=str(folder / name), hint=tensor_files.AGAIN
            )
        if files.sha256(folder / name) != digest:
            raise InputError(
                f"is damaged, or of another extension: its SHA-256 is not the one that {STEM}.json names.",
                where=str(folder / name),
                hint=tensor_files.AGAIN,
            )


@dataclass(frozen=True)
class Extension:
    """Description of an expert set of a model, without its weights."""

    name: str
    mode: Mode
    """Routing mode."""
    plan: dict[int, list[int]]
    """MoE block, lowest 0 -> the base experts that its new ones were copied from."""
    width: float
    """Inner neurons of a new expert as a share of its parent's, 0..1."""
    coactive: tuple[str, ...]
    """Co-active extensions: those that were active when it was made, oldest first; it needs them."""
    parameters: int
    """Number of new parameters."""
    bytes: int
    """Memory of the new parameters."""
    folder: Path | None
    """Folder that it was saved to or loaded from; None: only in memory."""


def save_extension(
    model: MultimodalLM,
    name: str,
    *,
    folder: str | Path,
    made: Made | None = None,
) -> None:
    """Saves expert set `name`, with the names and digests of its co-active extensions.

    The weights are saved as float32, also if the model was converted to a shorter number type.

    Args:
        folder: gets extension.safetensors and extension.json, and two files for each modality that was added to the
            model after loading (modality-audio.safetensors, modality-audio.json).
        made: how it was made, for its card.

    Raises:
        UnknownName: the model has no such extension, or one of its co-active extensions is gone.
    """
    folder, scope = Path(folder), _scope(model, name)
    modalities.hold(model, name)
    modalities.save(model, folder)
    tensors = _in_float32(model, name)
    title = scope.titles.get
    card = Card(
        name=title(name, name), mode=scope.mode,
        plan={str(block): parents for block, parents in plan_of(model, name).items()},
        calibrate=any(".calibration." in key for key in tensors),
        beside=[{"name": title(other, other), "digest": digest_of(model, other)} for other in scope.coactive[name]],
        base=model.base_fingerprint(), width=scope.widths[name], base_dtype=model.base_dtype,
        base_rounded=model.base_rounded(), made=made,
        files={} if made is None else {each: files.sha256(folder / each) for each in _needed(folder)},
    )  # fmt: skip
    tensor_files.save_tensors(folder, tensors, card.model_dump(exclude_none=True))
    scope.folders[name] = folder


def load_extension(
    model: MultimodalLM,
    folder: str | Path,
    *,
    name: str | None = None,
    allow_dtype: bool = False,
    lm_only: bool = False,
) -> Extension:
    """Attaches the expert set in `folder` to `model`, frozen.

    Modalities of its training that the model lacks are added from the folder.

    The extension is then active, with its co-active extensions, as when it was made; `activate` changes that. The
    model no longer infers the task.

    Args:
        folder: its folder, or a repository of the hub: "owner/name" or "owner/name@revision".
        name: its name in this model, such as that of a version; None: its own. Its weights, their fingerprint and what
            later extensions know of it stay the same.
        allow_dtype: accepts its base in another number type (`load(dtype=...)`); the results are then close to those
            of the training, and not equal.
        lm_only: for text alone: encoders and projectors of its training are neither needed nor added.

    Raises:
        InputError: the folder has no complete extension of this format, or a damaged one; the hub has no such
            repository; the extension belongs to another base; a co-active extension is not loaded, or they are loaded
            in another order; or the model already has an extension of this name.
    """
    folder = local_folder(folder)
    card = read_extension(folder)
    name = card.name if name is None else name
    check_files(folder, card)
    added = [] if lm_only else modalities.load_missing(model, folder)
    try:
        _attach(model, card, name, folder, allow_dtype, lm_only)
    except BaseException:
        modalities.forget(model, added)
        raise
    if not lm_only:
        modalities.hold(model, name, list(base_parts(card.base)[1]))
    model.learn_only([])
    model.choose = None
    scope = attach.scope_of(model.lm)
    scope.folders[name] = folder
    if name != card.name:
        scope.titles[name] = card.name
    return handle(model, name)


def _attach(
    model: MultimodalLM, card: Card, name: str, folder: Path, allow_dtype: bool, lm_only: bool
) -> None:
    """Attaches the expert set in `folder` after all checks; an exception leaves the model as it was."""
    check_base(model, card, folder, allow_dtype, lm_only)
    coactive = coactive_of(model, card, folder)
    tensor_files.check_sum(folder, tensor_files.read_card(folder))
    activate_again, known = attach.activation(model.lm), name in attach.scope_of(model.lm).known
    try:
        attach.activate(model.lm, coactive)
        plan = {int(block): sources for block, sources in card.plan.items()}
        attach.attach(
            model.lm, name, plan, mode=card.mode, calibrate=card.calibrate, width=card.width, empty=True
        )
        tensor_files.read_into(folder / f"{STEM}.safetensors", _parameters(model, name, card.name))
    except BaseException:
        if not known and name in attach.scope_of(model.lm).known:
            attach.detach(model.lm, name)
        activate_again()
        raise


def extensions(model: MultimodalLM) -> list[Extension]:
    """Extensions of `model`, oldest first, active or not."""
    return [handle(model, name) for name in attach.scope_of(model.lm).known]


def handle(model: MultimodalLM, name: str) -> Extension:
    """Description of extension `name` of `model`; UnknownName if it has none of that name."""
    scope = _scope(model, name)
    new = attach.new_parameters(model.lm, name).values()
    return Extension(
        name=name, mode=scope.mode, plan=plan_of(model, name), width=scope.widths[name],
        coactive=scope.coactive[name], parameters=sum(p.numel() for p in new),
        bytes=sum(p.numel() * p.element_size() for p in new), folder=scope.folders.get(name),
    )  # fmt: skip


def _scope(model: MultimodalLM, name: str) -> Scope:
    """State of the extensions of `model`; UnknownName if `name` is none of them."""
    scope = attach.scope_of(model.lm)
    if name not in scope.known:
        raise UnknownName("extension", name, scope.known)
    return scope


def plan_of(model: MultimodalLM, name: str) -> dict[int, list[int]]:
    """MoE block -> the base experts that the new ones of extension `name` were copied from."""
    return {
        site.layer: list(cast(Any, site.router).ext_parts[name].parents)
        for site in find_sites(model.lm)
        if name in getattr(site.router, "ext_parts", {})
    }


def digest_of(model: MultimodalLM, name: str) -> str:
    """Digest of the weights of extension `name` as float32; UnknownName if the model has none of that name."""
    _scope(model, name)
    return tensors_digest(_in_float32(model, name))


def active_fingerprint(model: MultimodalLM) -> str:
    """Fingerprint of the base and the active extensions: of all weights that compute now, and of their strengths."""
    scope = attach.scope_of(model.lm)
    active = [named(digest_of(model, name), scope.strengths.get(name, 1.0)) for name in scope.active]
    return "-".join([model.base_fingerprint(), *active])


def _in_float32(model: MultimodalLM, name: str) -> dict[str, Tensor]:
    """Parameters of an extension as float32, whatever the number type of the model, by their names in its files."""
    title = attach.scope_of(model.lm).titles.get(name, name)
    return {key: p.detach().float() for key, p in _parameters(model, name, title).items()}


def _parameters(model: MultimodalLM, name: str, title: str) -> dict[str, nn.Parameter]:
    """Parameters of extension `name`, by the names that they have in the files of an extension `title`."""
    found = attach.new_parameters(model.lm, name)
    return {attach.renamed(key, name, title): parameter for key, parameter in found.items()}
