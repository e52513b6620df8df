"""What a model does with inputs: logits, log-likelihood, greedy answer, and use of new experts.

One forward pass of input and answer, alone in its batch, gives all but the greedy answers, which take most of the time
and are computed in batches. A batch is the same before and after unless an input of it reaches the extension, which is
counted for itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moextend.certificate.record import Compared
from moextend.extension.usage import used_experts
from moextend.model.feature_cache import sources_of
from moextend.model.generation import Prompt, each_by_its_own, generate, prompt_ids
from moextend.model.likelihood import choice_rows
from moextend.model.modality import gather
from moextend.model.multimodal import MultimodalLM
from moextend.moe.sites import Site, find_sites

NEW_TOKENS = 12
"""Length of a greedy answer in tokens."""
AT_ONCE = 16
"""Greedy answers in a batch."""


@dataclass(frozen=True)
class Item:
    """An input, and an answer whose log-likelihood is compared."""

    prompt: Prompt
    answer: str


@dataclass(frozen=True)
class Seen:
    """What a model does with an input."""

    logits: str
    """SHA-256 of the logits at all positions of input and answer, in their own number type."""
    likelihood: float
    """Log-likelihood of the answer, in nats."""
    answer: str
    """Greedy answer."""
    tokens: int
    reached: int
    """Tokens that used a new expert of the extension."""


def watch(model: MultimodalLM, items: Sequence[Item], name: str = "") -> list[Seen]:
    """What `model` does with each of the items.

    name: extension whose use is counted; "" or one that is not attached: none.
    """
    prompts = [item.prompt for item in items]
    answers = generate(model, prompts, max_new_tokens=NEW_TOKENS, batch_size=AT_ONCE)
    return [_seen(model, item, answer, name) for item, answer in zip(items, answers, strict=True)]


def fits(model: MultimodalLM, item: Item) -> bool:
    """Whether the input and an answer are within the model's context, and not empty."""
    length = len(prompt_ids(model, item.prompt))
    longest = NEW_TOKENS + len(model.tokenizer(f" {item.answer}")["input_ids"])
    return length > 0 and (model.context is None or length + longest <= model.context)


def compared(name: str, before: Sequence[Seen], after: Sequence[Seen]) -> Compared:
    """Comparison of the same inputs before and after."""
    pairs = list(zip(before, after, strict=True))
    return Compared(
        name=name,
        items=len(pairs),
        tokens=sum(b.tokens for _, b in pairs),
        inputs_reached=sum(b.reached > 0 for _, b in pairs),
        tokens_reached=sum(b.reached for _, b in pairs),
        logits_changed=sum(a.logits != b.logits for a, b in pairs),
        likelihoods_changed=sum(a.likelihood != b.likelihood for a, b in pairs),
        answers_changed=sum(a.answer != b.answer for a, b in pairs),
        largest_change=max((abs(a.likelihood - b.likelihood) for a, b in pairs), default=0.0),
    )


def _seen(model: MultimodalLM, item: Item, answer: str, name: str) -> Seen:
    with _counting(model, name) as reached:
        ((logits, likelihood, tokens),) = each_by_its_own(
            model, [item.prompt], lambda _: [_rated(model, item)]
        )
    count = int(torch.stack(reached).any(0).sum()) if reached else 0
    return Seen(logits, likelihood, answer, tokens, count)


@torch.no_grad()
def _rated(model: MultimodalLM, item: Item) -> tuple[str, float, int]:
    """SHA-256 of the logits of input and answer, log-likelihood of the answer, and the number of tokens."""
    (row,) = choice_rows(model, 0, item.prompt, [item.answer])
    ids = torch.tensor([row.ids], device=model.device)
    features = gather(row.media, sources_of(model, None))
    logits = model(ids, torch.ones_like(ids), features=features)["logits"]
    raw = logits.cpu().contiguous().flatten().view(torch.uint8)
    start = max(1, row.start)
    steps = logits[0, start - 1 : -1].float().log_softmax(-1).gather(-1, ids[0, start:, None])
    return hashlib.sha256(memoryview(raw.numpy().data)).hexdigest(), float(steps.sum()), ids.shape[1]


@contextmanager
def _counting(model: MultimodalLM, name: str) -> Iterator[list[Tensor]]:
    """Context that collects, for each router with rows of the extension, which tokens [T] use its experts."""
    found: list[Tensor] = []

    def look(site: Site, x: Tensor, out: Any) -> None:
        used = used_experts(site, x, out).get(name)
        if used is not None:
            found.append(used.any(1).cpu())

    hooks = [
        site.router.register_forward_hook(lambda module, args, out, site=site: look(site, args[0], out))
        for site in find_sites(model.lm)
        if name and name in getattr(site.router, "ext_parts", {})
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
