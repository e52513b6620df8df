"""The table of scorers by name and version; a changed rule gets a new version."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from moextend.bench.plugins import Found, Plugins, Source
from moextend.bench.scorers import rules
from moextend.bench.scorers.forms import vqa_form
from moextend.bench.scorers.general import GENERAL
from moextend.bench.scorers.gold import Answered, Gold, Scorer
from moextend.bench.scorers.protocols import PUBLISHED
from moextend.bench.stats import weighted_mean
from moextend.errors import InputError, UnknownName
from moextend.util.lookup import choose


@dataclass(frozen=True)
class SetScore:
    """Scores of the answers to a task."""

    value: float
    """Weighted mean of the items that count, 0..1 (CIDEr-D: 0..10)."""
    items: tuple[float | None, ...]
    """One value per item, in order; None if it counts only together with an earlier item."""
    stderr: float | None
    """Standard error of `value` over the items that count, clusters drawn; None for fewer than two of them."""
    metrics: dict[str, float]
    """More metrics of all items together, in percent."""
    weights: tuple[float, ...] | None = None
    """Weight of each item, in order, if the scorer has weights; None: all count the same."""

    @property
    def n(self) -> int:
        """Number of items that count."""
        return sum(item is not None for item in self.items)

    def mean(self, places: Sequence[int]) -> float:
        """Weighted mean of some items that count."""
        values = [item for place in places if (item := self.items[place]) is not None]
        weights = [self.weights[place] for place in places] if self.weights else None
        return weighted_mean(values, weights, places)[0]


ALL = GENERAL + PUBLISHED
BY_NAME = {scorer.name: scorer for scorer in ALL}


def _scorers_in(value: Any, name: str) -> tuple[Scorer, ...]:
    """Versions of a scorer in a module, or the object of an entry point; ValueError if there are none."""
    if isinstance(value, ModuleType):
        value = list(vars(value).values())
    things = value if isinstance(value, tuple | list) else [value]
    scorers = {thing.name: thing for thing in things if isinstance(thing, Scorer)}
    if not scorers:
        raise ValueError("holds no Scorer.")
    mine = tuple(scorer for scorer in scorers.values() if _stem(scorer.name) == name and "@" in scorer.name)
    if not mine:
        raise ValueError(f"holds {', '.join(scorers)}, and no scorer called {name}@VERSION.")
    for scorer in mine:
        if (scorer.item is None) == (scorer.items is None):
            raise ValueError(f"'{scorer.name}' needs either 'item' or 'items'.")
    return mine


def _stem(name: str) -> str:
    return name.partition("@")[0]


def _versions(stem: str) -> tuple[Scorer, ...]:
    return tuple(scorer for scorer in ALL if _stem(scorer.name) == stem)


KNOWN: Plugins[tuple[Scorer, ...]] = Plugins(
    noun="scorer",
    folder="scorers",
    group="moextend.scorers",
    own=lambda: {stem: lambda stem=stem: _versions(stem) for stem in map(_stem, BY_NAME)},  # type: ignore[misc]
    take=_scorers_in,
)
"""Scorers by their name without a version."""
_SEARCHED: list[Path] = []


def search(workspace: Path) -> None:
    """Sets the workspace for plug-in scorers, besides installed packages."""
    _SEARCHED[:] = [workspace.resolve()]


def find_scorer(name: str, *, where: str | None = None) -> Scorer:
    """Scorer `name`; UnknownName if there is none, InputError if its plug-in is broken."""
    if name in BY_NAME:
        return BY_NAME[name]
    return _plugged(name, _SEARCHED[0] if _SEARCHED else None, where)


def source_of(name: str, workspace: Path) -> Source:
    """Origin of a scorer; UnknownName if there is none."""
    return KNOWN.find(_stem(name), workspace).source


@cache  # asked for once per item
def _plugged(name: str, workspace: Path | None, where: str | None) -> Scorer:
    stem = _stem(name)
    plugins = [each for each in KNOWN.names(workspace) if each not in KNOWN.own()]
    if stem not in plugins:
        raise UnknownName("scorer", name, [*BY_NAME, *(f"{each}@VERSION" for each in plugins)], where=where)
    found: Found[tuple[Scorer, ...]] = KNOWN.find(stem, workspace)
    return choose("scorer", name, {scorer.name: scorer for scorer in found.value}, where=where)


def _known(name: str) -> Scorer | None:
    try:
        return find_scorer(name)
    except UnknownName:
        return None


def score_set(
    name: str,
    answered: Sequence[Answered],
    *,
    clusters: Sequence[Hashable] | None = None,
) -> SetScore:
    """Scores of all (at least one) answers to a task; UnknownName for an unknown scorer.

    `clusters`: cluster of each item, such as its image, for the standard error; without it items are independent.
    """
    scorer = find_scorer(name)
    items: tuple[float | None, ...]
    if scorer.items is not None:
        items = tuple(scorer.items(answered))
    else:
        assert scorer.item is not None, "a scorer has either"
        items = tuple(scorer.item(one.prediction, one) for one in answered)
    metrics = scorer.metrics((one.prediction, one) for one in answered) if scorer.metrics else {}
    weights = tuple(map(scorer.weight, answered)) if scorer.weight else None
    counted = [i for i, item in enumerate(items) if item is not None]
    values = [item for item in items if item is not None]
    value, error = weighted_mean(
        values,
        [weights[i] for i in counted] if weights else None,
        [clusters[i] if clusters else i for i in counted],
    )
    return SetScore(value, items, error, metrics, weights)


def shows(name: str) -> str:
    """What a score by this scorer is, where the scorer's name says otherwise; else "", also for a lost plug-in."""
    try:
        return find_scorer(name).shows
    except InputError:
        return ""


