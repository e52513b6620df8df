"""Load balance among the new experts that learn: an auxiliary loss that leaves the old ones out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from moextend.moe.router_parts import RouterPart
from moextend.moe.routing import Scope, hard_gate, reachable
from moextend.moe.sites import find_sites

Choice = tuple[Tensor, Tensor]
"""(probabilities, used) [T, n]: each new expert's share among the new ones, and whether a token uses it."""


@contextmanager
def watch_balance(lm: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """Inside the block, what is yielded gives the balance loss of the last forward pass of `lm`.

    It takes the attention mask [B, T]; padding has no part in the loss. Router rows that learn are looked for once,
    at the start.
    """
    logits: dict[RouterPart, Tensor] = {}
    choices: dict[RouterPart, Choice] = {}
    with ExitStack() as stack:
        for site in find_sites(lm):
            stores = cast(Any, getattr(site.router, "ext_parts", {}))
            learning = [part for part in stores.values() if part.rows.requires_grad]
            for part in learning:
                stack.callback(part.register_forward_hook(_keep(logits)).remove)
            if learning:
                stack.callback(site.router.register_forward_hook(_choose(logits, choices, learning)).remove)

        def loss(mask: Tensor) -> Tensor:
            real = mask.flatten().bool()
            each = [balance_loss(*choice, real) for choice in choices.values()]
            choices.clear()
            return torch.stack(each).mean() if each else torch.zeros((), device=mask.device)

        yield loss


def balance_loss(probabilities: Tensor, used: Tensor, real: Tensor) -> Tensor:
    """n * sum_i f_i P_i over n new experts (Switch Transformers, arXiv 2101.03961, Eq. 4 to 6).

    f_i is the share of expert i in the choices [T, n] that fall on a new expert, P_i its mean probability among the
    new ones, both over the real tokens (`real` [T]) that use a new expert. One where all is even, n where one expert
    takes all, zero where no token uses one. It does not depend on how many tokens use a new expert, so that it
    pushes nothing from old experts to new ones.
    """
    taken = used & real[:, None]
    tokens = taken.any(-1, keepdim=True)
    share = taken.sum(0) / taken.sum().clamp_min(1)
    mean = (probabilities * tokens).sum(0) / tokens.sum().clamp_min(1)
    return probabilities.shape[1] * (share * mean).sum()


def _keep(logits: dict[RouterPart, Tensor]) -> Callable[..., None]:
    def hook(part: RouterPart, args: Any, out: Tensor) -> None:
        logits[part] = out

    return hook


def _choose(
    logits: dict[RouterPart, Tensor], choices: dict[RouterPart, Choice], learning: list[RouterPart]
) -> Callable[..., None]:
    def hook(router: nn.Module, args: Any, out: Any) -> None:
        exact = cast(Scope, router.ext_scope).mode == "exact"
        first = cast(int, router.ext_first)
        for part in reachable(router):
            if part in learning:
                choices[part] = (_open if exact else _won)(logits.pop(part), out, first)
            first += part.count

    return hook


def _open(logits: Tensor, out: Any, first: int) -> Choice:
    """exact: an expert is used where its gate is open, and gates are what its share is of."""
    gates = hard_gate(logits.float())
    return gates / gates.sum(-1, keepdim=True).clamp_min(1e-6), gates > 0


def _won(logits: Tensor, out: Any, first: int) -> Choice:
    """paper, slot: an expert is used where it is among the chosen ones and weighs something."""
    weights, index = out[1:3]
    ids = torch.arange(first, first + logits.shape[1], device=index.device)
    return logits.float().softmax(-1), ((index[..., None] == ids) & (weights > 0)[..., None]).any(1)
