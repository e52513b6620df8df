"""Inputs that a certificate compares, and what a model does with them: text of many kinds, and inputs near the task of
the extension. They are drawn from fixed seeds, so that a certificate can be repeated."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from moextend.certificate.record import Compared, InputSet
from moextend.data.conversations import Conversation
from moextend.extension.effect import GENERIC
from moextend.extension.probe import used_experts
from moextend.model.feature_cache import sources_of
from moextend.model.generation import Prompt, choice_rows, each_by_its_own, generate, prompt_ids
from moextend.model.messages import without_marks
from moextend.model.modality import gather
from moextend.model.multimodal import MultimodalLM
from moextend.moe.sites import Site, find_sites
from moextend.util import files

SEED = 20408
NEW_TOKENS = 12
"""Length of a greedy answer in tokens."""
ANSWER = "It is not known."
"""Answer of inputs that have none."""


@dataclass(frozen=True)
class Item:
    """An input, and an answer whose log-likelihood is compared."""

    prompt: Prompt
    answer: str


@dataclass(frozen=True)
class Set:
    """Inputs with a name."""

    name: str
    items: list[Item]

    def described(self) -> InputSet:
        """Its record."""
        values = [[i.prompt.text, i.answer, [medium.digest for medium in i.prompt.media]] for i in self.items]
        return InputSet(name=self.name, items=len(self.items), digest=files.digest(values))


@dataclass(frozen=True)
class Seen:
    """What a model does with an input."""

    logits: str
    """SHA-256 of the logits at all positions of input and answer, in their own number type."""
    likelihood: float
    """Log-likelihood of the answer, in nats."""
    answer: str
    """Greedy answer."""
    reached: bool
    """Whether a token used a new expert of the extension."""


def far_sets(model: MultimodalLM, count: int) -> list[Set]:
    """`count` texts that have nothing to do with the task, half of them sentences and half random tokens."""
    drawn, special = random.Random(SEED), set(model.tokenizer.all_special_ids)
    size = min(model.lm.get_input_embeddings().weight.shape[0], len(model.tokenizer))
    ordinary = [i for i in range(size) if i not in special]
    rows = ([drawn.choice(ordinary) for _ in range(drawn.randint(3, 20))] for _ in range(count))
    tokens = (without_marks(model.tokenizer.decode(row)).strip() for row in rows)
    texts = dict(GENERIC) | {f"{a} {b} {c}": d for c, d in GENERIC for a, b in GENERIC}
    sets = [
        _set("sentences", texts, count - count // 2),
        _set("random tokens", dict.fromkeys(tokens, ANSWER), count // 2),
    ]
    return _usable(model, sets)


def near_sets(
    model: MultimodalLM, count: int, own: Sequence[Conversation], near: Sequence[Conversation]
) -> dict[str, list[Set]]:
    """Inputs that are near the task and not its own, and inputs that are its own (`own`).

    Near are its questions without their media, and their words in another order.

    Args:
        count: inputs of a set at most. own: data of the task. near: other data, such as those of other extensions.
    """
    asked, drawn = _items_of(own)[:count], random.Random(SEED + 1)
    plain = (" ".join(without_marks(one.prompt.text, one.prompt.media).split()) for one in asked)
    texts = {text: one.answer for text, one in zip(plain, asked, strict=True) if text}
    others = {words: texts[text] for text in texts if (words := _shuffled(text, drawn)) != text}
    close = [_set("same words", others, count), Set("near data", _items_of(near)[:count])]
    if any(one.prompt.media for one in asked):
        close.insert(0, _set("questions as text", texts, count))
    return {"near": _usable(model, close), "own": _usable(model, [Set("own", asked)])}


def _shuffled(text: str, drawn: random.Random) -> str:
    words = text.split()
    drawn.shuffle(words)
    return " ".join(words)


def _set(name: str, texts: Mapping[str, str], count: int) -> Set:
    """A set of the first texts (text -> answer)."""
    return Set(name, [Item(Prompt(text), answer) for text, answer in texts.items() if text][:count])


def _items_of(conversations: Sequence[Conversation]) -> list[Item]:
    """First turns as inputs, each one once; of plain texts the first half is the input."""
    found: dict[tuple[str, str, tuple[str, ...]], Item] = {}
    for row in conversations:
        asked, (text, answer) = Prompt.first(row), row.turns[0]
        if not text:
            words = answer.split(" ")
            half = max(1, len(words) // 2)
            asked, answer = Prompt(" ".join(words[:half])), " ".join(words[half:])
        key = (asked.system, asked.text, tuple(medium.digest for medium in asked.media))
        found.setdefault(key, Item(asked, answer.strip() or ANSWER))
    return list(found.values())


def _usable(model: MultimodalLM, sets: Sequence[Set]) -> list[Set]:
    """Sets without inputs that are too long, or of a modality that the model lacks; empty sets are left out."""

    def fits(item: Item) -> bool:
        if any(medium.modality not in model.modalities for medium in item.prompt.media):
            return False
        length = len(prompt_ids(model, item.prompt))
        longest = NEW_TOKENS + len(model.tokenizer(f" {item.answer}")["input_ids"])
        return length > 0 and (model.context is None or length + longest <= model.context)

    found = [Set(one.name, [item for item in one.items if fits(item)]) for one in sets]
    return [one for one in found if one.items]


def compared(before: Mapping[str, list[Seen]], after: Mapping[str, list[Seen]]) -> list[Compared]:
    """Comparison of the same inputs before and after, set by set."""
    each = {name: list(zip(before[name], seen, strict=True)) for name, seen in after.items()}
    return [
        Compared(
            name=name, items=len(pairs), inputs_reached=sum(b.reached for _, b in pairs),
            logits_changed=sum(a.logits != b.logits for a, b in pairs),
            answers_changed=sum(a.answer != b.answer for a, b in pairs),
            largest_change=max((abs(a.likelihood - b.likelihood) for a, b in pairs), default=0.0),
        )
        for name, pairs in each.items()
    ]  # fmt: skip


def watched(model: MultimodalLM, sets: Sequence[Set], name: str = "") -> dict[str, list[Seen]]:
    """What the model does with each set as it is now; `name`: extension whose use is counted.

    One forward pass of input and answer, alone in its batch, gives all but the greedy answers, which are computed in
    batches. A batch is the same before and after unless an input of it reaches the extension, which is counted for
    itself.
    """
    found = {}
    for one in sets:
        prompts = [item.prompt for item in one.items]
        answers = generate(model, prompts, max_new_tokens=NEW_TOKENS, batch_size=16)
        found[one.name] = [_seen(model, *each, name) for each in zip(one.items, answers, strict=True)]
    return found


def _seen(model: MultimodalLM, item: Item, answer: str, name: str) -> Seen:
    reached: list[bool] = []

    def look(site: Site, x: Any, out: Any) -> None:
        used = used_experts(site, x, out).get(name)
        reached.append(used is not None and bool(used.any()))

    with ExitStack() as hooks:
        for site in find_sites(model.lm):
            if name in getattr(site.router, "ext_parts", {}):
                hook = site.router.register_forward_hook(
                    lambda module, args, out, site=site: look(site, args[0], out)
                )
                hooks.callback(hook.remove)
        ((logits, likelihood),) = each_by_its_own(model, [item.prompt], lambda _: [_rated(model, item)])
    return Seen(logits, likelihood, answer, any(reached))


@torch.no_grad()
def _rated(model: MultimodalLM, item: Item) -> tuple[str, float]:
    """SHA-256 of the logits of input and answer, and log-likelihood of the answer."""
    (row,) = choice_rows(model, 0, item.prompt, [item.answer])
    ids = torch.tensor([row.ids], device=model.device)
    features = gather(row.media, sources_of(model))
    logits = model(ids, torch.ones_like(ids), features=features)["logits"]
    raw = logits.cpu().contiguous().flatten().view(torch.uint8)
    start = max(1, row.start)
    steps = logits[0, start - 1 : -1].float().log_softmax(-1).gather(-1, ids[0, start:, None])
    return hashlib.sha256(memoryview(raw.numpy().data)).hexdigest(), float(steps.sum())
