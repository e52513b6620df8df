"""Checks of `attach` before it changes a model: names, plans, blocks and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from moextend.errors import InputError
from moextend.moe import quantised, reach
from moextend.moe.families import rows_of, scoring_of
from moextend.moe.recipe import Mode
from moextend.moe.routing import ExtendedExperts
from moextend.moe.sites import Site, count_chosen, count_experts, find_sites
from moextend.moe.supported import check_setup


def check_plan(plan: object) -> None:
    """Raises InputError if `plan` is not a mapping from blocks to the experts to copy."""
    fits = isinstance(plan, Mapping) and all(
        hasattr(block, "__index__")
        and isinstance(experts, Sequence)
        and all(hasattr(e, "__index__") for e in experts)
        for block, experts in plan.items()
    )
    if not fits:
        raise InputError(
            f"{plan!r} is not a plan.",
            where="plan",
            hint="Map MoE blocks to lists of experts: {0: [3], 2: [1]}.",
        )


def check_extensible(model: nn.Module) -> None:
    """Raises InputError if a block of `model` cannot be extended in any routing mode, for any plan."""
    check_setup(model, where="extend")
    for site in find_sites(model):
        check_site(model, site)


def check_block(model: nn.Module, sites: list[Site], block: int, sources: Sequence[int], mode: Mode) -> None:
    """Raises InputError if block `block` cannot get copies of the experts `sources`."""
    if not 0 <= block < len(sites):
        raise InputError(
            f"the model has MoE blocks 0 to {len(sites) - 1}, not {block}.",
            where="plan",
            hint="Name one of them.",
        )
    site = sites[block]
    known = count_experts(site)
    wrong = [source for source in sources if not 0 <= source < known]
    if wrong:
        raise InputError(
            f"{site.name} has experts 0 to {known - 1}, not {wrong[0]}.",
            where="plan",
            hint="Name one of them.",
        )
    check_mode(site, mode)
    check_site(model, site)


def check_mode(site: Site, mode: Mode) -> None:
    """Raises InputError if a block cannot be extended, or could not learn to route, in this mode."""
    if mode == "paper" and scoring_of(site.router).normalise and count_chosen(site) == 1:
        raise InputError(
            f"routing 'paper' learns nothing in the router of {site.name}: it chooses one expert for a token and sets "
            "its weight to 1, which has no gradient for rows and calibrations.",
            hint="Use routing 'exact' or 'slot', or a base without norm_topk_prob or with more experts for a token.",
        )
    if mode == "slot" and site.dense:
        raise InputError(
            f"routing 'slot' cannot extend {site.name}: every expert computes every token, so it has no slots.",
            hint="Use routing 'exact', which extends every family.",
        )


def check_site(model: nn.Module, site: Site) -> None:
    """Raises InputError if a block in its current state cannot be extended in any routing mode."""
    if not isinstance(site.experts, ExtendedExperts) and getattr(site.experts, "_is_expert_parallel", False):
        raise InputError(
            f"{site.name} is split over devices by expert parallelism.",
            hint="Extend the model on one device, or with every device holding all experts.",
        )
    _check_memory(model, site)
    quantised.check_experts(model, site.experts, f"{site.name}.experts", count_experts(site))
    quantised.check_tensor(model, cast(Tensor, rows_of(site.router)), f"the router of {site.name}")
    reach.check_free(model, site)


def _check_memory(model: nn.Module, site: Site) -> None:
    """Raises InputError if accelerate offloaded weights of the site; a model with only meta tensors is accepted."""
    for module in (site.experts, site.router):
        offloaded = any(p.is_meta for p in module.parameters())
        if offloaded and (
            any(hasattr(m, "_hf_hook") for m in model.modules())
            or not all(p.is_meta for p in model.parameters())
        ):
            raise InputError(
                f"weights of {site.name} ({type(module).__name__}) are offloaded, and cannot be copied.",
                hint="Load the full model on one device, without a device map that offloads; extend it there, and "
                "dispatch it afterwards.",
            )
