"""Inputs that a certificate compares: text of many kinds, and text near the task of the extension.

Everything is drawn from fixed seeds, so that a certificate can be repeated.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from moextend.certificate.record import InputSet
from moextend.certificate.watch import Item, fits
from moextend.data.conversations import Conversation
from moextend.extension import task_inference
from moextend.extension.effect import GENERIC
from moextend.model.generation import Prompt
from moextend.model.marks import without_marks
from moextend.model.multimodal import MultimodalLM
from moextend.util import files

SEED = 20408
CRAFTED_TOKENS = 8
"""Length of a crafted text in tokens."""
ANSWER = "It is not known."
"""Answer of inputs that have none."""
MOST_CANDIDATES = 20_000
"""Tokens that crafted texts are made of at most: those with the largest product with the mean embedding."""
COMMON = 0.5
"""Share of the questions that a word must be in to belong to their form."""

_PLACES = ("Norway", "Chile", "the old town", "a small island", "the north", "Kenya", "the valley", "Japan")
_THINGS = ("bridge", "river", "engine", "letter", "garden", "violin", "market", "cloud", "contract", "stone")
_NAMES = ("Maria", "Ahmed", "the doctor", "my neighbour", "Professor Lin", "the youngest child", "Olga")
_VERBS = ("repaired", "forgot", "described", "sold", "found", "painted", "measured", "returned")
_FRAMES = (
    ("{name} {verb} the {thing} in {place}, because", "there was no other way."),
    ("Question: What is {a} plus {b}?\nAnswer:", "{c}"),
    ("Translate into German: The {thing} is in {place}.", "Das weiß ich nicht."),
    ('{{"name": "{thing}", "count": {a}, "place":', '"{place}"}}'),
    ("def {plain}_count(items):\n    total = {a}\n    for item in items:", "total += 1"),
    ("Write one sentence about a {thing}.", "The {thing} was older than {name}."),
    ("{a} people visited {place} last year, and", "most of them saw the {thing}."),
    ("Is it true that {name} {verb} a {thing}? Answer yes or no.", "no"),
)


@dataclass(frozen=True)
class Set:
    """Inputs with a name."""

    name: str
    meaning: str
    items: list[Item]

    def described(self) -> InputSet:
        """Its record."""
        values = [
            [one.prompt.text, one.answer, [medium.digest for medium in one.prompt.media]]
            for one in self.items
        ]
        return InputSet(
            name=self.name, meaning=self.meaning, items=len(self.items), digest=files.digest(values)
        )


def far_sets(model: MultimodalLM, count: int, own: Sequence[Conversation] = ()) -> list[Set]:
    """Text that has nothing to do with the task: sentences, random tokens, and texts of the user.

    Args:
        count: inputs, half of them sentences and half random tokens. own: texts of the user, as many.
    """
    drawn = random.Random(SEED)
    sentences = [Item(Prompt(text), answer) for text, answer in GENERIC]
    while len(sentences) < count:
        sentences.append(_sentence(drawn))
    words = [Item(Prompt(text), ANSWER) for text in _random_texts(model, count, drawn)]
    found = [
        Set(
            "sentences", "sentences, sums, code and questions from templates", sentences[: count - count // 2]
        ),
        Set("random tokens", "random tokens of the vocabulary", words[: count // 2]),
    ]
    if own:
        found.append(Set("your text", "the texts of --text", items_of(own, text_only=True)[:count]))
    return _usable(model, found)


def near_sets(
    model: MultimodalLM,
    folder: Path,
    count: int,
    own: Sequence[Conversation] = (),
    near: Sequence[Conversation] = (),
) -> tuple[list[Set], list[Set]]:
    """Inputs that are near the task and not its own, and inputs that are its own.

    Where the task has media, its questions as text alone and in other words are near; where it is text, they are its
    own, and only their words in another order and other words in their form are near. Crafted texts come from the
    task statistics in `folder`, so they need no data.

    Args:
        count: inputs of a set at most. own: data of the task. near: other data, such as those of other extensions.
    """
    asked, drawn = items_of(own)[:count], random.Random(SEED + 1)
    texts = [Item(Prompt(text), each.answer) for each in asked if (text := _text_of(each))]
    reworded = [Item(Prompt(_reworded(one.prompt.text, drawn)), one.answer) for one in texts]
    as_text = [
        Set("questions as text", "questions of the task without their media", texts),
        Set("reworded", "these questions in other words", reworded),
    ]
    is_text = not any(each.prompt.media for each in asked)
    close = [
        Set("same words", "the words of the questions in another order", _shuffled(texts, drawn)),
        Set("same form", "other words in the form of the questions", _same_form(model, texts, drawn)),
        Set("crafted", "texts that are made to resemble the task statistics", _crafted(model, folder, count)),
        Set("near data", "inputs of --near", items_of(near)[:count]),
    ]
    mine = [Set("own", "questions of the task", asked)]
    if is_text:
        return _usable(model, close), _usable(model, [mine[0], as_text[1]])
    return _usable(model, [*as_text, *close]), _usable(model, mine)


def items_of(conversations: Sequence[Conversation], *, text_only: bool = False) -> list[Item]:
    """First turns as inputs, each one once; of plain texts the first half is the input."""
    found: dict[tuple[str, str, tuple[str, ...]], Item] = {}
    for row in conversations:
        for text, answer in row.turns[:1]:
            asked = Prompt.first(row)
            if not text:
                words = answer.split(" ")
                half = max(1, len(words) // 2)
                asked, answer = Prompt(" ".join(words[:half])), " ".join(words[half:])
            if text_only:
                asked = replace(asked, text=without_marks(asked.text, asked.media).strip(), media=())
            key = (asked.system, asked.text, tuple(medium.digest for medium in asked.media))
            found.setdefault(key, Item(asked, answer.strip() or ANSWER))
    return list(found.values())


def _usable(model: MultimodalLM, sets: Sequence[Set]) -> list[Set]:
    """Sets without inputs that are too long, or of a modality that the model lacks; empty sets are left out."""
    found = []
    for one in sets:
        known = [each for each in one.items if all(m.modality in model.modalities for m in each.prompt.media)]
        items = [each for each in known if fits(model, each)]
        if items:
            found.append(Set(one.name, one.meaning, items))
    return found


def _sentence(drawn: random.Random) -> Item:
    frame, answer = drawn.choice(_FRAMES)
    a, b, thing = drawn.randrange(100), drawn.randrange(100), drawn.choice(_THINGS)
    words = {
        "a": a, "b": b, "c": a + b, "thing": thing, "plain": thing, "name": drawn.choice(_NAMES),
        "place": drawn.choice(_PLACES), "verb": drawn.choice(_VERBS),
    }  # fmt: skip
    text = frame.format(**words)
    return Item(Prompt(text[0].upper() + text[1:] if text[0].isalpha() else text), answer.format(**words))


def _random_texts(model: MultimodalLM, count: int, drawn: random.Random) -> list[str]:
    """Texts of random tokens, without special ones."""
    ordinary = _ordinary(model)
    texts = [
        model.tokenizer.decode([drawn.choice(ordinary) for _ in range(drawn.randint(3, 20))])
        for _ in range(count)
    ]
    return [clean for text in texts if (clean := without_marks(text).strip())]


def _ordinary(model: MultimodalLM) -> list[int]:
    """Ids of tokens that are not special, and that decode to something."""
    special, size = set(model.tokenizer.all_special_ids), model.lm.get_input_embeddings().weight.shape[0]
    return [i for i in range(min(size, len(model.tokenizer))) if i not in special]


def _text_of(item: Item) -> str:
    return " ".join(without_marks(item.prompt.text, item.prompt.media).split())


def _reworded(text: str, drawn: random.Random) -> str:
    forms = ("Please answer this. {}", "{} Give a short answer.", "I would like to know: {}", "Tell me, {}")
    return drawn.choice(forms).format(text)


def _shuffled(texts: Sequence[Item], drawn: random.Random) -> list[Item]:
    """The words in another order; a text of which all orders are equal is left out."""
    found = {}
    for one in texts:
        words = one.prompt.text.split()
        before = list(words)
        drawn.shuffle(words)
        if words != before:
            found[" ".join(words)] = Item(Prompt(" ".join(words)), one.answer)
    return list(found.values())


def _same_form(model: MultimodalLM, texts: Sequence[Item], drawn: random.Random) -> list[Item]:
    """The words that most questions have, with random words instead of the others."""
    rows = [one.prompt.text.split() for one in texts]
    counts = Counter(word for row in rows for word in set(row))
    form = {word for word, times in counts.items() if times > COMMON * len(rows)}
    ordinary, found = _ordinary(model), {}
    for row, one in zip(rows, texts, strict=True):
        if all(word in form for word in row):
            continue
        other = (re.sub(r"\W", "", model.tokenizer.decode([drawn.choice(ordinary)])) or "x" for _ in row)
        text = " ".join(word if word in form else next(other) for word in row)
        found[text] = Item(Prompt(text), one.answer)
    return list(found.values())


@torch.no_grad()
def _crafted(model: MultimodalLM, folder: Path, count: int) -> list[Item]:
    """Texts whose mean embedding is near that of a held-out input of the extension: greedy choice of tokens.

    They show whether text can reach the extension at all, whatever its statistics are.
    """
    if task_inference.find(folder) is None:
        return []
    statistics, table = task_inference.read(folder), model.lm.get_input_embeddings().weight
    places, width = torch.tensor(_ordinary(model), device=table.device), table.shape[1]
    if len(places) > MOST_CANDIDATES:  # a copy of a large table as float32 would take gigabytes
        towards = table @ statistics.mean[:width].to(table.device, table.dtype)
        places = places[towards[places].topk(MOST_CANDIDATES).indices]
    rows = table[places].float()
    targets = [statistics.mean, *statistics.sample][: max(1, count // 2)]
    found: dict[str, Item] = {}
    for target in targets:
        ids = _nearest(rows, target[:width].to(table.device).float())
        text = without_marks(model.tokenizer.decode(places[ids].tolist())).strip()
        if text:
            found[text] = Item(Prompt(text), ANSWER)
    return list(found.values())


def _nearest(table: torch.Tensor, target: torch.Tensor) -> list[int]:
    """Rows of `table` [V, H] whose mean comes nearest to `target` [H], chosen one after the other."""
    best, chosen, total, nearest = float("inf"), list[int](), torch.zeros_like(target), list[int]()
    norms = table.square().sum(1)
    for length in range(1, CRAFTED_TOKENS + 1):
        wanted = target * length - total
        row = int((norms - 2 * (table @ wanted)).argmin())
        chosen.append(row)
        total = total + table[row]
        far = float((total / length - target).square().sum())
        if far < best:
            best, nearest = far, list(chosen)
    return nearest
