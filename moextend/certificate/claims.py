"""The claims of a certificate that need no comparison of inputs: files, base, and base tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from moextend.certificate.record import Claim, Compared, Fact, Status
from moextend.errors import InputError, counted
from moextend.extension import latents, modalities, router_memory, task_inference, tensor_files
from moextend.extension.card import Card
from moextend.extension.folder import contents
from moextend.model.fingerprint import base_parts, cached_digest
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.util import files

SHOWN = 5
"""Names in a piece of evidence at most."""
STATEMENTS = {
    "files": "The extension's files are complete: formats are known, SHA-256 sums are those that the cards state, all "
    "numbers are finite, and no file can hold code.",
    "base": "The base is the one that the extension was trained on.",
    "attach": "The extension attaches to the base.",
    "base tensors": "No base tensor changes by a bit: before the extension is attached, while it is attached, after "
    "inputs were computed with it, and after it is unloaded.",
    "text, task given": "With the extension attached and not activated, as for inputs of other tasks where the task is "
    "given, text is answered by the base: no new expert is reached, and logits, log-likelihoods and answers are equal "
    "bit for bit.",
    "text, task inferred": "With the task inferred from each input, text that has nothing to do with the task is "
    "answered by the base: no new expert is reached, and logits, log-likelihoods and answers are equal bit for bit.",
    "near inputs, task inferred": "The same holds for inputs near the task that are not its own.",
    "text, always active": "With the extension active for every input, text is answered as by the base.",
    "comparison": "The comparison can see the extension: with it active, the same inputs give other logits.",
    "unload": "After unloading, the model is the base again: the same classes of modules, and on all texts the same "
    "logits, log-likelihoods and answers bit for bit.",
    "forgetting": "The extension is a stage of the named run, whose records give its row of forgetting.",
}
"""Name of a claim -> its statement."""


def claim(
    name: str,
    status: Status,
    *,
    reason: str = "",
    items: int = 0,
    evidence: Mapping[str, Fact] | None = None,
    sets: Sequence[Compared] = (),
) -> Claim:
    """The claim of this name."""
    return Claim(
        name=name, statement=STATEMENTS[name], status=status, reason=reason, items=items,
        evidence=dict(evidence or {}), sets=list(sets),
    )  # fmt: skip


def not_checked(name: str, reason: str) -> Claim:
    """A claim that was not checked."""
    return claim(name, "not checked", reason=reason)


def hashes_of(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of the files of an extension."""
    return {name: files.sha256(folder / name) for name in contents(folder).own}


def files_claim(folder: Path, card: Card) -> Claim:
    """Whether the files of an extension are complete and finite, and none can hold code."""
    found, tensors = contents(folder), 0
    evidence: dict[str, Fact] = {"format": tensor_files.FORMAT}
    if found.others:
        evidence["other files"] = list(found.others[:SHOWN])
    if code := found.code(folder):
        evidence["files that can hold code"] = code[:SHOWN]
        reason = f"{code[0]} can hold code, and is not a file of an extension."
        return claim("files", "failed", reason=reason, items=len(found.own), evidence=evidence)
    try:
        tensors += len(tensor_files.load_tensors(folder)[0])
        for name in modalities.carried(folder):
            tensors += len(tensor_files.load_tensors(folder, modalities.stem(name))[0])
        if task_inference.find(folder) is not None:
            tensors += _check_statistics(folder)
        if (folder / router_memory.FILE).is_file():
            tensors += len(router_memory.read(folder).tensors())
        if (folder / latents.FILE).is_file():
            tensors += len(latents.read(folder).states)
    except InputError as error:
        return claim("files", "failed", reason=str(error), items=len(found.own), evidence=evidence)
    evidence["files"], evidence["tensors"] = list(found.own), tensors
    if card.made is not None:
        evidence["made"], evidence["made with moextend"] = card.made.date, card.made.version
    return claim("files", "proved", items=len(found.own), evidence=evidence)


def _check_statistics(folder: Path) -> int:
    """Number of tensors in the task statistics; InputError for numbers that are not finite."""
    found = task_inference.read(folder)
    tensors = (found.mean, found.scatter, found.sample)
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise InputError(
            "holds numbers that are not finite.",
            where=str(task_inference.find(folder)),
            hint="Copy the extension again, or train it again.",
        )
    return len(tensors)


def base_claim(model: MultimodalLM, card: Card) -> Claim:
    """Whether the weights of the base in memory are those whose fingerprint is in the card."""
    wanted, needed = base_parts(card.base)
    found = cached_digest(attach.base_tensors(model.lm))
    has = base_parts(model.base_fingerprint())[1]
    other = [name for name, own in needed.items() if name in has and has[name] != own]
    evidence: dict[str, Fact] = {"recorded": card.base, "found": found, "type": model.base_dtype}
    reason = ""
    if found != wanted:
        reason = f"its fingerprint is {found}, and the extension was trained on {wanted}."
        if card.base_dtype and card.base_dtype != model.base_dtype:
            reason += f" It has type {model.base_dtype}, and the training had {card.base_dtype}."
    elif other:
        reason = f"the encoder or the projector of modality '{other[0]}' is another one."
    return claim("base", "failed" if reason else "proved", reason=reason, items=1, evidence=evidence)


def tensors_of(model: MultimodalLM) -> dict[str, Tensor]:
    """Name -> parameter or buffer of the base: the language model, and encoders and projectors."""
    every = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor for name, tensor in every.items() if ".ext_" not in name}


def tensors_claim(moments: Mapping[str, Mapping[str, str]], size: int) -> Claim:
    """Whether hashes of base tensors stay the same.

    Args:
        moments: when -> name -> hash; the first one is compared with the others. size: of the tensors, in bytes.
    """
    (_, first), *others = moments.items()
    evidence: dict[str, Fact] = {"bytes": size, "digest": files.digest(dict(first))}
    for when, found in others:
        changed = [name for name, value in first.items() if found.get(name) != value]
        evidence[f"changed {when}"] = len(changed)
        if changed:
            named = ", ".join(changed[:SHOWN])
            reason = f"{counted(len(changed), 'base tensor')} changed {when}: {named}."
            return claim("base tensors", "failed", reason=reason, items=len(first), evidence=evidence)
    return claim("base tensors", "proved", items=len(first), evidence=evidence)


def unchanged_claim(name: str, sets: Sequence[Compared]) -> Claim:
    """Whether inputs are answered as by the base."""
    items = sum(one.items for one in sets)
    if not items:
        return not_checked(name, "there are no such inputs.")
    worst = next((one for one in sets if not one.unchanged), None)
    if worst is None:
        return claim(name, "proved", items=items, sets=sets)
    return claim(name, "failed", reason=_why(worst), items=items, sets=sets)


def _why(one: Compared) -> str:
    return (
        f"of {counted(one.items, 'input')} ({one.name}) {one.inputs_reached} reached a new expert; logits changed for "
        f"{one.logits_changed}, log-likelihoods for {one.likelihoods_changed} and answers for {one.answers_changed}."
    )
