"""Adds experts and router rows to a model in place, and removes them again.

No base tensor is copied or changed. Routers and experts get a subclass of their own class, and a group of new experts
is an instance of the base's experts class with fewer experts. Detaching the last extension restores the classes. A
call that fails or is interrupted leaves the model unchanged.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from moextend.errors import InputError, UnknownName
from moextend.moe import guards, reach, strengths
from moextend.moe.copies import base_class, new_experts, new_rows, subclass
from moextend.moe.dense_blocks import DenseBlock, DenseExperts, DenseRouter
from moextend.moe.recipe import Mode, check_name
from moextend.moe.router_parts import Calibration, Parts, RouterPart
from moextend.moe.routing import ExtendedExperts, ExtendedRouter, Scope
from moextend.moe.sites import Site, find_sites, first_new_id
from moextend.moe.supported import check_block, check_plan, check_setup

Plan = Mapping[int, Sequence[int]]
"""MoE block -> the base expert that each new expert is copied from."""


def scope_of(model: nn.Module) -> Scope:
    """State that the blocks of `model` share; a new one for a model without extensions."""
    for site in find_sites(model):
        if isinstance(site.router, ExtendedRouter):
            return site.router.ext_scope
    return Scope()


def attach(
    model: nn.Module,
    name: str,
    plan: Plan,
    *,
    mode: Mode = "exact",
    calibrate: bool = True,
    width: float = 1.0,
    seed: int = 0,
    empty: bool = False,
) -> None:
    """Adds extension `name`: in each block of `plan` one new expert and router row for each source expert.

    Everything is frozen except the new parts, which are float32; copies of FP8 experts are dequantised. The extension
    becomes active, in addition to the active ones: these are its co-active extensions, see `activate`. With `empty`
    the memory of the new experts is allocated and nothing is copied. The global random state does not change.

    Args:
        width: exact routing: share of the parent's inner neurons that a new expert gets (`copies.kept`).
        seed: of the calibrations.

    Raises:
        InputError: the name is taken or invalid; the plan is empty or does not fit the model; the model already routes
            in another mode; an active extension has a strength below 1; the mode cannot extend the model's family, or
            not with this width; weights are offloaded or quantised so that they cannot be copied; or a replaced
            forward would bypass the extension. After any exception the model is unchanged.
    """
    check_setup(model, where=f"extension '{name}'")
    sites, scope = find_sites(model), scope_of(model)
    check_name(name)
    check_plan(plan)
    strengths.check_full(scope.strengths, scope.active)
    _check_call(scope, name, plan, mode, width)
    for block, sources in plan.items():
        check_block(model, sites, block, sources, mode)
    made: dict[int, tuple[RouterPart, nn.Module]] = {}
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        for block, sources in plan.items():
            site, wanted = sites[block], list(sources)
            part = new_rows(site, wanted, mode, _calibration(site, scope, len(wanted), mode, calibrate))
            part.name, part.coactive = name, scope.active
            made[block] = part, new_experts(site, wanted, mode, width, empty)
    with _all_or_nothing(model, sites, scope):
        model.requires_grad_(False)
        scope.mode = mode
        for block, parts in made.items():
            _put(sites[block], scope, name, *parts)
        scope.known.append(name)
        scope.coactive[name] = scope.active
        scope.widths[name] = width
        scope.active = (*scope.active, name)
        guards.forbid_saving(model)


def detach(model: nn.Module, name: str) -> None:
    """Removes extension `name`; after the last one the model is its base again, classes included.

    Extensions that have it as a co-active extension need it, and become inactive.

    Raises:
        UnknownName: the model has no extension of that name.
        InputError: a forward was replaced on an extended module, so its class cannot be restored.
    """
    sites, scope = find_sites(model), scope_of(model)
    if name not in scope.known:
        raise UnknownName("extension", name, scope.known)
    for site in sites:
        for module, *_ in _swapped(site) if list(_stored(site)) == [name] else ():
            reach.check_restorable(module)
    with _all_or_nothing(model, sites, scope):
        scope.known.remove(name)
        scope.active = tuple(
            other for other in scope.active if other != name and name not in scope.coactive.get(other, ())
        )
        for kept in (scope.coactive, scope.widths, scope.folders, scope.titles, scope.strengths):
            cast(dict[str, Any], kept).pop(name, None)
        for site in sites:
            _take(site, name)
        if not scope.known:
            guards.allow_saving(model)


def activate(
    model: nn.Module,
    names: Sequence[str] | Mapping[str, float],
    *,
    partial: bool = False,
    chosen: bool = False,
) -> None:
    """Activates exactly these extensions; an empty list gives the base.

    Args:
        names: a list: with full strength. A mapping: with these strengths, 0..1 (strengths.py); 0: not active.
        partial: for measurements: an extension may be active without its co-active extensions, or stronger than they
            are, unless its calibrations read them.
        chosen: none is active until `reaching`, which gives each its strength.

    Raises:
        UnknownName: the model has no extension of a name.
        InputError: a strength is not from 0 to 1; a co-active extension of one of them is not named, or weaker than
            it; or a replaced forward would bypass the extension. The active extensions stay the same.
    """
    scope = scope_of(model)
    asked = strengths.checked(names if isinstance(names, Mapping) else dict.fromkeys(names, 1.0))
    for name in asked:
        if name not in scope.known:
            raise UnknownName("extension", name, scope.known)
    active = {} if chosen else {name: asked[name] for name in scope.known if asked.get(name, 0.0) > 0}
    check_together(model, active, partial=partial)
    if active:
        reach.check(model)
    scope.active = tuple(active)
    scope.strengths = strengths.below_one(asked, list(asked))


def check_together(
    model: nn.Module, names: Sequence[str] | Mapping[str, float], *, partial: bool = False
) -> None:
    """Raises InputError if a co-active extension of one of `names` is not among them; see `activate`."""
    scope = scope_of(model)
    given = names if isinstance(names, Mapping) else dict.fromkeys(names, 1.0)
    for name, strength in given.items():
        coactive = scope.coactive.get(name, ())
        missing = [other for other in coactive if other not in given]
        weaker = [other for other in coactive if given.get(other, 1.0) < strength]
        if not (missing or weaker) or (partial and not _is_calibrated(model, name)):
            continue
        if not missing:
            raise strengths.too_strong(name, strength, weaker[0], given[weaker[0]])
        raise strengths.lacking(name, missing, [*coactive, name], scope.known)


@contextmanager
def reaching(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Context in which exactly these extensions are active, with the strengths that `activate` gave them.

    Afterwards the former ones are active again.
    """
    again, given = activation(model), scope_of(model).strengths
    try:
        activate(model, {name: given.get(name, 1.0) for name in names})
        yield
    finally:
        again()


