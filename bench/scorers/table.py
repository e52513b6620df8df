"""The scorers by name and version: a changed rule gets a new version."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from moextend.bench.scorers import boxes, captions, numbers, rules, sets, texts
from moextend.bench.scorers.gold import Answered, Gold
from moextend.bench.stats import clustered_error
from moextend.lookup import choose


@dataclass(frozen=True)
class Scorer:
    """One rule; either `item`, which knows one item, or `whole`, which needs all items of a task at once."""

    name: str
    """name@version"""
    rule: str
    source: str
    used_by: str
    item: Callable[[str, Gold], float] | None = None
    whole: Callable[[Sequence[Answered]], Sequence[float | None]] | None = None
    metrics: Callable[[Iterable[tuple[str, Gold]]], dict[str, float]] | None = None
    """More metrics of all items together, in percent."""
    top: float = 1.0
    """The most that an item can score."""
    lettered: bool = False
    """The answer to a question with choices is a letter."""
    own_is_top: bool = True
    """A gold answer reaches the top; not so where references are averaged or n-grams weighed."""


@dataclass(frozen=True)
class SetScore:
    """What a scorer makes of the answers to a task."""

    value: float
    """Mean of the items that count, 0..1 (CIDEr-D: 0..10)."""
    items: tuple[float | None, ...]
    """One value an item, in order; None where it counts only together with an item before it."""
    stderr: float | None
    """Standard error of `value` over the items that count, whole clusters drawn; None for fewer than two of them."""
    metrics: dict[str, float]
    """More metrics of all items together, in percent."""

    @property
    def n(self) -> int:
        """The items that count."""
        return sum(item is not None for item in self.items)


ALL = (
    Scorer(
        "exact@1",
        "a gold answer but for case, outer spaces and final periods",
        "GQA",
        "GQA, OCR-VQA, generated world",
        item=rules.exact,
    ),
    Scorer(
        "vqa@1",
        "leave-one-out mean of min(1, matches / 3); punctuation, numbers, articles and contractions are normalised "
        "where the annotators do not all agree",
        "VQA evaluation code",
        "VQAv2",
        item=rules.vqa,
    ),
    Scorer(
        "evalai@1",
        "leave-one-out mean of min(1, matches / 3) after the EvalAI form, always",
        "EvalAI (TextVQA code)",
        "TextVQA, VizWiz",
        item=rules.evalai,
    ),
    Scorer(
        "letter@1",
        '"A", "A. ..." or "The answer is A."; all else is wrong',
        "ScienceQA (LLaVA code)",
        "ScienceQA",
        item=rules.letter,
        lettered=True,
    ),
    Scorer(
        "option@1",
        'the letter in any usual dress ("(a)", "a:", "Answer: A"), or the text of the right choice alone',
        "ours",
        "multiple choice without a protocol",
        item=rules.option,
        lettered=True,
    ),
    Scorer(
        "circular@1",
        "option@1 on every rotation of a question (ids equal modulo 1,000,000); right only if all are",
        "MMBench",
        "MMBench",
        whole=sets.circular,
        lettered=True,
    ),
    Scorer(
        "pope@1",
        'first sentence: "no" with the word no or not, else "yes"; also precision, recall, F1, share of yes',
        "POPE",
        "POPE",
        item=rules.pope,
        metrics=sets.yes_no,
    ),
    Scorer(
        "relaxed@1",
        "within 5% of the target, % as hundredths; else, and for a target of 0, the same text",
        "ChartQA",
        "ChartQA",
        item=numbers.relaxed,
    ),
    Scorer(
        "number@1",
        "within 5% of the target; reads thousands separators, currencies, scales and units, which must agree",
        "ours",
        "measurements",
        item=numbers.number,
    ),
    Scorer(
        "anls@1",
        "1 - edit distance / longer length, lower-case, the best answer; 0 below 0.5",
        "DocVQA",
        "DocVQA",
        item=rules.anls,
    ),
    Scorer(
        "iou@1",
        "intersection over union with the best gold box",
        "RefCOCO",
        "grounding",
        item=boxes.iou,
    ),
    Scorer(
        "grounding@1",
        "1 where the intersection over union is above 0.5",
        "CoIN",
        "RefCOCO, CoIN grounding",
        item=boxes.grounding,
    ),
    Scorer(
        "substring@1",
        "the prediction contains a gold answer or lies in it; an empty one never",
        "CoIN",
        "CoIN ImageNet",
        item=texts.substring,
    ),
    Scorer(
        "cider@1",
        "CIDEr-D, 100 x mean; PTB-like tokens, document frequency from the references of all scored items",
        "COCO caption evaluation",
        "COCO captions, Flickr30k",
        whole=captions.cider_d,
        top=captions.TOP,
        own_is_top=False,
    ),
    Scorer(
        "rouge-l@1",
        "F1 of the longest common subsequence of words, no stemming, the best reference",
        "rouge-score",
        "summaries (TRACE MeetingBank)",
        item=texts.rouge_l,
    ),
    Scorer(
        "sari@1",
        "mean of F1 kept, precision deleted, F1 added n-grams (n = 1..4), the question as source; 0/0 = 1",
        "Xu et al. 2016 (reference code as in Hugging Face evaluate)",
        "simplification (TRACE 20Minuten)",
        whole=texts.sari,
        own_is_top=False,
    ),
    Scorer(
        "similarity@1",
        "1 - insertions and deletions / both lengths, the best answer",
        "rapidfuzz ratio",
        "code completion (TRACE Py150)",
        item=texts.similarity,
    ),
)
BY_NAME = {scorer.name: scorer for scorer in ALL}
SCORERS = {scorer.name: scorer.item for scorer in ALL if scorer.item is not None}
"""Those that know one item."""


def find_scorer(name: str, *, where: str | None = None) -> Scorer:
    """The scorer called `name`; UnknownName where there is none."""
    return choose("scorer", name, BY_NAME, where=where)


def score(name: str, prediction: str, gold: Gold, *, where: str | None = None) -> float:
    """0..1 for one prediction; UnknownName for a scorer that there is not, or that needs all items at once."""
    return choose("scorer", name, SCORERS, where=where)(prediction, gold)


def score_set(
    name: str,
    answered: Sequence[Answered],
    *,
    clusters: Sequence[Hashable] | None = None,
    where: str | None = None,
) -> SetScore:
    """What a scorer of either sort makes of all (at least one) answers to a task; UnknownName where there is none.

    `clusters`: what each item shares with others, such as its image; without it items are drawn one by one.
    """
    scorer = find_scorer(name, where=where)
    items: tuple[float | None, ...]
    if scorer.whole is not None:
        items = tuple(scorer.whole(answered))
    else:
        assert scorer.item is not None, "a scorer has either"
        items = tuple(scorer.item(one.prediction, one) for one in answered)
    counted = {i: item for i, item in enumerate(items) if item is not None}
    metrics = scorer.metrics((one.prediction, one) for one in answered) if scorer.metrics else {}
    values = list(counted.values())
    error = clustered_error(values, [clusters[i] if clusters else i for i in counted])
    return SetScore(fmean(values), items, error, metrics)


def own_answer(name: str, gold: Gold) -> str:
    """What a model that knows the gold would say: the most common answer, or its letter."""
    lettered = name in BY_NAME and BY_NAME[name].lettered
    position = rules.gold_position(gold) if lettered else None
    if position is not None:
        return string.ascii_uppercase[position]
    return Counter(gold.answers).most_common(1)[0][0]


def set_metrics(name: str, pairs: Iterable[tuple[str, Gold]]) -> dict[str, float]:
    """Metrics of all items together, in percent: for POPE precision, recall, F1 and share of "yes"."""
    scorer = BY_NAME.get(name)
    return scorer.metrics(pairs) if scorer and scorer.metrics else {}
