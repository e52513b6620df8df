"""Word and character error rates of transcripts, by jiwer; texts are normalised as by Whisper (Radford et al. 2023)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Any

from moextend.bench.scorers.gold import Gold
from moextend.bench.scorers.scorer import Metrics

Form = Callable[[str], str]

_TAG = re.compile(r"[<\[][^>\]]*[>\]]")
_ASIDE = re.compile(r"\([^)]+?\)")
_OPENING = re.compile(r"[<\[(]")


@lru_cache(maxsize=1 << 14)
def basic_form(text: str) -> str:
    """Whisper's basic form: lower case, NFKC, without words in brackets; marks, symbols and punctuation are spaces."""
    kept = _without_brackets(text.lower())
    spaced = (" " if unicodedata.category(c)[0] in "MSP" else c for c in unicodedata.normalize("NFKC", kept))
    return " ".join("".join(spaced).lower().split())


@lru_cache(maxsize=1 << 14)
def english_form(text: str) -> str:
    """Whisper's English form, without its table of British spellings: numbers as digits, no contractions, no fillers.

    A number that is too long to convert leaves the text in its basic form.
    """
    # Opening brackets that nothing closes make the patterns of the normaliser slow; it replaces them by spaces, too.
    kept = _OPENING.sub(" ", _without_brackets(text.lower()))
    try:
        return " ".join(_english()(" ".join(kept.split())).split())
    except ValueError:
        return basic_form(text)


@lru_cache(maxsize=1)
def _english() -> Form:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    normalise: Form = EnglishTextNormalizer({})
    return normalise


def _without_brackets(text: str) -> str:
    """The text without words in <>, [] and (), in linear time: after the last closing bracket nothing is searched."""
    for pattern, closing in ((_TAG, ">]"), (_ASIDE, ")")):
        end = 1 + max(text.rfind(mark) for mark in closing)
        text = pattern.sub("", text[:end]) + text[end:]
    return text


@dataclass(frozen=True)
class Edits:
    """Edits from a reference to a prediction."""

    substitutions: int
    deletions: int
    insertions: int
    length: int
    """Units (words or characters) of the reference."""

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def accuracy(self) -> float:
        """1 - errors / length, at least 0."""
        return max(0.0, 1 - self.errors / self.length) if self.length else float(self.errors == 0)


@dataclass(frozen=True)
class ErrorRate:
    """Error rate in units of a normalised text."""

    name: str
    """Name of the rate among the metrics."""
    form: Form
    characters: bool = False
    """Whether units are characters, spaces between words included; else words."""

    def item(self, prediction: str, gold: Gold) -> float:
        """1 - errors / length of the closest reference, at least 0; a reference without a unit must be repeated."""
        predicted = prediction.strip()
        if not predicted:
            return 0.0
        edits = self._closest(prediction, gold)
        if edits.length:
            return edits.accuracy
        return float(predicted in {answer.strip() for answer in gold.answers})

    def weight(self, gold: Gold) -> float:
        """Units of the reference; of several the mean."""
        return fmean(self._length(self.form(answer)) for answer in gold.answers)

    @property
    def metrics(self) -> Metrics:
        """The rate of all items together, total errors / total length, and its three parts, in percent."""

        def metrics(pairs: Iterable[tuple[str, Gold]]) -> dict[str, float]:
            edits = [self._closest(prediction, gold) for prediction, gold in pairs]
            length = sum(one.length for one in edits) or 1
            total = {self.name: sum(one.errors for one in edits)}
            for part in ("substitutions", "deletions", "insertions"):
                total[part] = sum(getattr(one, part) for one in edits)
            return {name: 100 * count / length for name, count in total.items()}

        return metrics

    def _closest(self, prediction: str, gold: Gold) -> Edits:
        """Edits from the reference that is predicted best."""
        predicted = self.form(prediction)
        all_edits = (self._edits(self.form(answer), predicted) for answer in dict.fromkeys(gold.answers))
        return max(all_edits, key=lambda edits: (edits.accuracy, -edits.errors))

    def _length(self, text: str) -> int:
        return len(text) if self.characters else len(text.split())

    def _edits(self, reference: str, predicted: str) -> Edits:
        import jiwer

        found: Any = (jiwer.process_characters if self.characters else jiwer.process_words)(
            reference, predicted
        )
        return Edits(found.substitutions, found.deletions, found.insertions, self._length(reference))


WER = ErrorRate("wer", basic_form)
WER_ENGLISH = ErrorRate("wer", english_form)
CER = ErrorRate("cer", basic_form, characters=True)
