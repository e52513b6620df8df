"""Log-likelihoods of several continuations of one context, with one computation of the context.

lm-eval's own model computes context and continuation for every choice, with logits at every position. Here the contexts
of a batch are computed together with a key-value cache. Each choice continues from its context's cache, and the head is
applied only to the positions that predict its tokens. Padding is masked. The numbers equal lm-eval's up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from moextend.bench.score.text.lm import Answer, HarnessLM, Request, shared
from moextend.model import lm_head

_LOGITS = 2**25
"""Maximum number of logits in memory."""


@dataclass(frozen=True)
class Group:
    """One context and the requests that continue it."""

    context: Sequence[int]
    places: Sequence[int]
    """Indices of its requests."""
    choices: Sequence[Sequence[int]]


class SharedContext(HarnessLM):
    """`HarnessLM` that computes the context of several choices once; other requests are rated as lm-eval does it."""

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Answer]:
        groups, rest = _split(requests, self.max_length)
        others = [requests[place] for place in rest]
        rated_alone = super()._loglikelihood_tokens(others, disable_tqdm, override_bs) if others else []
        answers = dict(zip(rest, rated_alone, strict=True))
        group_of = {place: group for group in groups for place in group.places}

        def rated(places: Sequence[int]) -> list[Answer]:
            asked = list({id(group_of[place]): group_of[place] for place in places}.values())
            found = _score(self.model, asked, int(self.tokenizer.pad_token_id or 0), self.device)
            return [found[place] for place in places]

        batches = _batches(groups, override_bs or int(self.batch_size))
        answers |= shared(rated, [[place for group in batch for place in group.places] for batch in batches])
        return [answers[place] for place in range(len(requests))]


def _split(requests: Sequence[Request], longest: int) -> tuple[list[Group], list[int]]:
    """Groups of at least two choices that fit the model's length, and the indices of all other requests."""
    by_context: dict[tuple[int, ...], list[int]] = {}
    for place, (_, ids, _) in enumerate(requests):
        by_context.setdefault(tuple(ids), []).append(place)
    groups: list[Group] = []
    rest: list[int] = []
    for context, places in by_context.items():
        choices = [requests[place][2] for place in places]
        if len(places) > 1 and context and len(context) + max(map(len, choices)) <= longest:
            groups.append(Group(context, places, choices))
        else:
            rest += places
    return groups, rest


def _batches(groups: Sequence[Group], rows: int) -> Iterable[list[Group]]:
    """Batches of groups with similar length, the longest first; about `rows` choices per batch."""
    batch: list[Group] = []
    for group in sorted(groups, key=lambda group: (-len(group.context), group.places[0])):
        if batch and sum(len(one.choices) for one in batch) + len(group.choices) > rows:
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


@torch.no_grad()
def _score(lm: Any, groups: Sequence[Group], pad: int, device: Any) -> dict[int, Answer]:
    ids, mask = _padded([group.context for group in groups], pad, left=True, device=device)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    cache = DynamicCache(config=lm.config)
    decoder = lm_head.decoder(lm)
    kept = {lm_head.cache_name(lm): cache, "use_cache": True}
    out = decoder(input_ids=ids, attention_mask=mask, position_ids=positions, **kept)
    choices = [choice for group in groups for choice in group.choices]
    owner = torch.tensor([row for row, group in enumerate(groups) for _ in group.choices], device=device)
    states = [out.last_hidden_state[owner, -1:]]
    # The prediction after a choice's last token is not needed.
    inner, inner_mask = _padded([choice[:-1] for choice in choices], pad, left=False, device=device)
    if inner.shape[1]:
        cache.batch_select_indices(owner)
        length = torch.tensor([len(group.context) for group in groups], device=device)[owner]
        states.append(
            decoder(
                input_ids=inner,
                attention_mask=torch.cat([mask[owner], inner_mask], 1),
                position_ids=length[:, None] + torch.arange(inner.shape[1], device=device),
                **kept,
            ).last_hidden_state
        )
    targets, real = _padded(choices, pad, left=False, device=device)
    found = _answers(lm, torch.cat(states, 1)[real.bool()], targets[real.bool()])
    places = [place for group in groups for place in group.places]
    rows = real.nonzero()[:, 0]
    total = torch.zeros(len(choices), dtype=torch.float64, device=device).index_add_(
        0, rows, found[0].double()
    )
    missed = torch.zeros(len(choices), device=device).index_add_(0, rows, (~found[1]).float())
    return {
        place: (value, not wrong)
        for place, value, wrong in zip(places, total.tolist(), missed.tolist(), strict=True)
    }


def _padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool, device: Any) -> tuple[Tensor, Tensor]:
    """Ids and mask [rows, longest]."""
    width = max(map(len, rows))
    fill = [[pad] * (width - len(row)) for row in rows]
    marks = [[0] * len(part) for part in fill]
    ids = [[*part, *row] if left else [*row, *part] for row, part in zip(rows, fill, strict=True)]
    mask = [
        [*part, *[1] * len(row)] if left else [*[1] * len(row), *part]
        for row, part in zip(rows, marks, strict=True)
    ]
    return torch.tensor(ids, device=device).long(), torch.tensor(mask, device=device).long()


def _answers(lm: Any, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and whether it is the most likely token."""
    values, greedy = [], []
    each = max(1, _LOGITS // lm_head.text_config(lm.config).vocab_size)
    for start in range(0, len(states), each):
        logits = lm_head.logits(lm, states[start : start + each]).float()
        wanted = targets[start : start + each, None]
        values.append(logits.gather(1, wanted)[:, 0] - logits.logsumexp(-1))
        greedy.append(logits.argmax(-1) == wanted[:, 0])
    return torch.cat(values), torch.cat(greedy)
