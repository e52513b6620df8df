"""Inputs that a certificate compares, and what a model does with them.

Text of many kinds, and inputs near the task of the extension. Everything is drawn from fixed seeds, so that a
certificate can be repeated.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moextend.certificate.record import Compared, InputSet
from moextend.data.conversations import Conversation
from moextend.extension import task_inference
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
CRAFTED_TOKENS = 8
"""Length of a crafted text in tokens."""
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
    meaning: str
    items: list[Item]

    def described(self) -> InputSet:
        """Its record."""
        values = [[i.prompt.text, i.answer, [medium.digest for medium in i.prompt.media]] for i in self.items]
        return InputSet(
            name=self.name, meaning=self.meaning, items=len(self.items), digest=files.digest(values)
        )


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


def far_sets(model: MultimodalLM, count: int) -> list[Set]:
    """`count` texts that have nothing to do with the task, half of them sentences and half random tokens."""
    drawn, ordinary = random.Random(SEED), _ordinary(model)
    texts = dict(GENERIC) | {f"{a} {b} {c}": d for c, d in GENERIC for a, b in GENERIC}
    tokens = (
        _text_of(model, [drawn.choice(ordinary) for _ in range(drawn.randint(3, 20))]) for _ in range(count)
    )
    sets = [
        _set("sentences", "sentences of several kinds", texts, count - count // 2),
        _set("random tokens", "random tokens of the vocabulary", dict.fromkeys(tokens, ANSWER), count // 2),
    ]
    return _usable(model, sets)


def near_sets(
    model: MultimodalLM, folder: Path, count: int, own: Sequence[Conversation], near: Sequence[Conversation]
) -> dict[str, list[Set]]:
    """Inputs that are near the task and not its own, and inputs that are its own (`own`).

    Near are its questions without their media, and their words in another order. Crafted texts come from the task
    statistics in `folder`, so they need no data.

    Args:
        count: inputs of a set at most. own: data of the task. near: other data, such as those of other extensions.
    """
    asked, drawn = _items_of(own)[:count], random.Random(SEED + 1)
    plain = (" ".join(without_marks(one.prompt.text, one.prompt.media).split()) for one in asked)
    texts = {text: one.answer for text, one in zip(plain, asked, strict=True) if text}
    others = {words: texts[text] for text in texts if (words := _shuffled(text, drawn)) != text}
    crafted = dict.fromkeys(_crafted(model, folder, count), ANSWER)
    close = [
        _set("same words", "the words of the questions in another order", others, count),
        _set("crafted", "texts that are made to resemble the task statistics", crafted, count),
        Set("near data", "inputs of --near", _items_of(near)[:count]),
    ]
    if any(one.prompt.media for one in asked):
        close.insert(0, _set("questions as text", "questions of the task without their media", texts, count))
    mine = [Set("own", "questions of the task", asked)]
    return {"near": _usable(model, close), "own": _usable(model, mine)}


def _shuffled(text: str, drawn: random.Random) -> str:
    words = text.split()
    drawn.shuffle(words)
    return " ".join(words)


def _set(name: str, meaning: str, texts: Mapping[str, str], count: int) -> Set:
    """A set of the first texts (text -> answer)."""
    items = [Item(Prompt(text), answer) for text, answer in texts.items() if text]
    return Set(name, meaning, items[:count])


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

    found = [Set(one.name, one.meaning, [item for item in one.items if fits(item)]) for one in sets]
    return [one for one in found if one.items]


def _ordinary(model: MultimodalLM) -> list[int]:
    """Ids of tokens that are not special."""
    special, size = set(model.tokenizer.all_special_ids), model.lm.get_input_embeddings().weight.shape[0]
    return [i for i in range(min(size, len(model.tokenizer))) if i not in special]


def _text_of(model: MultimodalLM, ids: Sequence[int]) -> str:
    return without_marks(model.tokenizer.decode(ids)).strip()


@torch.no_grad()
def _crafted(model: MultimodalLM, folder: Path, count: int) -> list[str]:
    """Texts whose mean embedding is near that of a held-out input of the extension: greedy choice of tokens.

    They show whether text can reach the extension at all, whatever its statistics are.
    """
    if task_inference.find(folder) is None:
        return []
    statistics, table = task_inference.read(folder), model.lm.get_input_embeddings().weight
    places = _ordinary(model)
    barred = torch.ones(len(table), dtype=torch.bool, device=table.device)
    barred[places] = False
    norms = table.norm(dim=1, dtype=torch.float32).square().masked_fill(barred, float("inf"))
    found = []
    for target in [statistics.mean, *statistics.sample][: max(1, count // 2)]:
        wanted = target[: table.shape[1]].to(table.device).float()
        best, ids, nearest, total = float("inf"), list[int](), list[int](), torch.zeros_like(wanted)
        for length in range(1, CRAFTED_TOKENS + 1):
            left = (wanted * length - total).to(table.dtype)  # no copy of a large table as float32
            ids.append(int((norms - 2 * (table @ left)).argmin()))
            total = total + table[ids[-1]].float()
            far = float((total / length - wanted).square().sum())
            if far < best:
                best, nearest = far, list(ids)
        if text := _text_of(model, nearest):
            found.append(text)
    return found


def compared(before: Mapping[str, list[Seen]], after: Mapping[str, list[Seen]]) -> list[Compared]:
    """Comparison of the same inputs before and after, set by set."""
    each = {name: list(zip(before[name], seen, strict=True)) for name, seen in after.items()}
    return [
        Compared(
            name=name, items=len(pairs), tokens=sum(b.tokens for _, b in pairs),
            inputs_reached=sum(b.reached > 0 for _, b in pairs), tokens_reached=sum(b.reached for _, b in pairs),
            logits_changed=sum(a.logits != b.logits for a, b in pairs),
            likelihoods_changed=sum(a.likelihood != b.likelihood for a, b in pairs),
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
        answers = generate(
            model, [item.prompt for item in one.items], max_new_tokens=NEW_TOKENS, batch_size=16
        )
        found[one.name] = [_seen(model, *each, name) for each in zip(one.items, answers, strict=True)]
    return found


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
        if name in getattr(site.router, "ext_parts", {})
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