def activation(model: nn.Module) -> Callable[[], None]:
    """Function that activates the extensions that are active now, with their strengths, if the model has them still."""
    scope = scope_of(model)
    active, given = scope.active, scope.strengths

    def again() -> None:
        scope = scope_of(model)
        scope.active = tuple(name for name in active if name in scope.known)
        scope.strengths = {name: strength for name, strength in given.items() if name in scope.known}

    return again


def new_parameters(model: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """Name in the model -> parameter, for the parameters of extension `name`."""
    return {
        key: parameter
        for key, parameter in model.named_parameters()
        if f".ext_parts.{name}." in key or f".ext_groups.{name}." in key
    }


def renamed(key: str, old: str, new: str) -> str:
    """Name of a parameter of extension `old` if that is called `new`."""
    return re.sub(rf"(\.ext_(?:parts|groups)\.){re.escape(old)}(?=\.)", lambda at: at[1] + new, key)


def base_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Name in the model -> tensor, for the tensors of the base: parameters and buffers without those of extensions."""
    return {key: tensor for key, tensor in model.state_dict().items() if ".ext_" not in key}


def _check_call(scope: Scope, name: str, plan: Plan, mode: Mode, width: float) -> None:
    if name in scope.known:
        raise InputError(f"the model already has an extension '{name}'.", hint="Choose another name.")
    if not any(plan.values()):
        raise InputError(
            f"extension '{name}' has no new expert.", hint="Name a parent in at least one block."
        )
    if scope.known and scope.mode != mode:
        raise InputError(
            f"the model routes in mode '{scope.mode}', extension '{name}' in mode '{mode}'.",
            hint="All extensions of a model share one mode.",
        )
    if not 0 < width <= 1 or (width < 1 and mode != "exact"):
        raise InputError(
            f"extension '{name}' cannot have experts of {width:g} of their parents' width in routing '{mode}'.",
            hint="Use a width above 0, up to 1, in routing 'exact'; the others start from full copies (width 1).",
        )


def _is_calibrated(model: nn.Module, name: str) -> bool:
    parts = [cast(Any, getattr(site.router, "ext_parts", {})) for site in find_sites(model)]
    return any(name in each and each[name].calibration is not None for each in parts)


def _calibration(site: Site, scope: Scope, new: int, mode: Mode, wanted: bool) -> Calibration | None:
    """New calibration for the base, the active extensions and the `new` experts; None without calibration."""
    if mode != "paper" or not wanted:
        return None
    stored = _stored(site)
    others = sum(cast(RouterPart, stored[other]).count for other in scope.active if other in stored)
    return Calibration(first_new_id(site) + others + new)


def _stored(site: Site) -> Mapping[str, nn.Module]:
    """Extension -> its part of the site's router."""
    return cast(Mapping[str, nn.Module], getattr(site.router, "ext_parts", {}))


def _swapped(site: Site) -> list[tuple[nn.Module, type, str]]:
    """Modules of a block that get a subclass: (module, mixin, attribute for the new parts)."""
    if site.dense:
        return [
            (site.router, DenseRouter, "ext_parts"),
            (site.experts, DenseExperts, "ext_groups"),
            (site.block, DenseBlock, ""),
        ]
    return [(site.router, ExtendedRouter, "ext_parts"), (site.experts, ExtendedExperts, "ext_groups")]


def _put(site: Site, scope: Scope, name: str, part: RouterPart, group: nn.Module) -> None:
    """Adds the block's part of extension `name`, and gives its modules the extended classes."""
    first = first_new_id(site)
    for module, mixin, store in _swapped(site):
        if isinstance(module, mixin):
            continue
        forward = type(module).forward
        module.__class__ = subclass(type(module), mixin)
        reach.rebind(module, forward)
        module.ext_scope = scope  # type: ignore[assignment]
        if store:
            module.ext_first = first  # type: ignore[assignment]
            setattr(module, store, Parts())
    cast(Any, site.router).ext_parts[name] = part
    cast(Any, site.experts).ext_groups[name] = group
    if hasattr(site.experts, "_is_expert_parallel"):
        # With this flag the fused implementations skip rows with id m (won by a new expert).
        site.experts._is_expert_parallel = scope.mode != "exact"  # type: ignore[assignment]
    reach.arm(site)


def _take(site: Site, name: str) -> None:
    """Removes the block's part of extension `name`; with the last one, restores the classes of its modules."""
    if name not in _stored(site):
        return
    last = len(_stored(site)) == 1
    for module, _, store in _swapped(site):
        if store:
            del cast(Any, getattr(module, store))[name]
        if last:
            if store:
                delattr(module, store)
            _restore_class(module)
    if last:
        reach.disarm(site.router, site.experts, site.block)


def _restore_class(module: nn.Module) -> None:
    for key in ("ext_scope", "ext_first"):
        module.__dict__.pop(key, None)
    if hasattr(module, "_is_expert_parallel"):
        module._is_expert_parallel = False  # type: ignore[assignment]
    forward = type(module).forward
    module.__class__ = base_class(module)
    reach.rebind(module, forward)


@contextmanager
def _all_or_nothing(model: nn.Module, sites: list[Site], scope: Scope) -> Iterator[None]:
    """Restores the model and its scope if the block ends with an exception, including an interrupt."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shared = {key: copy.copy(value) for key, value in vars(scope).items()}
    undo = [_snapshot(module) for site in sites for module in (site.router, site.experts, site.block)]
    try:
        yield
    except BaseException:
        for restore in undo:
            restore()
        vars(scope).update(shared)
        (guards.forbid_saving if scope.known else guards.allow_saving)(model)
        for parameter in learning:
            parameter.requires_grad_(True)
        raise


def _snapshot(module: nn.Module) -> Callable[[], None]:
    """Function that restores the current class, attributes, children and hooks of the module."""
    kind, own = type(module), dict(vars(module))
    stores = [child._modules for key, child in module._modules.items() if key.startswith("ext_") and child]
    places = cast(list[dict[Any, Any]], [module._modules, module._forward_hooks, *stores])
    held = [(place, dict(place)) for place in places]

    def restore() -> None:
        module.__class__ = kind
        vars(module).clear()
        vars(module).update(own)
        for place, was in held:
            place.clear()
            place.update(was)

    return restore
