"""Next tokens and log-likelihoods from logits."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

from moextend.serving.jobs import Settings, Token

CHUNK = 256
"""Positions of a prompt that have logits at a time."""


def generator_of(settings: Settings) -> torch.Generator | None:
    """Random numbers of one answer; None for a greedy one."""
    if settings.temperature == 0:
        return None
    seed = secrets.randbits(63) if settings.seed is None else settings.seed % (1 << 63)
    return torch.Generator().manual_seed(seed)


def next_tokens(
    logits: Tensor, settings: Sequence[Settings], generators: Sequence[torch.Generator | None]
) -> list[int]:
    """Next token of each row for logits [B, V]; a row's random numbers do not depend on its neighbours."""
    found: list[int] = logits.argmax(-1).tolist()
    for row, (own, generator) in enumerate(zip(settings, generators, strict=True)):
        if generator is not None:
            found[row] = _drawn(logits[row], own, generator)
    return found


def _drawn(logits: Tensor, settings: Settings, generator: torch.Generator) -> int:
    """A token by temperature and top_p: the most likely tokens up to this share of the probability, at least one."""
    shares = (logits.double() / settings.temperature).softmax(-1).cpu()
    if settings.top_p < 1:
        ordered, ids = shares.sort(descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill((before >= settings.top_p) & (before > 0), 0)
        return int(ids[torch.multinomial(ordered, 1, generator=generator)])
    return int(torch.multinomial(shares, 1, generator=generator))


def rated(logits: Tensor, ids: Sequence[int], most: int) -> list[Token]:
    """Tokens with log-likelihoods for logits [N, V] that predict them; `most`: number of most likely ones."""
    logs = logits.float().log_softmax(-1)
    chosen = torch.tensor(ids, device=logs.device).unsqueeze(-1)
    own = logs.gather(-1, chosen).squeeze(-1).tolist()
    values, best = (each.tolist() for each in logs.topk(min(most, logs.shape[-1]), dim=-1))
    found = []
    for token, value, tops, names in zip(ids, own, values, best, strict=True):
        top = list(zip(names, tops, strict=True))
        found.append(Token(token, value, tuple(top if token in names else [*top, (token, value)])))
    return found
