"""Whether a stock class of transformers computes exactly what an extended model does, and if not, why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from moextend.errors import InputError
from moextend.moe.attach import scope_of
from moextend.moe.families import family_of, scoring_of
from moextend.moe.recipe import Mode
from moextend.moe.router_parts import RouterPart
from moextend.moe.routing import ExtendedRouter, Scope, reachable
from moextend.moe.scoring import Scoring
from moextend.moe.sites import Site, count_experts, find_sites
from moextend.moe.strengths import below_one

ALL_LAYERS = "routing=paper, calibration=false, layers=all and scope=all"
_ELSE = "Or export it with --as moextend, which keeps it as it is."


def check(lm: nn.Module) -> None:
    """Raises InputError if no stock class computes what `lm` does with its active extensions."""
    scope = state_of(lm)
    weak = below_one(scope.strengths, scope.active)
    found = _weak(weak) if weak else _obstacle(find_sites(lm), scope.mode) if scope.active else None
    if found is not None:
        reason, hint = found
        names = ", ".join(f"'{name}'" for name in scope.active)
        raise InputError(f"{reason}.", where=f"extension {names}", hint=f"{hint} {_ELSE}")


def _weak(strengths: Mapping[str, float]) -> tuple[str, str]:
    """Why extensions with strengths below 1 do not fit a stock class, and what to do."""
    name, strength = next(iter(strengths.items()))
    return (
        f"'{name}' has the strength {strength:g}, which blends the choices of two routers, and stock ones do not",
        "Activate it with full strength.",
    )


def state_of(lm: nn.Module) -> Scope:
    """State of the extensions of a model; an empty one for a model without any, with MoE blocks or not."""
    return scope_of(lm) if any(isinstance(each, ExtendedRouter) for each in lm.modules()) else Scope()


def _obstacle(sites: Sequence[Site], mode: Mode) -> tuple[str, str] | None:
    """Why no stock class computes the same, and what would remove that; None if one does."""
    again = f"Make it with {ALL_LAYERS}."
    if mode == "exact":
        return "routing=exact adds slots with gates, and no router of transformers has gates", again
    if mode == "slot":
        return "routing=slot compares a new expert with its parent only, and no stock router does", again
    if any(part.calibration is not None for site in sites for part in parts(site)):
        return "calibration=true changes the chosen weights after the top-k", again
    most = max(map(new_experts, sites))
    for site in sites:
        if new_experts(site) < most and not can_pad(site):
            return _uneven(site, most), again
    for site in sites:
        if new_experts(site) and limited(site) and not all_groups_open(site.router):
            groups = "the base chooses from some groups of its experts, and groups of a stock model have equal sizes"
            return groups, "No setting makes this export exact."
    return None


def _uneven(site: Site, most: int) -> str:
    """Why a block with fewer new experts than another one cannot get some that are never chosen."""
    return (
        f"{site.name} has {new_experts(site)} new experts and another layer {most} (layers=...): a stock model has as "
        f"many in every layer, and {family_of(site.router).router} has no bias that keeps others from being chosen"
    )


def new_experts(site: Site) -> int:
    """Number of new experts of the active extensions in a block."""
    return sum(part.count for part in parts(site))


def parts(site: Site) -> list[RouterPart]:
    """Parts of the active extensions in a block's router, oldest first."""
    return reachable(site.router) if isinstance(site.router, ExtendedRouter) else []


def scoring(site: Site) -> Scoring | None:
    """Scoring of a block's router; None for a router that paper routing does not know.

    A bias that the block passes to its router is replaced by zeros.
    """
    router = site.router
    if family_of(router).scoring is None:
        return None
    return scoring_of(router, (torch.zeros(count_experts(site)),))


def can_pad(site: Site) -> bool:
    """Whether a router has a bias per expert that keeps an expert from being chosen, without effect on the others."""
    if _row_bias(site.router):
        return True  # on the logits: the expert's share of a softmax is zero
    how = scoring(site)
    if how is None:  # experts fixed by the token's id
        return isinstance(getattr(site.router, "tid2eid", None), torch.Tensor)
    return how.bias is not None and how.score is not None and _has_choice_bias(site)


def limited(site: Site) -> bool:
    """Whether a router chooses from some groups of its experts."""
    how = scoring(site)
    return how is not None and how.limited and getattr(site.router, "topk_method", "") != "greedy"


def all_groups_open(router: nn.Module) -> bool:
    """Whether a router with groups chooses from all of them."""
    own = cast(Any, router)
    groups = getattr(own, "num_group", None) or getattr(own, "n_group", None) or 1
    return bool((getattr(own, "topk_group", None) or 1) >= groups)


def _row_bias(router: nn.Module) -> bool:
    return isinstance(getattr(router, "bias", None), torch.Tensor)


CHOICE_BIASES = ("e_score_correction_bias", "expert_bias")
"""Names of biases that only affect which experts are chosen."""


def _has_choice_bias(site: Site) -> bool:
    own = (*site.block.named_parameters(), *site.block.named_buffers())
    return any(name.endswith(CHOICE_BIASES) and not name.startswith("experts.") for name, _ in own)
