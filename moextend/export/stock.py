"""The tensors and the config of a stock model that equals an extended one: new experts after the base's.

A stock class of transformers computes exactly what some extended models do; the others are refused with the reason.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from moextend.errors import InputError
from moextend.model import lm_head
from moextend.moe import attach
from moextend.moe.attach import scope_of
from moextend.moe.families import family_of, scoring_of
from moextend.moe.recipe import Mode
from moextend.moe.router_parts import RouterPart
from moextend.moe.routing import ExtendedRouter, Scope, reachable
from moextend.moe.sites import STACKS, Site, count_experts, find_sites
from moextend.moe.strengths import below_one

CHOICE_BIASES = ("e_score_correction_bias", "expert_bias")
"""Names of biases that only affect which experts are chosen."""
COUNTS = (
    "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts",
)  # fmt: skip
"""Keys of configs with the number of experts of a layer."""
GROUPS = ("n_group", "topk_group")
ALL_LAYERS = "routing=paper, calibration=false, layers=all and scope=all"
_ELSE = "Or export it with --as moextend, which keeps it as it is."
SHARD = "5GB"
"""Size of the largest file, unless a single tensor is larger."""


@dataclass
class StockModel:
    """A stock model: an instance of the class on device meta, with the config, and the tensors."""

    skeleton: Any
    tensors: dict[str, Tensor]
    """Name in the model -> tensor."""
    added: int = 0
    """New experts, in all layers together."""

    def save(self, folder: Path) -> None:
        """Writes the checkpoint as transformers does, with the names that the class has on disk."""
        self.skeleton.save_pretrained(folder, state_dict=self.tensors, max_shard_size=SHARD)


def stock_model(lm: Any, *, release: bool = False) -> StockModel:
    """The stock model that equals `lm` with its active extensions.

    Args:
        release: frees the experts of `lm` block by block, so that it cannot be used afterwards. The memory needed is
            then that of the result and of one block.

    Raises:
        InputError: no stock class computes exactly the same, or the weights are quantised.
    """
    if getattr(lm.config, "quantization_config", None) is not None:
        raise InputError(
            "the base is quantised, and its tensors are not those of a stock model with more experts.",
            hint="Load the base dequantised, or export with --as moextend.",
        )
    check(lm)
    sites = find_sites(lm) if state_of(lm).active else []
    most = max(map(new_experts, sites), default=0)
    skeleton = _skeleton(lm, sites, most)
    base = attach.base_tensors(lm)
    shapes = skeleton.state_dict()
    _refuse_others(lm, base, shapes, sites)
    for site in sites:
        for key in [key for key in base if key.startswith(f"{site.name}.")]:
            if shapes[key].shape != base[key].shape:
                name = key.removeprefix(f"{site.name}.")
                base[key] = _grown(site, name, base[key], shapes[key].shape)
                if release and name.startswith("experts."):
                    site.experts._parameters[name.removeprefix("experts.")] = None
    return StockModel(skeleton, base, sum(map(new_experts, sites)))


def _skeleton(lm: Any, sites: list[Site], more: int) -> Any:
    """The stock model with `more` experts in every block, on device meta."""
    config = copy.deepcopy(lm.config)
    text = lm_head.text_config(config)
    counts = {count_experts(site) for site in sites}
    changed = [key for key in COUNTS if more and text.__dict__.get(key) in counts]  # no alias
    for key in changed:
        setattr(text, key, getattr(text, key) + more)
    if any(limited(site) for site in sites):  # all of them are open, which `check` found
        for key in GROUPS:
            setattr(text, key, 1)
    config.dtype = lm.dtype
    with torch.device("meta"):
        skeleton = type(lm)(config).to(lm.dtype)
    skeleton.tie_weights()
    skeleton._weight_conversions = getattr(lm, "_weight_conversions", None)
    if getattr(lm, "generation_config", None) is not None:
        skeleton.generation_config = copy.deepcopy(lm.generation_config)
    return skeleton


def _grown(site: Site, name: str, base: Tensor, shape: torch.Size) -> Tensor:
    """A tensor of a block with one entry more for each new expert."""
    axis = next(i for i, (now, then) in enumerate(zip(base.shape, shape, strict=True)) if now != then)
    known = count_experts(site)  # experts without weights (LongCat) come after those with weights
    new = [each.to(base) for each in _new_entries(site, name, base, axis)]
    rest = base.narrow(axis, known, base.shape[axis] - known)
    grown = torch.cat([base.narrow(axis, 0, known), *new, rest], axis)
    assert grown.shape == shape, name
    return grown


def _new_entries(site: Site, name: str, base: Tensor, axis: int) -> list[Tensor]:
    """Entries of the new experts in the tensor `name` of a block."""
    own = parts(site)
    if name.startswith("experts."):
        return [getattr(group, name.removeprefix("experts.")).detach() for group in reachable(site.experts)]
    router = next(key for key, module in site.block.named_modules() if module is site.router)
    if name == f"{router}.{family_of(site.router).rows}":
        return [part.rows.detach() for part in own]
    if name == f"{router}.bias":
        return [cast(Tensor, part.bias).detach() for part in own]
    if name.endswith((*CHOICE_BIASES, "per_expert_scale")):
        parents = [parent for part in own for parent in part.parents]
        return [base.index_select(axis, torch.tensor(parents, device=base.device))]
    raise InputError(
        f"{site.name}.{name} has an entry for each expert, and the values for new experts are not known.",
        hint="Export with --as moextend.",
    )


def _refuse_others(lm: Any, base: dict[str, Tensor], shapes: dict[str, Tensor], sites: list[Site]) -> None:
    """Raises InputError if the stock class has other tensors, or its config does not set the number of experts."""
    kind = type(lm).__name__
    foreign = sorted(base.keys() ^ shapes.keys())
    if foreign:
        raise InputError(
            f"the model and {kind} of transformers have other tensors ({foreign[0]}).",
            hint="Only extensions in paper routing, merged LoRA adapters and changed weights of the base fit a stock "
            "class.",
        )
    inside = tuple(f"{site.name}." for site in sites)
    wrong = [
        key
        for key, tensor in base.items()
        if tensor.shape != shapes[key].shape and not key.startswith(inside)
    ]
    unchanged = [
        site.name
        for site in sites
        for stack in STACKS
        if (key := f"{site.name}.experts.{stack}") in base and base[key].shape == shapes[key].shape
    ]
    if wrong or unchanged:
        raise InputError(
            f"the config of {kind} does not set the number of experts of {(wrong or unchanged)[0]}.",
            hint="Export with --as moextend.",
        )


def check(lm: nn.Module) -> None:
    """Raises InputError if no stock class computes what `lm` does with its active extensions."""
    scope = state_of(lm)
    found = _obstacle(find_sites(lm), scope.mode) if scope.active else None
    for name, strength in below_one(scope.strengths, scope.active).items():
        found = (
            f"'{name}' has the strength {strength:g}, which blends the choices of two routers, and stock ones do not",
            "Activate it with full strength.",
        )
    if found is not None:
        names = ", ".join(f"'{name}'" for name in scope.active)
        raise InputError(f"{found[0]}.", where=f"extension {names}", hint=f"{found[1]} {_ELSE}")


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
        if (new := new_experts(site)) < most:
            what = f"{site.name} has {new} new experts and another layer {most} (layers=...), and a stock model has as "
            return f"{what}many in every layer", again
        router: Any = site.router
        groups = getattr(router, "num_group", None) or getattr(router, "n_group", None) or 1
        if limited(site) and (getattr(router, "topk_group", None) or 1) < groups:
            what = "the base chooses from some groups of its experts, and groups of a stock model have equal sizes"
            return what, "No setting makes this export exact."
    return None


def new_experts(site: Site) -> int:
    """Number of new experts of the active extensions in a block."""
    return sum(part.count for part in parts(site))


def parts(site: Site) -> list[RouterPart]:
    """Parts of the active extensions in a block's router, oldest first."""
    return reachable(site.router) if isinstance(site.router, ExtendedRouter) else []


def limited(site: Site) -> bool:
    """Whether a router that paper routing knows chooses from some groups of its experts."""
    if family_of(site.router).scoring is None:
        return False
    how = scoring_of(site.router, (torch.zeros(count_experts(site)),))  # for a bias that the block passes
    return how.limited and getattr(site.router, "topk_method", "") != "greedy"
