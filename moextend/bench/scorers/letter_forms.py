"""Forms of an option in an answer: its letter in a usual dress, or its text.

The formats are those that VLMEvalKit reads without a judge, also in Chinese ("答案是A", "选B", "A、红色"), and markdown
and LaTeX formats of models. A letter inside a word and the article "A" are not options. An answer with several options
has none.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from moextend.bench.scorers.forms import vqa_form

LAST = 5
"""A separate letter in a sentence is the answer if it is among this number of last words (VLMEvalKit)."""
SENTENCE = 60
"""A text of this number of characters may name a choice by its text, also a short one: "There are 3 apples"."""

CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
"""Characters of Chinese, Japanese and Korean, which are written next to a letter without a space."""
_WIDE = str.maketrans(
    {
        "（": "(",
        "）": ")",
        "【": "[",
        "】": "]",
        "．": ". ",
        "：": ": ",
        "。": ". ",
        "，": ", ",
        "、": ", ",
        "；": "; ",
    }
    | {"！": "! ", "？": "? ", "“": '"', "”": '"', "「": '"', "」": '"'}
    | {chr(0xFEE0 + ord(letter)): letter for letter in string.ascii_letters}
)
"""Chinese and Japanese marks and wide letters -> those of ASCII."""
KEYS = r"answer|(?:correct|right|best|final)\s+(?:option|choice|letter)"
_IS = r"(?:is|would\s+be|should\s+be|must\s+be)"
_WHY = r"(?:because|since)\b"
BEHIND = (
    rf"(?:{_WHY}|(?:and|or|but|in|from|with|for|on|at|by|as|if|here|there|which|where|when|among|under|within|of)"
    r"(?![\w'’-])|based\s+on\b|according\s+to\b|given\s+that\b|due\s+to\b)"
)
"""Words that may follow an option's letter in a sentence, but not an article: "A in this case"."""
UPPER = rf"(?![AI][ \t]+(?!{BEHIND}|[{CJK}])\w)([A-Z])(?!['’-]|(?![{CJK}])\w)"
"""A capital that is neither part of a word nor the word "A" or "I" of a sentence, which a line break ends."""
LOWER = r"([a-z])(?=\s*$|\s*\n|[.,;:!?)\]}\"']+(?:\s|$))"
_MARKS = re.compile(r"[*`#$~]|__|\\[()\[\]]|</?\w+>")
_LEAD = re.compile(
    r"^(?i:(?:option|choice|letter)\s*+(?::\s*+)?)?[(\[{<\"']*([A-Za-z])[)\]}>\"']*"
    rf"(?=\s*$|\s*\n|[)\]}}:]|[.,;](?:\s|$)|\s+[-=–]\s|\s+{_WHY}|\s+[{CJK}]|です|だ\b|번?(?:입니다|이다))"
)
_TIGHT = re.compile(r"^[(\[{<\"']*([A-Z])\.(?=\d|[^\W\d_]{2})")
"""A letter with its period and no space before a text: "A.red"."""
MORE = re.compile(
    r"^[)\].\"'\s]*(?:[,;/&]\s*(?:and\s+|or\s+)?|and\s+|or\s+)\(?[A-Za-z]\)?\s*(?:$|[.,;/&)都均]|and\b|or\b)"
    r"|^[)\].\"'\s]*(?:[和与或及かと와과]|または|또는|이나)\s*\(?[A-Za-z](?![A-Za-z])"
)
_STATED = re.compile(
    rf"(?i:\b(?:{KEYS})\b\s*+(?:{_IS}\s*+)?(?:[:=-]\s*+)?(?:(?:option|choice|letter)\s++)?)[(\[\"']*(?:{UPPER}|{LOWER})"
    r"|(?:答案|(?<![不没非未别])(?<![不没][应能该会有])(?:选择|选))\s*(?:应该是|应当是|应为|应是|是|为|选)?\s*[:=]?\s*(?:选项)?\s*[(\[\"']*"
    r"([A-Za-z])(?![A-Za-z0-9_'’-])"
)
_NAMED = re.compile(rf"(?:(?i:\b(?:option|choice|letter)\s+)|选项\s*)[(\[\"']*{UPPER}")
_RIGHT = re.compile(r"(?<![\w'])[(\[]?([A-Z])[)\]]?\s+is\s+(?:the\s+)?(?:correct|right|best)\b")
_SPLIT = re.compile(r"[.()\[\],:;!*#{}\"]")
_DENIED = re.compile(r"\b(?:not|never|neither|nor|cannot|wrong|incorrect)\b|n't\b|[不没非错]", re.IGNORECASE)


