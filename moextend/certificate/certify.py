"""Certifies an extension on a base: attaches it, compares, and unloads it again."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from moextend.certificate import served
from moextend.certificate.inputs import Seen, Set, compared, far_sets, near_sets, watched
from moextend.certificate.record import CLAIMS, Certificate, Checked, Claim, Compared, Fact, claim, claims_of
from moextend.errors import InputError, counted
from moextend.extension import modalities, store, task_inference, tensor_files
from moextend.extension.activate import activate, unload
from moextend.extension.card import Card, read_extension
from moextend.extension.folder import SINGLE, contents
from moextend.model.base_name import base_parts
from moextend.model.fingerprint import tensor_hashes
from moextend.moe.recipe import Scope
from moextend.util import files
from moextend.util.environment import __version__

if TYPE_CHECKING:
    from moextend.data.conversations import Conversation
    from moextend.model.multimodal import MultimodalLM

ITEMS = 64
"""Number of text inputs, and of inputs of every other set at most."""
SHOWN = 5
"""Names in a piece of evidence at most."""


@dataclass(frozen=True)
class Data:
    """Data that inputs are made of; all may be missing."""

    own: Sequence[Conversation] = ()
    """Data of the task, best those that it was not trained on."""
    near: Sequence[Conversation] = ()
    """Data that are near and not its own, such as those of other extensions."""


@dataclass(frozen=True)
class _Work:
    """A certification under way."""

    model: MultimodalLM
    card: Card
    scope: Scope
    others: Sequence[str]
    inputs: Mapping[str, list[Set]]
    """Kind -> its sets."""

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
    server: str | None = None,
    command: str = "",
) -> Certificate:
    """Certificate of the extension in `folder` on `model`, which is its base again afterwards.

    A claim that does not hold is recorded as failed, and raises nothing. `write_to` writes the certificate.

    Args:
        model: the base, with its encoders and projectors, and without extensions.
        base: name of the base, for the record.
        scope: use that is certified; None: that of the training.
        items: number of texts (half sentences, half random tokens), and of inputs of every other set at most.
        data: data that further inputs are made of.
        others: folders of extensions that are attached before it, oldest first, such as its co-active ones.
        forgetting: claim about its run; None: not checked.
        server: address of a server of the OpenAI protocol with the models `base` and that of the extension, whose
            answers to text are compared; None: there is no such claim.
        command: for the record.

    Raises:
        InputError: the folder holds no extension, or one of `others` cannot be loaded.
    """
    folder, data = Path(folder), data or Data()
    if items < 2:
        raise InputError(f"items is {items}.", where="certify", hint="Give at least 2.")
    card = read_extension(folder)
    scope = scope or trained_scope(card, folder)
    inputs, names, claims = dict[str, list[Set]](), list[str](), [_files(folder, card), _base(model, card)]
    broken = next((f"'{one.name}' failed." for one in claims if one.status == "failed"), "")
    try:
        for other in others:
            names.append(store.load_extension(model, other).name)
        if not broken:
            inputs = {"far": far_sets(model, items), **near_sets(model, items, data.own, data.near)}
            claims += _attached(_Work(model, card, scope, names, inputs), folder, server)
    finally:
        for name in reversed(names):
            unload(model, name)
    claims.append(forgetting or claim("forgetting", "not checked", reason="no run is named (RUN:STAGE)."))
    if server is None:
        claims.append(claim("server", "not checked", reason="no server is named (--server)."))
    found, left = {one.name: one for one in claims}, broken or "it does not attach."
    return Certificate(
        extension=card.name, folder=str(folder), mode=card.mode, scope=scope, others=names,
        base={"name": base, "fingerprint": model.base_fingerprint(), "dtype": model.base_dtype},
        files={name: files.sha256(folder / name) for name in contents(folder).own},
        inputs=[one.described() for sets in inputs.values() for one in sets],
        claims=[found.get(name) or claim(name, "not checked", reason=left) for name in claims_of(scope)],
        command=command, date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), versions=_versions(model),
    )  # fmt: skip


def trained_scope(card: Card, folder: Path) -> Scope:
    """Scope that an extension was made with, as far as its folder says."""
    if card.made is not None and card.made.recipe.get("scope") in ("own", "auto", "all"):
        named: Scope = card.made.recipe["scope"]
        return named
    if task_inference.find(folder) is not None:
        return "auto"
    return "all" if card.beside else "own"


def _files(folder: Path, card: Card) -> Claim:
    """Whether the files of an extension are complete and finite, and none can hold code."""
    found, tensors = contents(folder), 0
    evidence: dict[str, Fact] = {}
    if found.others:
        evidence["other files"] = list(found.others[:SHOWN])
    try:
        if found.code:
            raise InputError(f"{found.code[0]} can hold code, and is not a file of an extension.")
        store.check_files(folder, card)
        for stem in (tensor_files.STEM, *map(modalities.stem, modalities.carried(folder))):
            tensors += len(tensor_files.load_tensors(folder, stem)[0])
        for name in SINGLE:
            tensors += len(tensor_files.read_tensors(folder / name)) if (folder / name).is_file() else 0
    except InputError as error:
        return claim("files", "failed", reason=str(error), items=len(found.own), evidence=evidence)
    evidence["files"], evidence["tensors"] = list(found.own), tensors
    return claim("files", "proved", items=len(found.own), evidence=evidence)


def _base(model: MultimodalLM, card: Card) -> Claim:
    """Whether the weights of the base in memory are those whose fingerprint is in the card."""
    wanted, needed = base_parts(card.base)
    found = model.lm_fingerprint()
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


def _attached(work: _Work, folder: Path, server: str | None) -> list[Claim]:
    """The claims that need the extension attached; it is unloaded afterwards, whatever happens."""
    model, tensors = work.model, _tensors_of(work.model)
    work.rest()
    moments = {"before": tensor_hashes(tensors)}
    classes, before = (
        {*_classes(model)},
        watched(model, [one for sets in work.inputs.values() for one in sets]),
    )

    def hashed(when: str) -> None:
        moments[when] = tensor_hashes({k: v for k, v in _tensors_of(model).items() if k in tensors})

    try:
        store.load_extension(model, folder)
    except InputError as error:
        return [claim("attach", "failed", reason=str(error))]
    try:
        hashed("while attached")
        found = [_in_use(work, one, before) for one in CLAIMS if one.active and work.scope in one.scopes]
        if server is not None:
            itself = [*(each["name"] for each in work.card.beside), work.card.name]
            sets = [one for sets in work.inputs.values() for one in sets]
            found.append(served.served(model, server, work.card.name, itself, sets))
        hashed("after use")
    finally:
        unload(model, work.card.name)
    hashed("after unloading")
    work.rest()
    same = _unchanged("unload", compared(before, watched(model, work.inputs["far"])))
    now = {*_classes(model)}
    if same.status == "proved" and now != classes:
        other = max(len(now - classes), len(classes - now))
        reason = f"{counted(other, 'module')} with another class, new or gone."
        same = same.model_copy(update={"status": "failed", "reason": reason})
    return [claim("attach", "proved", items=1), _tensors(moments), *found, same]


def _tensors(moments: Mapping[str, Mapping[str, str]]) -> Claim:
    """Whether the hashes of base tensors (moment -> name -> hash) stay those of the first moment."""
    (_, first), *others = moments.items()
    evidence: dict[str, Fact] = {"digest": files.digest(dict(first))}
    for when, found in others:
        changed = [name for name, value in first.items() if found.get(name) != value]
        evidence[f"changed {when}"] = len(changed)
        if changed:
            named = ", ".join(changed[:SHOWN])
            reason = f"{counted(len(changed), 'base tensor')} changed {when}: {named}."
            return claim("base tensors", "failed", reason=reason, items=len(first), evidence=evidence)
    return claim("base tensors", "proved", items=len(first), evidence=evidence)


def _in_use(work: _Work, checked: Checked, before: Mapping[str, list[Seen]]) -> Claim:
    """A claim about inputs, with the extension attached."""
    model, name = work.model, work.card.name
    if checked.active == "none" and work.others and work.scope == "auto":  # compared with task inference
        return claim(checked.name, "not checked", reason="other extensions choose among inputs, too.")

    def changes(*kinds: str) -> list[Compared]:
        sets = [one for kind in kinds for one in work.inputs[kind]]
        return compared(before, watched(model, sets, name))

    itself = [*(each["name"] for each in work.card.beside), name]
    try:
        activate(model, itself if checked.active == "itself" else checked.active)
    except InputError as error:
        return claim(checked.name, "failed", reason=str(error))
    sets = changes(*checked.inputs)
    if checked.active == "itself":  # here a change is what is claimed
        found = claim(checked.name, "proved", items=sum(one.items for one in sets), sets=sets)
    else:
        found = _unchanged(checked.name, sets)
    if checked.same and not any(one.logits_changed for one in sets):
        return found.model_copy(update={"status": "not checked", "reason": checked.same})
    if checked.inputs == ("near",):
        evidence = {
            f"{one.name}: inputs that reach it": f"{one.inputs_reached} of {one.items}" for one in changes("own")
        }  # fmt: skip
        return found.model_copy(update={"evidence": evidence})
    return found


def _unchanged(name: str, sets: Sequence[Compared]) -> Claim:
    """Whether inputs are answered as by the base."""
    items = sum(one.items for one in sets)
    if not items:
        return claim(
            name, "not checked", reason="there are no such inputs: data of the task give some (--data)."
        )
    worst = next((one for one in sets if not one.unchanged), None)
    if worst is None:
        return claim(name, "proved", items=items, sets=sets)
    reason = (
        f"of {counted(worst.items, 'input')} ({worst.name}) {worst.inputs_reached} reached a new expert; logits "
        f"changed for {worst.logits_changed} and answers for {worst.answers_changed}."
    )
    return claim(name, "failed", reason=reason, items=items, sets=sets)


def _tensors_of(model: MultimodalLM) -> dict[str, Tensor]:
    """Name -> parameter or buffer of the base: the language model, and encoders and projectors."""
    every = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor for name, tensor in every.items() if ".ext_" not in name}


def _classes(model: MultimodalLM) -> list[str]:
    return [f"{name}: {type(module).__qualname__}" for name, module in model.named_modules()]


def _versions(model: MultimodalLM) -> dict[str, str]:
    import transformers

    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else str(model.device)
    return {
        "moextend": __version__, "python": platform.python_version(), "torch": str(torch.__version__),
        "transformers": transformers.__version__, "device": device, "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }  # fmt: skip
