"""Adds experts and router rows to a model in place, and takes them off again.

No base tensor is copied or changed: routers and experts get a subclass of their own class, a group of new experts
is an instance of the base's experts class with fewer experts, and detaching the last extension gives the classes
back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from moextend import guards, narrow
from moextend.dense import DenseBlock, DenseExperts, DenseGroup, DenseRouter
from moextend.errors import InputError, UnknownName
from moextend.families import NEEDS_TWO_SLOTS, check_paper, rows_of
from moextend.moe import Site, count_experts, find_sites, first_new_id
from moextend.parts import Calibration, RouterPart
from moextend.recipe import Mode
from moextend.routing import ExtendedExperts, ExtendedRouter, PairGroup, Scope

Plan = Mapping[int, Sequence[int]]
"""MoE block -> the base expert that each new expert is copied from."""

_SUBCLASS: dict[tuple[type, type], type] = {}
_MIXINS = (ExtendedRouter, ExtendedExperts, DenseBlock, DenseGroup, PairGroup)
_COUNTS = ("num_experts", "num_routed_experts", "total_experts")
"""Where experts classes keep how many they are."""


def scope_of(model: nn.Module) -> Scope:
    """What the blocks of `model` share; made on first use."""
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

    Everything is frozen except the new parts, which are float32. The extension is reachable at once, beside the
    extensions that were; see `activate`. With `empty` nothing is copied: the new experts' memory is taken, not filled.

    Args:
        width: exact routing: share of the parent's inner neurons that a new expert gets (`narrow.kept`).

    Raises:
        InputError: the name is taken or has a dot, the plan is empty or names what the model does not have, the model
            already routes in another mode, the mode cannot extend the model's family, or takes whole copies only. The
            model is as it was.
    """
    sites, scope = find_sites(model), scope_of(model)
    if name in scope.known:
        raise InputError(f"the model already has an extension '{name}'.", mend="Choose another name.")
    if "." in name:
        raise InputError(f"the name '{name}' has a dot.", mend="Use letters, digits, '-' and '_'.")
    if not any(plan.values()):
        raise InputError(
            f"extension '{name}' has no new expert.", mend="Name a parent in at least one block."
        )
    if scope.known and scope.mode != mode:
        raise InputError(
            f"the model routes in mode '{scope.mode}', extension '{name}' in mode '{mode}'.",
            mend="All extensions of a model share one mode.",
        )
    if not 0 < width <= 1 or (width < 1 and mode != "exact"):
        raise InputError(
            f"extension '{name}' cannot have experts of {width:g} of their parents' width in routing '{mode}'.",
            mend="Use a width above 0, up to 1, in routing 'exact'; the others start from whole copies (width 1).",
        )
    for block, sources in plan.items():
        _check(sites, block, sources, mode)
    scope.mode = mode
    model.requires_grad_(False)
    torch.manual_seed(seed)
    for block, sources in plan.items():
        _extend_site(sites[block], scope, name, list(sources), calibrate, width, empty)
    scope.known.append(name)
    scope.beside[name] = scope.active
    scope.widths[name] = width
    scope.active = (*scope.active, name)
    guards.forbid_saving(model)


def detach(model: nn.Module, name: str) -> None:
    """Takes extension `name` off; with the last one the model is its base again, classes included."""
    scope = scope_of(model)
    if name not in scope.known:
        raise UnknownName("extension", name, scope.known)
    scope.known.remove(name)
    scope.beside.pop(name, None)
    scope.widths.pop(name, None)
    scope.folders.pop(name, None)
    scope.active = tuple(other for other in scope.active if other != name)
    for site in find_sites(model):
        for module, store in ((site.router, "ext_parts"), (site.experts, "ext_groups")):
            parts = getattr(module, store, None)
            if parts is None:
                continue
            if name in parts:
                del parts[name]
            if not len(parts):
                delattr(module, store)
                _restore_class(module)
        if isinstance(site.block, DenseBlock) and not isinstance(site.router, ExtendedRouter):
            _restore_class(site.block)
    if not scope.known:
        guards.allow_saving(model)


