"""The majority answer: what can be scored without the image or the sound."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from moextend.bench.data import Item, open_items
from moextend.bench.scorers import Answered, find_scorer, is_lettered, own_answer, score_set
from moextend.bench.task import TaskSpec

SUPPORT = 10
"""Training questions that make a question form."""
LONGEST = 8
"""First words of a question that are tried as its form."""
_BETWEEN = re.compile(r"[\W_]+")


def normalised(text: str) -> str:
    """Lower-case words, one space between them."""
    return _BETWEEN.sub(" ", text.casefold()).strip()


class Majority:
    """Answers a question by the most common training answer to questions of its form.

    The form is the longest beginning of the question that 10 training questions share, else the kind of the item, else
    nothing: the prior per question type of Antol et al. (2015).
    """

    def __init__(self, task: TaskSpec, train: Iterable[Item]) -> None:
        self._lettered = is_lettered(task.scorer)
        self._counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for item in train:
            answer = own_answer(task.scorer, item)
            for form in question_forms(item):
                self._counts[form][answer] += 1

    def __call__(self, item: Item) -> str:
        """The answer; of a question with choices that are texts, the most common one of them."""
        options = None if self._lettered or not item.choices else set(item.choices)
        for form in question_forms(item):
            counts = self._counts.get(form, Counter())
            if form and counts.total() < SUPPORT:
                continue
            known = [answer for answer, _ in counts.most_common() if options is None or answer in options]
            if known:
                return known[0]
        return item.choices[0] if item.choices else ""

    @property
    def answers(self) -> list[str]:
        """All training answers, most common first."""
        return [answer for answer, _ in self._counts[()].most_common()]


def question_forms(item: Item) -> Iterator[tuple[str, ...]]:
    """Forms of a question, the most special one first."""
    words = tuple(normalised(item.question).split()[:LONGEST])
    for length in range(len(words), 0, -1):
        yield ("question", *words[:length])
    if item.kind is not None:
        yield ("kind", item.kind)
    yield ()


def majority_level(task: TaskSpec, workspace: Path, limit: int | None = None) -> float | None:
    """Percent that the majority answer reaches on the first `limit` test items; None without training items."""
    if task.data is None or task.data.train is None:
        return None
    majority = Majority(task, open_items(task, "train", workspace, media=False))
    test = open_items(task, "test", workspace, limit, media=find_scorer(task.scorer).by_image)
    return 100 * score_set(task.scorer, [Answered.by(majority(item), item) for item in test]).value