def is_lettered(name: str) -> bool:
    """Whether the scorer reads the answer to a question with choices as a letter."""
    scorer = _known(name)
    return scorer is not None and scorer.lettered


def own_answer(name: str, gold: Gold) -> str:
    """Expected output of a model that knows the gold answer: the most common answer for the scorer, or its letter."""
    scorer = _known(name)
    position = rules.gold_position(gold) if scorer and scorer.lettered else None
    if position is not None:
        return string.ascii_uppercase[position]
    answer = Counter(gold.answers).most_common(1)[0][0]
    return scorer.spoken(answer) if scorer and scorer.spoken else answer


def readings(
    prediction: str, gold: Gold, *, right: bool = False, likelihoods: Sequence[float] | None = None
) -> dict[str, float]:
    """`strict` and `normalised`, 0 or 1, and `likelihood` if the choices' log-likelihoods are known.

    strict: the exact gold text, or its letter. normalised: the maximum of the task's scorer (`right`), or the gold
    answer in the official VQA form, or words that contain it; with choices, its letter in a usual format. likelihood:
    the right choice has the highest log-likelihood (the first of equal ones); missing without choices or without a
    known right one.
    """
    text = prediction.strip()
    golds = {answer.strip() for answer in gold.answers} | {own_answer("letter@1", gold)}
    found = {
        "strict": float(bool(text) and text in golds),
        "normalised": float(right or _normalised(prediction, gold)),
    }
    position = rules.gold_position(gold) if likelihoods and gold.choices else None
    if position is not None and likelihoods and len(likelihoods) == len(gold.choices or ()):
        found["likelihood"] = float(max(range(len(likelihoods)), key=likelihoods.__getitem__) == position)
    return found


def _normalised(prediction: str, gold: Gold) -> bool:
    if rules.matches(prediction, gold.answers, vqa_form) or rules.option(prediction, gold) == 1.0:
        return True
    return gold.choices is None and _contains(prediction, gold.answers)


def _contains(prediction: str, answers: Sequence[str]) -> bool:
    """Whether the prediction contains the words of an answer consecutively."""
    predicted = f" {vqa_form(prediction)} "
    return any(form and f" {form} " in predicted for form in map(vqa_form, answers))
