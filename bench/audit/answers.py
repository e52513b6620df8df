"""What can be answered without the image or the sound: words of the question, places of options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from moextend.bench.data import Item
from moextend.bench.score.majority import normalised
from moextend.bench.scorers.rules import gold_position

MOST_ANSWERS = 1000
"""Different training answers; with more, answers are free text, which a question may well contain."""


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
