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

Form = Callable[[str], str]
PARTS = ("substitutions", "deletions", "insertions")

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


Edits = dict[str, int]
"""Substitutions, deletions and insertions from a reference to a prediction."""


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
        accuracy, _, length = self._closest(prediction, gold)
        return accuracy if length else float(predicted in {answer.strip() for answer in gold.answers})

    def weight(self, gold: Gold) -> float:
        """Units of the reference; of several the mean."""
        return fmean(self._length(self.form(answer)) for answer in gold.answers)

    def metrics(self, pairs: Iterable[tuple[str, Gold]]) -> dict[str, float]:
        """The rate of all items together, total errors / total length, and its three parts, in percent."""
        found = [self._closest(prediction, gold) for prediction, gold in pairs]
        total = sum(length for *_, length in found) or 1
        parts = {part: sum(edits[part] for _, edits, _ in found) for part in PARTS}
        return {name: 100 * n / total for name, n in {self.name: sum(parts.values()), **parts}.items()}

    def _closest(self, prediction: str, gold: Gold) -> tuple[float, Edits, int]:
        """Accuracy, edits and length of the reference that is predicted best."""
        import jiwer

        process: Any = jiwer.process_characters if self.characters else jiwer.process_words
        predicted, all_edits = self.form(prediction), []
        for reference in map(self.form, dict.fromkeys(gold.answers)):
            made = process(reference, predicted)
            edits, length = {part: int(getattr(made, part)) for part in PARTS}, self._length(reference)
            errors = sum(edits.values())
            accuracy = max(0.0, 1 - errors / length) if length else float(errors == 0)
            all_edits.append((accuracy, edits, length))
        return max(all_edits, key=lambda one: (one[0], -sum(one[1].values())))

    def _length(self, text: str) -> int:
        return len(text) if self.characters else len(text.split())


WER = ErrorRate("wer", basic_form)
WER_ENGLISH = ErrorRate("wer", english_form)
CER = ErrorRate("cer", basic_form, characters=True)
