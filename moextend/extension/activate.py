"""Activates extensions of a model, and unloads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from moextend.errors import InputError, UnknownName
from moextend.extension import modalities, store, task_inference
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach


def activate(
    model: MultimodalLM | nn.Module,
    names: Sequence[str] | Mapping[str, float] | str,
    *,
    strengths: Mapping[str, float] | None = None,
) -> None:
    """Sets which extensions compute, and how strongly; their order is that of their making, not that of `names`.

    A strength is a number from 0 to 1 without training. 0 is the base bit for bit, as without the extension; 1 is the
    extension as it was made, bit for bit. In between, the output of the experts of every extended layer lies on the
    straight line between the two; docs/method.md says what that is for several extensions. Experts, router rows and
    calibrations have a strength. The projector and the encoder of a modality do not: an input with media needs them.

    Args:
        model: "auto" needs the MultimodalLM, not the language model alone (``model.lm``).
        names: exactly these are active for every input; "all" of them; "none": the base, bit for bit; or "auto": each
            input of `generate` or `choice_likelihoods` reaches the one extension with the nearest task statistics
            (see moextend/extension/task_inference.py), or none if it is too far from all of them. A mapping gives
            each name its strength: ``activate(model, {"skill": 0.6})``.
        strengths: name -> strength with "all" and "auto"; those not named have 1.

    Raises:
        UnknownName: the model has no extension of a name.
        InputError: a strength is no number from 0 to 1; "auto" where an extension has no task statistics; a co-active
            extension of one of them is not named, or weaker than it. The active extensions stay the same.
    """
    if not isinstance(names, Sequence | Mapping):
        raise InputError(
            f"{names!r} names no extensions.",
            where="activate",
            hint="Give a list of names, a mapping of names to strengths, 'all', 'none' or 'auto'.",
        )
    multimodal = model if isinstance(model, MultimodalLM) else None
    lm = model if multimodal is None else multimodal.lm
    known = attach.scope_of(lm).known
    every = _every(known, names, strengths)
    if names == "auto":
        if multimodal is None:
            raise InputError(
                "a bare language model cannot choose an extension.",
                hint="Pass the MultimodalLM that moextend.load returns.",
            )
        for name in known:
            attach.check_together(lm, [name])  # each input reaches one of them alone
        inference = task_inference.TaskInference(
            multimodal, {name: _statistics(multimodal, name) for name in known}
        )
        attach.activate(lm, every, chosen=True)
        multimodal.choose = inference
        return
    if isinstance(names, str):
        names = {"all": every, "none": {}}.get(names, {names: 1.0})
    attach.activate(lm, names)
    if multimodal is not None:
        multimodal.choose = None


def _every(known: Sequence[str], names: object, given: Mapping[str, float] | None) -> dict[str, float]:
    """Strength of every extension with "all" and "auto"."""
    if given and not (isinstance(names, str) and names in ("all", "auto")):
        raise InputError(
            "strengths can be given only with 'all' and 'auto'.",
            where="activate",
            hint="Give the strengths with the names: activate(model, {NAME: STRENGTH}).",
        )
    for name in given or ():
        if name not in known:
            raise UnknownName("extension", name, known)
    return {name: (given or {}).get(name, 1.0) for name in known}


def unload(model: MultimodalLM, name: str) -> None:
    """Removes extension `name` from `model`; after the last one the model is its base again, with the same objects.

    A modality that was added after loading, and that no other extension needs, is removed with it.

    Raises:
        UnknownName: the model has no extension of that name.
        InputError: it is a co-active extension of a later one, which would give other results without it.
    """
    store.handle(model, name)
    scope = attach.scope_of(model.lm)
    later = [other for other in reversed(scope.known) if name in scope.coactive[other]]
    if later:
        raise InputError(
            f"extension '{later[-1]}' was made with '{name}' active and needs it.",
            where=f"unload '{name}'",
            hint=f"Unload first, in this order: {', '.join(later)}.",
        )
    attach.detach(model.lm, name)
    modalities.release(model, name)
    if isinstance(model.choose, task_inference.TaskInference):
        model.choose.statistics.pop(name, None)


def _statistics(model: MultimodalLM, name: str) -> task_inference.TaskStatistics:
    """Task statistics of extension `name`, from its folder."""
    folder = store.handle(model, name).folder
    if folder is None or task_inference.find(folder) is None:
        raise InputError(
            f"extension '{name}' has no task statistics ({task_inference.FILE}).",
            where="activate 'auto'" if folder is None else str(folder),
            hint="Make it with scope='auto', or activate extensions by name.",
        )
    return task_inference.read(folder)
