"""Checks a task before a run: opens its data, renders one example and scores it."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from moextend.bench.data.items import Item, prompt_text, target_text
from moextend.bench.data.open import at_key, check_gold, open_items, open_table
from moextend.bench.data.source import SPLITS, Split
from moextend.bench.scorers import Answered, find_scorer, is_lettered, own_answer, score_set
from moextend.bench.scorers.rules import gold_position
from moextend.bench.task import TaskSpec
from moextend.data import modalities
from moextend.data.digests import FileDigests
from moextend.errors import InputError
from moextend.util import content

_SHOWN = 5
"""Number of words in a warning."""


_LETTER = re.compile(
    r"\b(?:option|choice)s?\W+(?:\w+\W+){0,3}letter\b|\bletter\W+(?:\w+\W+){0,4}(?:option|choice)|"
    r"\banswer\W+with\W+(?:\w+\W+){0,2}letter\b|选项字母",
    re.IGNORECASE,
)
"""Pattern of prompts that ask for the letter of a choice."""
_LETTERS = frozenset(string.ascii_uppercase)
_READ = 500
"""Number of items per split whose answers are read."""
_TRIED = 50
"""Number of items of which at least one must score 1 with its own answer (annotators may disagree on some)."""


def unknown_words(texts: Sequence[str], base: str) -> Counter[str]:
    """Words of the texts that the tokenizer of a base of the package does not know, with their numbers.

    None for another base: the tokenizers of large models can encode every text.
    """
    path = content.package_folder("registry") / "models" / base / "lm" / "tokenizer.json"
    words: Counter[str] = Counter()
    if "/" not in base and path.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(path))
        unknown = tokenizer.model.unk_token
        for text, encoding in zip(texts, tokenizer.encode_batch(list(texts)), strict=True):
            places = zip(encoding.tokens, encoding.offsets, strict=True)
            words.update(text[first:last].strip() for token, (first, last) in places if token == unknown)
    return words


@dataclass(frozen=True)
class Checked:
    """Result of the check of a task."""

    items: dict[str, int]
    """Split -> number of items."""
    prompt: str
    """One example, as the model reads it."""
    answer: str
    """Answer that scores 1 for this example."""
    columns: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """Warnings: valid settings that are probably mistakes."""


def check_task(task: TaskSpec, workspace: Path, base: str | None = None) -> Checked:
    """Checks a vqa or caption task. Raises InputError if its data, prompt and scorer do not fit together.

    Args: base: model whose tokenizer should know the words of the task.
    """
    task.refuse_needs()
    test = open_items(task, "test", workspace, strict=False)
    sizes = {"test": len(test)}
    samples, read, same = [test], list[Split](("test",)), False
    if task.data is not None and task.data.train is not None:
        train = open_items(task, "train", workspace, strict=False)
        sizes = {"train": len(train), **sizes}
        samples.append(train)
        read.append("train")
        same = _overlap(task, workspace)
    for items in samples:
        for medium in items[0].media:
            medium.open()
        prompt_text(task, items[0])
    first = {
        split: list(islice(open_items(task, split, workspace, media=False, strict=False), _READ))
        for split in read
    }
    for looked_at in first.values():
        _answerable(task, looked_at)
    warnings = tuple(_warnings(task, first["test"], base))
    if same:
        memorised = "train and test have the same rows: the score is that of memorised answers (data.train, data.test)."
        warnings = (memorised, *warnings)
    example, answer = _scored(task, test)
    shown = prompt_text(task, example)
    return Checked(sizes, shown, answer, test.columns, warnings)


def _overlap(task: TaskSpec, workspace: Path) -> bool:
    """Whether training and test items overlap: the same split, overlapping parts, or files with equal content."""
    train, test = (open_table(task, split, workspace) for split in SPLITS)
    if train.part.is_apart(test.part) or [path.stat().st_size for path in train.files] != [
        path.stat().st_size for path in test.files
    ]:
        return False
    if train.part.split == test.part.split:
        return True
    with FileDigests(workspace / ".cache") as known:
        return bool(train.files) and [*map(known.of, train.files)] == [*map(known.of, test.files)]


def _answerable(task: TaskSpec, items: Sequence[Item]) -> None:
    """Raises InputError if the gold answers do not have the form that the prompt or the scorer asks for."""
    lettered = [item for item in items if _LETTER.search(task.layout.template(item.choices))]
    others = [item for item in lettered if gold_position(item) is None]
    if others:
        first = others[0]
        digits = all(item.answers[0].strip().isdecimal() for item in others)
        how = "Positions count from 0. " if digits and first.choices else ""
        raise InputError(
            f"asks for a letter, but {len(others)} of {len(lettered)} answers are neither a letter nor a choice "
            f"({first.row}: {first.answers[0]!r}).",
            where=at_key(task, "prompt"),
            hint=f"{how}Set answer_as (letter, position, text), or ask for something else.",
        )
    if is_lettered(task.scorer) and all(
        item.choices is None and gold_position(item) is None for item in items
    ):
        raise InputError(
            f"'{task.scorer}' reads letters, but no answer is a letter or a choice ({items[0].row}: "
            f"{items[0].answers[0]!r}).",
            where=at_key(task, "scorer"),
            hint="Set columns.choices, or choose another scorer, such as exact@1.",
        )
    for item in items if is_lettered(task.scorer) else ():
        check_gold(task, item)
    texts = [item for item in lettered if item.choices and own_answer(task.scorer, item) not in _LETTERS]
    if texts:
        raise InputError(
            f"asks for a letter, but '{task.scorer}' compares it with the text of a choice ({texts[0].row}).",
            where=at_key(task, "scorer"),
            hint="Choose a scorer that reads letters, such as option@4.",
        )


def _warnings(task: TaskSpec, items: Sequence[Item], base: str | None) -> Iterator[str]:
    numbers = {item.answers[0] for item in items if item.choices and item.answers[0].strip().isdecimal()}
    if task.answer_as is None and numbers and all(item.answers[0] in (item.choices or ()) for item in items):
        yield (
            "answers are numbers that occur among the choices. They are read as the text of choices; for "
            "positions, set answer_as: position."
        )
    if not task.columns.by_modality:
        yield "there is no column of images or sounds: the questions are only text."
    if base is not None:
        yield from _unknown(task, items, base)


def _unknown(task: TaskSpec, items: Sequence[Item], base: str) -> Iterator[str]:
    by_column = {"answers": [target_text(task, item) for item in items]}
    by_column["prompts"] = [modalities.stripped(prompt_text(task, item)) for item in items]
    for name, texts in by_column.items():
        if found := unknown_words(texts, base):
            most = ", ".join(repr(word) for word, _ in found.most_common(_SHOWN))
            yield f"the {name} have {len(found)} words that the tokenizer of '{base}' does not know, such as {most}."


def _scored(task: TaskSpec, items: Sequence[Item]) -> tuple[Item, str]:
    """The first item whose own answer gets the top score, and this answer."""
    where = at_key(task, "scorer")
    scorer = find_scorer(task.scorer, where=where)
    tried = list(islice(items, _TRIED))
    answers = [own_answer(scorer.name, item) for item in tried]
    found = score_set(
        scorer.name, [Answered.by(answer, item) for item, answer in zip(tried, answers, strict=True)]
    )
    best = 0.0
    for item, answer, value in zip(tried, answers, found.items, strict=True):
        # The best score is below the top if references are averaged, or if few items make all words common.
        if value is not None and (value >= scorer.top or (value > 0 and not scorer.own_is_top)):
            return item, answer
        best = max(best, value or 0.0)
    if scorer.items is not None and best == 0:
        count = "the only test item scores" if len(items) == 1 else f"all {len(items)} test items score"
        raise InputError(
            f"'{scorer.name}' compares the test items with one another: {count} 0 with the right answer.",
            where=where,
            hint="Use more or more varied test data, or a scorer of single items, such as rouge-l@1 (--scorer).",
        )
    raise InputError(
        f"'{scorer.name}' gives an item's own answer at most {best:.2f}, not {scorer.top:.0f} "
        f"({items[0].row}: {items[0].answers[0]!r}).",
        where=where,
        hint="Choose a scorer that fits the answers, or set columns.choices.",
    )
