"""A task looked at before it costs anything: its data opened, one example rendered and scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from moextend.bench.data.items import Item, prompt_text
from moextend.bench.data.open import open_items
from moextend.bench.scorers import Answered, find_scorer, own_answer, score_set
from moextend.bench.task import TaskSpec
from moextend.errors import InputError

_TRIED = 50
"""Items among which one must be found whose own answer scores 1 (annotators may disagree on single ones)."""


@dataclass(frozen=True)
class Checked:
    """What was found."""

    items: dict[str, int]
    """Split -> number of items."""
    prompt: str
    """One example, as the model would read it."""
    answer: str
    """What scores 1 for this example."""
    columns: tuple[str, ...]


def check_task(task: TaskSpec, workspace: Path) -> Checked:
    """What a vqa or caption task holds; InputError where its data, prompt or scorer do not fit together."""
    task.refuse_needs()
    test = open_items(task, "test", workspace)
    sizes = {"test": len(test)}
    samples = [test]
    if task.data is not None and task.data.train is not None:
        train = open_items(task, "train", workspace)
        sizes = {"train": len(train), **sizes}
        samples.append(train)
    for items in samples:
        _open_images(items[0])
        prompt_text(task, items[0])
    example, answer = _scored(task, test)
    return Checked(sizes, prompt_text(task, example), answer, test.columns)


def _open_images(item: Item) -> None:
    for image in item.images:
        image.open()


def _scored(task: TaskSpec, items: Sequence[Item]) -> tuple[Item, str]:
    """The first item whose own answer scores all that it can, and that answer."""
    where = f"{task.path or task.task}: scorer"
    scorer = find_scorer(task.scorer, where=where)
    tried = list(islice(items, _TRIED))
    answers = [own_answer(scorer.name, item) for item in tried]
    found = score_set(
        scorer.name, [Answered.by(answer, item) for item, answer in zip(tried, answers, strict=True)]
    )
    best = 0.0
    for item, answer, value in zip(tried, answers, found.items, strict=True):
        # Where references are averaged, or few items make all words common, less than the top is all there is.
        if value is not None and (value >= scorer.top or (value > 0 and not scorer.own_is_top)):
            return item, answer
        best = max(best, value or 0.0)
    raise InputError(
        f"'{scorer.name}' gives an item's own answer {best:.2f} at the most, not {scorer.top:.0f} "
        f"({items[0].row}: {items[0].answers[0]!r}).",
        where=where,
        mend="Choose a scorer that fits the answers, or set columns.choices.",
    )