def activate(model: nn.Module, names: Sequence[str]) -> None:
    """Makes exactly these extensions reachable; an empty list gives the base."""
    scope = scope_of(model)
    for name in names:
        if name not in scope.known:
            raise UnknownName("extension", name, scope.known)
    active = tuple(name for name in scope.known if name in names)
    if scope.mode == "paper":
        _check_calibrations(model, active)
    scope.active = active


@contextmanager
def reaching(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Within it, exactly these extensions are reachable; afterwards those that were before."""
    before = scope_of(model).active
    activate(model, names)
    try:
        yield
    finally:
        activate(model, before)


def new_parameters(model: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """The parameters of extension `name`, by their name in the model."""
    return {
        key: parameter
        for key, parameter in model.named_parameters()
        if f".ext_parts.{name}." in key or f".ext_groups.{name}." in key
    }


def _check(sites: list[Site], block: int, sources: Sequence[int], mode: Mode) -> None:
    """InputError where block `block` cannot get copies of the experts `sources`."""
    if not 0 <= block < len(sites):
        raise InputError(f"the model has MoE blocks 0 to {len(sites) - 1}, not {block}.")
    site = sites[block]
    known = count_experts(site)
    wrong = [source for source in sources if not 0 <= source < known]
    if wrong:
        raise InputError(f"{site.name} has experts 0 to {known - 1}, not {wrong[0]}.")
    if mode == "paper":
        check_paper(site.router)
    if mode == "slot" and site.dense:
        raise InputError(
            f"routing 'slot' cannot extend {site.name}: every expert computes every token, so that it has no slots.",
            mend="Use routing 'exact', which extends every family.",
        )
    if not isinstance(site.experts, ExtendedExperts) and getattr(site.experts, "_is_expert_parallel", False):
        raise InputError(
            f"{site.name} is split over devices by expert parallelism.",
            mend="Extend the model on one device, or with every device holding all experts.",
        )
    for module, *_ in _parts(site):
        if not isinstance(module, _MIXINS) and "forward" in module.__dict__:
            raise InputError(
                f"{type(module).__name__} has its forward replaced on the instance, which would hide the extension.",
                mend="Extend the model before device maps, quantisation or expert parallelism are set up.",
            )


def _parts(site: Site) -> list[tuple[nn.Module, type, str]]:
    """What of a block gets a subclass: the module, what is mixed in, and where it keeps the new parts."""
    if site.dense:
        return [
            (site.router, DenseRouter, "ext_parts"),
            (site.experts, DenseExperts, "ext_groups"),
            (site.block, DenseBlock, ""),
        ]
    return [(site.router, ExtendedRouter, "ext_parts"), (site.experts, ExtendedExperts, "ext_groups")]


def _extend_site(
    site: Site, scope: Scope, name: str, sources: list[int], calibrate: bool, width: float, empty: bool
) -> None:
    for module, mixin, store in _parts(site):
        _swap_class(module, mixin, store, scope, first_new_id(site))
    router, experts = cast(ExtendedRouter, site.router), cast(ExtendedExperts, site.experts)
    weighed = first_new_id(site) + len(sources)
    if scope.mode == "paper":
        weighed += sum(
            cast(RouterPart, router.ext_parts[other]).count
            for other in scope.active
            if other in router.ext_parts
        )
    calibration = Calibration(weighed) if scope.mode == "paper" and calibrate else None
    closed = scope.mode == "exact" and bool(getattr(experts, "has_post_expert_norm", False))
    part = _new_rows(router, sources, scope.mode, calibration, closed)
    router.ext_parts[name] = part.to(_device(site))
    experts.ext_groups[name] = _new_experts(
        site, sources, width, zero=scope.mode == "exact" and not closed, empty=empty
    )
    if hasattr(experts, "_is_expert_parallel"):
        # With this flag the fused implementations leave rows with id m (won by a new expert) out.
        experts._is_expert_parallel = scope.mode != "exact"  # type: ignore[assignment]


def _device(site: Site) -> torch.device:
    return cast(Tensor, site.experts.down_proj).device


def _new_rows(
    router: nn.Module, sources: list[int], mode: Mode, calibration: Calibration | None, closed: bool
) -> RouterPart:
    """paper: the source's row (Eq. 9). exact: a gate that is open (1), or closed (0), for every token at the start.

    slot: nothing is added to the source's row, a tie.
    """
    weight = cast(Tensor, rows_of(router)).detach()
    if mode == "paper":
        bias = getattr(router, "bias", None)
        start = None if bias is None else bias.detach()[sources].float()
        return RouterPart(weight[sources].float(), start, calibration, sources)
    rows = torch.zeros(len(sources), weight.shape[1])
    start_at = 0.0 if closed or mode == "slot" else 1.0
    return RouterPart(rows, torch.full((len(sources),), start_at), None, sources)


def _new_experts(site: Site, sources: list[int], width: float, *, zero: bool, empty: bool) -> nn.Module:
    """A group of experts of the base's own class, copies of `sources`; zero: their last projection is; empty: none.

    Where a norm follows the last projection (Muse Spark), zeros would be blown up by the first step that moves them:
    there the copies are whole, and gates that start closed keep the base's function.
    """
    base, many = site.experts, (count_experts(site), first_new_id(site))
    kind = _base_class(base)
    if site.dense:
        kind = _subclass(kind, DenseGroup)
    if kind.__name__ in NEEDS_TWO_SLOTS:
        kind = _subclass(kind, PairGroup)
    group = cast(Any, object.__new__(kind))
    nn.Module.__init__(group)
    own = set(group.__dict__)  # parameters, buffers, modules, hooks: never shared with the base
    group.__dict__.update(
        {key: value for key, value in base.__dict__.items() if key not in own and not key.startswith("ext_")}
    )
    for key, child in base._modules.items():
        if not key.startswith("ext_"):
            group._modules[key] = child  # activation and norms belong to the base: shared
    for key, tensor in base._parameters.items():
        if tensor is None or tensor.shape[0] not in many:
            group._parameters[key] = tensor
            continue
        shape, whole = narrow.shape(base, key, width), not (zero and key.startswith("down_proj"))
        copy = (torch.empty if empty else torch.zeros)((len(sources), *shape), device=tensor.device)
        for place, source in enumerate(sources if whole and not empty else ()):
            copy[place].copy_(narrow.kept(base, key, source, width))
        group._parameters[key] = nn.Parameter(copy)
    for key in _COUNTS:
        if hasattr(base, key):
            setattr(group, key, len(sources))
    group.num_experts = len(sources)
    group._is_expert_parallel = False
    return cast(nn.Module, group)


def _base_class(module: nn.Module) -> type:
    return next(kind for kind in type(module).__mro__ if not issubclass(kind, _MIXINS))


def _subclass(kind: type, mixin: type) -> type:
    return _SUBCLASS.setdefault((kind, mixin), type(f"Extended{kind.__name__}", (mixin, kind), {}))


def _swap_class(module: nn.Module, mixin: type, store: str, scope: Scope, first: int) -> None:
    if isinstance(module, mixin):
        return
    module.__class__ = _subclass(type(module), mixin)
    module.ext_scope = scope  # type: ignore[assignment]
    if store:
        module.ext_first = first  # type: ignore[assignment]
        setattr(module, store, nn.ModuleDict())


def _restore_class(module: nn.Module) -> None:
    for key in ("ext_scope", "ext_first"):
        module.__dict__.pop(key, None)
    if hasattr(module, "_is_expert_parallel"):
        module._is_expert_parallel = False  # type: ignore[assignment]
    module.__class__ = _base_class(module)


def _check_calibrations(model: nn.Module, active: tuple[str, ...]) -> None:
    """A calibration reads the experts that existed at its time: they must be reachable with it."""
    for site in find_sites(model):
        if not isinstance(site.router, ExtendedRouter):
            continue
        width = first_new_id(site)
        for name in active:
            if name not in site.router.ext_parts:
                continue
            part = cast(RouterPart, site.router.ext_parts[name])
            width += part.count
            if part.calibration is not None and part.calibration.inner.in_features > width:
                raise InputError(
                    f"extension '{name}' was made beside earlier extensions that are not active now.",
                    mend="Load and activate the earlier ones too.",
                )