def plain(text: str) -> str:
    """A text without the marks of markdown and LaTeX, with marks and letters of ASCII."""
    return _MARKS.sub("", text).translate(_WIDE).strip()


@dataclass(frozen=True)
class Options:
    """The options of a question, and what names one of them; each method gives its index, or None."""

    letters: str
    """Their letters, or the full alphabet for a question that does not list them."""
    texts: Sequence[str]
    """Their texts without marks, or none."""

    def place(self, letter: str) -> int | None:
        """The option of a letter."""
        return self.letters.index(letter.upper()) if letter and letter.upper() in self.letters else None

    def text(self, place: int | None) -> str:
        """The text of an option; "" without one."""
        return self.texts[place] if place is not None and place < len(self.texts) else ""

    def written(self, text: str) -> int | None:
        """The option whose text is written exactly so: "-1" is not "1"."""
        return written(text, self.letters, self.texts)

    def forms(self) -> list[str]:
        """Normal forms of the texts; "" where a text is the letter of an option."""
        return ["" if text.strip().upper() in list(self.letters) else vqa_form(text) for text in self.texts]

    def full_text(self, text: str) -> int | None:
        """The option whose text is the full answer, in normal form."""
        form = vqa_form(text.rstrip("."))
        same = [i for i, own in enumerate(self.forms()) if own and own == form]
        return same[0] if len(same) == 1 else None

    def first_letter(self, text: str) -> int | None:
        """The option whose letter is the full text, or its start before punctuation or a line break."""
        found = _LEAD.match(text)
        return None if found is None or MORE.match(text[found.end(1) :]) else self.place(found[1])

    def tight_letter(self, text: str) -> int | None:
        """The option whose letter begins a text with its period and no space: "A.red"."""
        found = _TIGHT.match(text)
        return self.place(found[1]) if found else None

    def sentence(self, text: str) -> int | None:
        """The option in a plain text that does not start with the letter of one."""
        for found in (self.full_text(text), self.tight_letter(text)):
            if found is not None:
                return found
        stated = [
            found for found in _STATED.finditer(text) if self.place(found[found.lastindex or 0]) is not None
        ]
        if stated:
            group = stated[-1].lastindex or 0
            return None if MORE.match(text[stated[-1].end(group) :]) else self.place(stated[-1][group])
        if _DENIED.search(text):
            return None
        named = {*_NAMED.findall(text), *_RIGHT.findall(text)} & set(self.letters)
        if named:
            return self.place(named.pop()) if len(named) == 1 else None
        return self._mentioned(text)

    def _mentioned(self, text: str) -> int | None:
        """The only option in a sentence, by a separate letter or by its text; None if these differ."""
        held = self._held(text)
        words = _SPLIT.sub(" ", text).split()
        alone = [
            word
            for word, after in zip_longest(words, words[1:])
            if word in list(self.letters) and _is_free(word, after)
        ]
        if len(held) == 1:
            own = {self.letters[held[0] : held[0] + 1], *self.text(held[0]).split()}
            return None if set(alone) - own else held[0]
        if held or len(set(alone)) != 1 or alone[-1] not in words[-LAST:]:
            return None
        return self.place(alone[-1])

    def _held(self, text: str) -> list[int]:
        """Options with texts in a sentence, compared by words; a text inside another one's text does not count there.

        A text of two options counts for both.
        """
        if len(text) > max(SENTENCE, 2 * sum(map(len, self.texts))):
            return []
        forms, rest, held = self.forms(), f" {vqa_form(text)} ", list[int]()
        for form in sorted(dict.fromkeys(forms), key=lambda form: -len(form)):
            if form and f" {form} " in rest:
                held += [i for i, other in enumerate(forms) if other == form]
                rest = rest.replace(f" {form} ", "  ")
        return held


def written(text: str, letters: str, texts: Sequence[str]) -> int | None:
    """Index of the only text that is written so, but for case, outer spaces and periods, unless it is a letter."""
    form = _bare(text)
    found = [i for i, other in enumerate(texts) if _bare(other) == form]
    return found[0] if len(found) == 1 and form.upper() not in list(letters) else None


def _bare(text: str) -> str:
    return text.strip().rstrip(".").lower()


def _is_free(word: str, after: str | None) -> bool:
    """Whether a letter is not an article or pronoun, as "A" and "I" are before a lower-case word."""
    return word not in "AI" or after is None or not after.islower() or after in ("and", "or", "is")
