"""Certifies an extension on a base: attaches it, compares, and unloads it again."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from moextend.certificate import claims as checks
from moextend.certificate.inputs import Set, far_sets, near_sets
from moextend.certificate.record import BaseFacts, Certificate, Claim, claims_in_use
from moextend.certificate.watch import Seen, compared, watch
from moextend.errors import InputError
from moextend.extension import store, task_inference
from moextend.extension.activate import activate, unload
from moextend.extension.card import Card, read_extension
from moextend.model.fingerprint import tensor_hashes
from moextend.moe.recipe import Scope
from moextend.util.release import __version__

if TYPE_CHECKING:
    from moextend.data.conversations import Conversation
    from moextend.model.multimodal import MultimodalLM

ITEMS = 64
"""Number of text inputs, and of inputs of every other set at most."""
NO_DATA = "only crafted texts were compared: no data of the task were given (--data)."


@dataclass(frozen=True)
class Data:
    """Data that inputs are made of; all may be missing."""

    own: Sequence[Conversation] = ()
    """Data of the task, best those that it was not trained on."""
    near: Sequence[Conversation] = ()
    """Data that are near and not its own, such as those of other extensions."""
    text: Sequence[Conversation] = ()
    """Further texts, such as those that the base answers now."""


@dataclass
class _Work:
    """A certification under way."""

    model: MultimodalLM
    card: Card
    folder: Path
    scope: Scope
    others: list[str]
    far: list[Set]
    near: list[Set] = field(default_factory=list)
    own: list[Set] = field(default_factory=list)

    def seen(self, sets: Sequence[Set], *, count: bool) -> dict[str, list[Seen]]:
        """What the model does with the sets as it is now; `count`: counts the use of the new experts."""
        return {one.name: watch(self.model, one.items, self.card.name if count else "") for one in sets}

    def rest(self) -> None:
        """The state for inputs of no task: the base, or task inference among the other extensions."""
        if self.others and self.scope == "auto":
            activate(self.model, "auto")
        else:
            activate(self.model, self.others if self.scope == "all" else "none")


def certify(
    model: MultimodalLM,
    folder: str | Path,
    *,
    base: str = "",
    scope: Scope | None = None,
    items: int = ITEMS,
    data: Data | None = None,
    others: Sequence[str | Path] = (),
    forgetting: Claim | None = None,
    command: str = "",
) -> Certificate:
    """Certificate of the extension in `folder` on `model`, which is its base again afterwards.

    A claim that does not hold is recorded as failed, and raises nothing.

    Args:
        model: the base, with its encoders and projectors, and without extensions.
        base: name of the base, for the record.
        scope: use that is certified; None: that of the training.
        items: number of texts (half sentences, half random tokens), and of inputs of every other set at most.
        data: data that further inputs are made of.
        others: folders of extensions that are attached before it, oldest first, such as its co-active ones.
        forgetting: claim about its run; None: not checked.
        command: for the record.

    Raises:
        InputError: the folder holds no extension, or one of `others` cannot be loaded.
    """
    folder, data = Path(folder), data or Data()
    if items < 2:
        raise InputError(f"items is {items}.", where="certify", hint="Give at least 2.")
    card = read_extension(folder)
    found = [checks.files_claim(folder, card), checks.base_claim(model, card)]
    facts, names = _base_facts(model, base), list[str]()
    work = _Work(model, card, folder, scope or trained_scope(card, folder), names, [])
    broken = next((one for one in found if one.status == "failed"), None)
    try:
        for other in others:
            names.append(store.load_extension(model, other).name)
        if broken is None:
            work.far = far_sets(model, items, data.text)
            if work.scope == "auto" or data.own:
                work.near, work.own = near_sets(model, folder, items, data.own, data.near)
            found += _attached(work, bool(data.own))
        else:
            found += [
                checks.not_checked(name, f"'{broken.name}' failed.") for name in claims_in_use(work.scope)
            ]
    finally:
        for name in reversed(names):
            unload(model, name)
    found.append(forgetting or checks.not_checked("forgetting", "no run is named (--run)."))
    return Certificate(
        extension=card.name, folder=str(folder), files=checks.hashes_of(folder), mode=card.mode, scope=work.scope,
        reads=_reads(folder) if broken is None else [], others=names, base=facts,
        inputs=[one.described() for one in (*work.far, *work.near, *work.own)], claims=found, command=command,
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), versions=_versions(model),
    ).signed()  # fmt: skip


def trained_scope(card: Card, folder: Path) -> Scope:
    """Scope that an extension was made with, as far as its folder says."""
    if card.made is not None and card.made.recipe.get("scope") in ("own", "auto", "all"):
        named: Scope = card.made.recipe["scope"]
        return named
    if task_inference.find(folder) is not None:
        return "auto"
    return "all" if card.beside else "own"


def _attached(work: _Work, has_data: bool) -> list[Claim]:
    """The claims that need the extension attached; it is unloaded afterwards, whatever happens."""
    model, name = work.model, work.card.name
    work.rest()
    tensors = checks.tensors_of(model)
    size = sum(tensor.nbytes for tensor in tensors.values())
    moments = {"before": tensor_hashes(tensors)}
    classes = _classes(model)
    before = work.seen([*work.far, *work.near, *work.own], count=False)
    try:
        store.load_extension(model, work.folder)
    except InputError as error:
        left = [checks.not_checked(each, "it does not attach.") for each in claims_in_use(work.scope)[1:]]
        return [checks.claim("attach", "failed", reason=str(error)), *left]
    try:
        moments["while attached"] = tensor_hashes(_same(model, tensors))
        found = _in_use(work, before, has_data)
        moments["after use"] = tensor_hashes(_same(model, tensors))
    finally:
        unload(model, name)
    moments["after unloading"] = tensor_hashes(_same(model, tensors))
    parameters = sum(p.numel() for p in checks.tensors_of(model).values())
    attached = checks.claim("attach", "proved", items=1, evidence={"base parameters": parameters})
    return [attached, checks.tensors_claim(moments, size), *found, _unloaded(work, before, classes)]


def _same(model: MultimodalLM, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of the model now, of the names that the base had."""
    return {name: tensor for name, tensor in checks.tensors_of(model).items() if name in tensors}


