"""Overlap of a longer text with its references: ROUGE-L, SARI, F1 of words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from moextend.bench.scorers.forms import squad_form
from moextend.bench.scorers.gold import Answered, Gold

ORDERS = 4
"""SARI counts n-grams of 1 to 4 words."""


@lru_cache(maxsize=1)
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])


@lru_cache(maxsize=1)
def _tokenizer() -> Callable[[str], str]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenize: Callable[[str], str] = Tokenizer13a()
    return tokenize


def rouge_l(prediction: str, gold: Gold) -> float:
    """F1 of the longest common subsequence of words, without stemming: the best over the references.

    Words are a-z and 0-9 (the package's rule); a text without words must be repeated exactly.
    """
    if not prediction.strip():
        return 0.0
    return max(_rouge_l(prediction.strip(), answer.strip()) for answer in gold.answers)


def _rouge_l(prediction: str, answer: str) -> float:
    if prediction == answer:
        return 1.0
    return float(_rouge().score(answer, prediction)["rougeL"].fmeasure)


def f1(prediction: str, gold: Gold) -> float:
    """F1 of the words of both in SQuAD's form, repeated words counted: the best over the answers.

    If one of them has no words in this form, such as "the", both must have none. A prediction without letters and
    digits must be equal to an answer.
    """
    if not any(letter.isalnum() for letter in prediction):
        return float(
            bool(prediction.strip()) and prediction.strip() in {text.strip() for text in gold.answers}
        )
    return max(
        _word_f1(squad_form(prediction).split(), squad_form(answer).split()) for answer in gold.answers
    )


def _word_f1(predicted: Sequence[str], meant: Sequence[str]) -> float:
    if not predicted or not meant:
        return float(predicted == meant)
    common = (Counter(predicted) & Counter(meant)).total()
    return 2 * common / (len(predicted) + len(meant))


def sari(answered: Sequence[Answered]) -> list[float]:
    """SARI of every item (Xu et al. 2016) with the question as source: mean of the F1 of kept and added n-grams and the
    precision of deleted ones, over n = 1..4.

    As in the reference implementation, 0/0 = 1 and the recall of kept n-grams uses their sum; lower case, 13a tokens.
    An empty prediction scores 0.
    """
    return [_sari(one) for one in answered]


def _sari(one: Answered) -> float:
    if not one.prediction.strip():
        return 0.0
    words = _tokenizer()
    source, predicted = words(one.question.lower()).split(), words(one.prediction.lower()).split()
    references = [words(answer.lower()).split() for answer in one.answers]
    return fmean(
        part
        for n in range(1, ORDERS + 1)
        for part in _operations(
            _grams(source, n), _grams(predicted, n), [_grams(reference, n) for reference in references]
        )
    )


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _operations(
    source: Counter[Any], predicted: Counter[Any], references: Sequence[Counter[Any]]
) -> list[float]:
    """Kept (F1), deleted (precision) and added (F1); counts of source and prediction times the references."""
    times = len(references)
    wanted: Counter[Any] = sum(references, Counter())
    before = Counter({gram: times * count for gram, count in source.items()})
    after = Counter({gram: times * count for gram, count in predicted.items()})
    kept, gone = before & after, before - after
    rightly_kept, to_keep = kept & wanted, before & wanted
    rightly_gone = gone - wanted
    added, to_add = set(predicted) - set(source), set(wanted) - set(source)
    rightly_added = len(added & set(wanted))
    return [
        _f1(
            _share(sum(n / kept[gram] for gram, n in rightly_kept.items()), len(kept)),
            _share(rightly_kept.total(), to_keep.total()),
        ),
        _share(sum(n / gone[gram] for gram, n in rightly_gone.items()), len(gone)),
        _f1(_share(rightly_added, len(added)), _share(rightly_added, len(to_add))),
    ]


def _share(part: float, total: int) -> float:
    return part / total if total else 1.0


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
