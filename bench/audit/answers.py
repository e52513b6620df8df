"""What can be answered without the image or the sound: common answers, words of the question, places of options."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from moextend.bench.audit.texts import normalised
from moextend.bench.data import Item
from moextend.bench.scorers import is_lettered, own_answer
from moextend.bench.scorers.rules import gold_position
from moextend.bench.task import TaskSpec

SUPPORT = 10
"""Training questions that make a question form."""
LONGEST = 8
"""First words of a question that are tried as its form."""
MOST_ANSWERS = 1000
"""Different training answers; with more, answers are free text, which a question may well contain."""


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
            for form in _forms(item):
                self._counts[form][answer] += 1

    def __call__(self, item: Item) -> str:
        """The answer; of a question with choices that are texts, the most common one of them."""
        options = None if self._lettered or not item.choices else set(item.choices)
        for form in _forms(item):
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


def _forms(item: Item) -> Iterator[tuple[str, ...]]:
    """Forms of a question, the most special one first."""
    words = tuple(normalised(item.question).split()[:LONGEST])
    for length in range(len(words), 0, -1):
        yield ("question", *words[:length])
    if item.kind is not None:
        yield ("kind", item.kind)
    yield ()


def named_in_question(item: Item, answers: Collection[str]) -> str | None:
    """The answer that occurs in the question, if it is the only one of its choices, or of `answers`, that does."""
    options = item.choices or answers
    words = f" {normalised(item.question)} "
    found = {option for option in options if (form := normalised(option)) and f" {form} " in words}
    longest = [one for one in found if not any(one != other and one in other for other in found)]
    return longest[0] if len(longest) == 1 else None


@dataclass(frozen=True)
class Options:
    """How the right option is placed among the options of the test items."""

    items: int
    """Test items with options and a known right one."""
    chance: float
    """Percent that guessing reaches."""
    place: float
    """Percent of items whose right option is at the place that is the most common one in training."""
    longest: float
    """Percent of items whose right option is the longest one; equal ones share."""
    p: float
    """p of right options at all places alike (chi-square)."""

    @property
    def gain(self) -> float:
        """Points above guessing by the better of the two rules."""
        return max(self.place, self.longest) - self.chance


def options_of(train: Iterable[Item], test: Iterable[Item]) -> Options | None:
    """The places of right options; None for a task without options."""
    from scipy.stats import chisquare

    learned = Counter(place for item in train if item.choices and (place := gold_position(item)) is not None)
    asked = [
        (item.choices, place) for item in test if item.choices and (place := gold_position(item)) is not None
    ]
    if not asked:
        return None
    places = Counter(place for _, place in asked)
    usual = (learned or places).most_common(1)[0][0]
    most = max(len(choices) for choices, _ in asked)
    expected = [
        sum(1 / len(choices) for choices, _ in asked if place < len(choices)) for place in range(most)
    ]
    p = chisquare([places[place] for place in range(most)], expected).pvalue if most > 1 else 1.0
    longest = sum(_is_longest(choices, place) for choices, place in asked)
    return Options(
        items=len(asked),
        chance=100 * fmean(1 / len(choices) for choices, _ in asked),
        place=100 * places[usual] / len(asked),
        longest=100 * longest / len(asked),
        p=float(p),
    )


def _is_longest(choices: Sequence[str], place: int) -> float:
    lengths = [len(choice) for choice in choices]
    return (lengths[place] == max(lengths)) / lengths.count(max(lengths))
