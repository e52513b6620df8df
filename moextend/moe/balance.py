"""Load balance among the new experts in training: an auxiliary loss without the old experts."""

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
    """Yields a function: attention mask [B, T] -> balance loss of the last forward pass of `lm`, without padding.

    The router rows in training are determined once, at the start.
    """
    logits: dict[nn.Module, Tensor] = {}
    choices: dict[RouterPart, Choice] = {}

    def keep(part: nn.Module, args: Any, out: Tensor) -> None:
        logits[part] = out

    def choose(router: nn.Module, args: Any, out: Any) -> None:
        exact = cast(Scope, router.ext_scope).mode == "exact"
        first = cast(int, router.ext_first)
        for part in reachable(router):
            if part in logits:
                choices[part] = (_open if exact else _won)(logits.pop(part), out, first)
            first += part.count

    def loss(mask: Tensor) -> Tensor:
        real = mask.flatten().bool()
        each = [balance_loss(*choice, real) for choice in choices.values()]
        choices.clear()
        return torch.stack(each).mean() if each else torch.zeros((), device=mask.device)

    with ExitStack() as stack:
        for site in find_sites(lm):
            stores = cast(Any, getattr(site.router, "ext_parts", {}))
            learning = [part for part in stores.values() if part.rows.requires_grad]
            for module, hook in [(part, keep) for part in learning] + [(site.router, choose)] * bool(
                learning
            ):
                stack.callback(module.register_forward_hook(hook).remove)
        yield loss


def balance_loss(probabilities: Tensor, used: Tensor, real: Tensor) -> Tensor:
    """n * sum_i f_i P_i over n new experts (Switch Transformers, arXiv 2101.03961, Eq. 4 to 6).

    f_i is the share of expert i in the choices [T, n] of new experts, P_i its mean probability among the new experts,
    both over the tokens (`real` [T], without padding) that use a new expert. The loss is 1 for an even load, n if one
    expert gets all tokens, and 0 if no token uses a new expert. It does not depend on the number of tokens that use a
    new expert, so it moves no tokens from old experts to new ones.
    """
    taken = used & real[:, None]
    tokens = taken.any(-1, keepdim=True)
    share = taken.sum(0) / taken.sum().clamp_min(1)
    mean = (probabilities * tokens).sum(0) / tokens.sum().clamp_min(1)
    return probabilities.shape[1] * (share * mean).sum()


def _open(logits: Tensor, out: Any, first: int) -> Choice:
    """exact: a token uses an expert if its gate is open; probabilities are shares of the gates."""
    gates = hard_gate(logits.float())
    return gates / gates.sum(-1, keepdim=True).clamp_min(1e-6), gates > 0


def _won(logits: Tensor, out: Any, first: int) -> Choice:
    """paper, slot: a token uses an expert if it is among the chosen ones with a weight above zero."""
    weights, index = out[1:3]
    ids = torch.arange(first, first + logits.shape[1], device=index.device)
    return logits.float().softmax(-1), ((index[..., None] == ids) & (weights > 0)[..., None]).any(1)
