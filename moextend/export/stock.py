"""The tensors and the config of a stock model that equals an extended one: new experts after the base's."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from moextend.errors import InputError
from moextend.export import exact
from moextend.model import lm_head
from moextend.moe import attach
from moextend.moe.families import family_of
from moextend.moe.routing import reachable
from moextend.moe.sites import STACKS, Site, count_experts, find_sites

COUNTS = (
    "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts",
)  # fmt: skip
"""Keys of configs with the number of experts of a layer."""
GROUPS = ("n_group", "topk_group")
NEVER = -1e9
"""Bias of an expert that is never chosen; finite, because some routers multiply it."""
NEVER_HALF = -6e4
"""The same as float16."""


@dataclass
class StockModel:
    """A stock model: an instance of the class on device meta, with the config, and the tensors."""

    skeleton: Any
    tensors: dict[str, Tensor]
    """Name in the model -> tensor; on device meta for a plan."""
    added: int = 0
    """New experts, in all layers together, without the padded ones."""
    padded: int = 0
    """Experts that can never be chosen, in all layers together."""


def stock_model(lm: Any, *, release: bool = False) -> StockModel:
    """The stock model that equals `lm` with its active extensions; `lm` may be on device meta.

    Args:
        release: frees the experts of `lm` block by block, so that it cannot be used afterwards. The memory needed is
            then that of the result and of one block.

    Raises:
        InputError: no stock class computes exactly the same, or the weights are quantised.
    """
    _refuse_quantised(lm)
    exact.check(lm)
    sites = find_sites(lm) if exact.state_of(lm).active else []
    most = max(map(exact.new_experts, sites), default=0)
    skeleton = _skeleton(lm, sites, most)
    base = attach.base_tensors(lm)
    shapes = skeleton.state_dict()
    _refuse_others(lm, base, shapes, sites)
    padded = 0
    for site in sites:
        lacking = most - exact.new_experts(site)
        padded += lacking
        for key in [key for key in base if key.startswith(f"{site.name}.")]:
            if shapes[key].shape != base[key].shape:
                name = key.removeprefix(f"{site.name}.")
                base[key] = _grown(site, name, base[key], shapes[key].shape, lacking)
                if release and name.startswith("experts."):
                    site.experts._parameters[name.removeprefix("experts.")] = None
    return StockModel(skeleton, base, sum(map(exact.new_experts, sites)), padded)


def _skeleton(lm: Any, sites: list[Site], more: int) -> Any:
    """The stock model with `more` experts in every block, on device meta."""
    config = copy.deepcopy(lm.config)
    text = lm_head.text_config(config)
    counts = {count_experts(site) for site in sites}
    changed = [key for key in COUNTS if more and _own(text, key) in counts]
    for key in changed:
        setattr(text, key, getattr(text, key) + more)
    if any(exact.limited(site) for site in sites):  # all of them are open, which `exact.check` found
        for key in GROUPS:
            setattr(text, key, 1)
    config.dtype = lm.dtype
    with torch.device("meta"):
        skeleton = type(lm)(config)
    skeleton.tie_weights()
    skeleton._weight_conversions = getattr(lm, "_weight_conversions", None)
    skeleton.generation_config = copy.deepcopy(getattr(lm, "generation_config", None))
    return skeleton


def _own(config: Any, key: str) -> Any:
    """Value of a key that a config stores, not one that it maps to another; None without it."""
    return config.__dict__.get(key)


def _grown(site: Site, name: str, base: Tensor, shape: torch.Size, lacking: int) -> Tensor:
    """A tensor of a block with one entry more for each new expert, and for `lacking` that are never chosen."""
    axis = next(i for i, (now, then) in enumerate(zip(base.shape, shape, strict=True)) if now != then)
    new, fill = _new_entries(site, name, base, axis)
    known = count_experts(site)  # experts without weights (LongCat) come after those with weights
    pieces = [base.narrow(axis, 0, known), *(each.to(base) for each in new)]
    if lacking:
        pieces.append(base.new_full((*base.shape[:axis], lacking, *base.shape[axis + 1 :]), fill))
    pieces.append(base.narrow(axis, known, base.shape[axis] - known))
    grown = torch.cat(pieces, axis)
    assert grown.shape == shape, name
    return grown


def _new_entries(site: Site, name: str, base: Tensor, axis: int) -> tuple[list[Tensor], float]:
    """Entries of the new experts in the tensor `name` of a block, and the value for one that is never chosen."""
    parts = exact.parts(site)
    parents = [parent for part in parts for parent in part.parents]
    router = next(key for key, module in site.block.named_modules() if module is site.router)
    never = NEVER_HALF if base.dtype == torch.float16 else NEVER
    if name.startswith("experts."):
        groups = reachable(site.experts) if parts else []
        return [getattr(group, name.removeprefix("experts.")).detach() for group in groups], 0.0
    if name == f"{router}.{family_of(site.router).rows}":
        return [part.rows.detach() for part in parts], 0.0
    if name == f"{router}.bias":
        return [cast(Tensor, part.bias).detach() for part in parts], never
    inherited = [base.index_select(axis, torch.tensor(parents, device=base.device))] if parents else []
    if name.endswith(exact.CHOICE_BIASES):
        return inherited, never
    if name.endswith("per_expert_scale"):
        return inherited, 1.0
    raise InputError(
        f"{site.name}.{name} has an entry for each expert, and the values for new experts are not known.",
        hint="Export with --as moextend.",
    )


def _refuse_quantised(lm: Any) -> None:
    """Raises InputError for a quantised model."""
    if getattr(lm.config, "quantization_config", None) is not None:
        raise InputError(
            "the base is quantised, and its tensors are not those of a stock model with more experts.",
            hint="Load the base dequantised, or export with --as moextend.",
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
