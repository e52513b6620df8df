"""Whether a stock class of transformers computes exactly what an extended model does, and if not, why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from moextend.errors import InputError
from moextend.moe.attach import scope_of
from moextend.moe.dense_blocks import DenseRouter
from moextend.moe.families import family_of, scoring_of
from moextend.moe.router_parts import RouterPart
from moextend.moe.routing import ExtendedRouter, Scope, reachable
from moextend.moe.scoring import Scoring
from moextend.moe.sites import Site, count_experts, find_sites

EXTENDED = (ExtendedRouter, DenseRouter)
ALL_LAYERS = "routing=paper, calibration=false, layers=all and scope=all"
_ELSE = "Or export it with --as moextend, which keeps it as it is."


def check(lm: nn.Module) -> None:
    """Raises InputError if no stock class computes what `lm` does with its active extensions."""
    sites, scope = find_sites(lm), scope_of(lm)
    for reason, hint in _reasons(sites, scope):
        names = ", ".join(f"'{name}'" for name in scope.active)
        raise InputError(f"{reason}.", where=f"extension {names}", hint=f"{hint} {_ELSE}")


def _reasons(sites: Sequence[Site], scope: Scope) -> list[tuple[str, str]]:
    """Every obstacle, with what would remove it."""
    again = f"Make it with {ALL_LAYERS}."
    if not scope.active:
        return []
    if scope.mode == "exact":
        return [("routing=exact adds slots with gates, and no router of transformers has gates", again)]
    if scope.mode == "slot":
        return [("routing=slot compares a new expert with its parent only, and no stock router does", again)]
    found = []
    for site in sites:
        if any(part.calibration is not None for part in parts(site)):
            found.append(("calibration=true changes the chosen weights after the top-k", again))
            break
    found += [(why, again) for why in map(_uneven(sites), sites) if why]
    for site in sites:
        if new_experts(site) and limited(site) and not all_groups_open(site.router):
            groups = "the base chooses from some groups of its experts, and groups of a stock model have equal sizes"
            found.append((groups, "No setting makes this exact."))
            break
    return found


def _uneven(sites: Sequence[Site]) -> Any:
    """Function: why a site cannot get experts that are never chosen, if it has fewer new ones than another."""
    most = max(map(new_experts, sites))

    def why(site: Site) -> str:
        lacking = most - new_experts(site)
        if not lacking or can_pad(site):
            return ""
        return (
            f"{site.name} has {new_experts(site)} new experts and another layer {most} (layers=...): a stock model has "
            f"as many in every layer, and {family_of(site.router).router} has no bias that keeps others from being "
            "chosen"
        )

    return why


def new_experts(site: Site) -> int:
    """Number of new experts of the active extensions in a block."""
    return sum(part.count for part in parts(site))


def parts(site: Site) -> list[RouterPart]:
    """Parts of the active extensions in a block's router, oldest first."""
    return reachable(site.router) if isinstance(site.router, EXTENDED) else []


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
    return how.bias is not None and how.score is not None and _choice_bias(site) is not None


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


def _choice_bias(site: Site) -> str | None:
    """Name of the bias of the choice in a block, if it has one."""
    for name, _ in (*site.block.named_parameters(), *site.block.named_buffers()):
        if name.endswith(CHOICE_BIASES) and not name.startswith("experts."):
            return name
    return None