def _in_use(work: _Work, before: Mapping[str, list[Seen]], has_data: bool) -> list[Claim]:
    """The claims about inputs, with the extension attached."""

    def changes(sets: Sequence[Set]) -> list[Any]:
        now = work.seen(sets, count=True)
        return [compared(one.name, before[one.name], now[one.name]) for one in sets]

    model, found = work.model, list[Claim]()
    if work.scope == "all":
        activate(model, "all")
        found.append(_always(changes(work.far)))
    else:
        activate(model, "none")
        if not (work.others and work.scope == "auto"):  # else the inputs were compared with task inference
            found.append(checks.unchanged_claim("text, task given", changes([*work.far, *work.near])))
        else:
            found.append(checks.not_checked("text, task given", "other extensions choose among inputs, too."))
    if work.scope == "auto":
        found += _inferred(work, changes, has_data)
    activate(model, [*(each["name"] for each in work.card.beside), work.card.name])
    found.append(_control(changes([*work.far, *work.own])))
    return found


def _inferred(work: _Work, changes: Any, has_data: bool) -> list[Claim]:
    """The claims about inputs whose task is inferred."""
    names = ("text, task inferred", "near inputs, task inferred")
    try:
        activate(work.model, "auto")
    except InputError as error:
        return [checks.claim(name, "failed", reason=str(error)) for name in names]
    far, near = checks.unchanged_claim(names[0], changes(work.far)), changes(work.near)
    close = checks.unchanged_claim(names[1], near)
    if close.status == "proved" and not has_data:
        close = checks.claim(names[1], "not checked", reason=NO_DATA, items=close.items, sets=near)
    own = {
        f"{one.name}: inputs that reach it": f"{one.inputs_reached} of {one.items}"
        for one in changes(work.own)
    }
    return [far, close.model_copy(update={"evidence": own})]


def _always(sets: Sequence[Any]) -> Claim:
    """The claim about an extension that is active for every input: a change is measured, and equality proves little."""
    found = checks.unchanged_claim("text, always active", sets)
    same = not any(one.logits_changed for one in sets)
    if same:
        reason = "these texts did not change, and nothing keeps others from changing."
        return checks.claim(found.name, "not checked", reason=reason, items=found.items, sets=sets)
    return found


def _control(sets: Sequence[Any]) -> Claim:
    """Whether the comparison sees an active extension."""
    changed = sum(one.logits_changed for one in sets)
    items = sum(one.items for one in sets)
    if changed:
        return checks.claim("comparison", "proved", items=items, sets=sets)
    reason = "these inputs do not change when the extension is active, so equal results say little."
    return checks.claim("comparison", "not checked", reason=reason, items=items, sets=sets)


def _unloaded(work: _Work, before: Mapping[str, list[Seen]], classes: list[str]) -> Claim:
    """Whether the model is the same as before, without the extension."""
    work.rest()
    now = work.seen(work.far, count=False)
    found = checks.unchanged_claim(
        "unload", [compared(one.name, before[one.name], now[one.name]) for one in work.far]
    )
    other = sum(a != b for a, b in zip(classes, _classes(work.model), strict=False))
    other += abs(len(classes) - len(_classes(work.model)))
    if other and found.status == "proved":
        reason = f"{other} modules have another class."
        return checks.claim("unload", "failed", reason=reason, items=found.items, sets=found.sets)
    return found.model_copy(update={"evidence": {"modules": len(classes), "modules of another class": other}})


def _classes(model: MultimodalLM) -> list[str]:
    return [f"{name}: {type(module).__qualname__}" for name, module in model.named_modules()]


def _base_facts(model: MultimodalLM, name: str) -> BaseFacts:
    tensors = checks.tensors_of(model)
    return BaseFacts(
        name=name, fingerprint=model.base_fingerprint(), dtype=model.base_dtype, tensors=len(tensors),
        bytes=sum(tensor.nbytes for tensor in tensors.values()),
    )  # fmt: skip


def _reads(folder: Path) -> list[str]:
    """Modalities of the inputs that task inference accepts; none where it has no statistics."""
    return list(task_inference.read(folder).kind) if task_inference.find(folder) is not None else []


def _versions(model: MultimodalLM) -> dict[str, str]:
    import transformers

    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else str(model.device)
    return {
        "moextend": __version__, "python": platform.python_version(), "torch": str(torch.__version__),
        "transformers": transformers.__version__, "device": device, "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }  # fmt: skip
