"""Formats of an option in an answer: its letter in a usual dress, or the text of exactly one choice.

The formats are those that VLMEvalKit reads without a judge, also in Chinese ("答案是A", "选B", "A、红色"), and markdown
and LaTeX formats of models. A letter inside a word and the article "A" are not options. An answer with several options
has none.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from itertools import zip_longest

from moextend.bench.scorers.forms import vqa_form
from moextend.bench.scorers.gold import Gold
from moextend.bench.scorers.rules import exact, gold_position

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
_BOXED = re.compile(
    r"\\boxed\s*\{\s*+(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\s*+)?[(\[]?([A-Za-z])[)\].:]?(?=[\s}])"
)
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


def judged(prediction: str, gold: Gold, read: Callable[[str, str], int | None]) -> float:
    """1 where `read` finds the right option by prediction and letters of the options (all if none is listed)."""
    right = gold_position(gold)
    if right is None:
        return exact(prediction, gold)
    letters = string.ascii_uppercase[: len(gold.choices or ()) or 26]
    return float(read(prediction, letters) == right)


def boxed(prediction: str, letters: str) -> int | None:
    r"""The last letter in \boxed{}."""
    found = [letter.upper() for letter in _BOXED.findall(prediction) if letter.upper() in letters]
    return letters.index(found[-1]) if found else None


def read_sentence(text: str, letters: str, choices: Sequence[str]) -> int | None:
    """The option in a plain text that does not start with the letter of one."""
    found = full_text(text, letters, choices)
    if found is not None:
        return found
    tight = tight_letter(text, letters)
    if tight is not None:
        return tight
    if stated := _stated(text, letters):
        return _single(stated[-1], text, letters)
    if _DENIED.search(text):
        return None
    named = {found.upper() for found in [*_NAMED.findall(text), *_RIGHT.findall(text)]} & set(letters)
    if named:
        return letters.index(named.pop()) if len(named) == 1 else None
    return _mentioned(text, letters, choices)


def plain(text: str) -> str:
    """A text without the marks of markdown and LaTeX, with marks and letters of ASCII."""
    return _MARKS.sub("", text).translate(_WIDE).strip()


def _stated(text: str, letters: str) -> list[re.Match[str]]:
    """The statements of an option: "the answer is B"."""
    return [found for found in _STATED.finditer(text) if found[found.lastindex or 0].upper() in letters]


def _single(stated: re.Match[str], text: str, letters: str) -> int | None:
    """The option of a statement; None if more options follow."""
    group = stated.lastindex or 0
    several = MORE.match(text[stated.end(group) :])
    return None if several else letters.index(stated[group].upper())


def tight_letter(text: str, letters: str) -> int | None:
    """The letter at the start with its period and no space before a text."""
    found = _TIGHT.match(text)
    return letters.index(found[1]) if found is not None and found[1] in letters else None


def first_letter(text: str, letters: str) -> int | None:
    """The letter that is the full text, or its start before punctuation or a line break."""
    found = _LEAD.match(text)
    if found is None or found[1].upper() not in letters or MORE.match(text[found.end(1) :]):
        return None
    return letters.index(found[1].upper())


def full_text(text: str, letters: str, choices: Sequence[str]) -> int | None:
    """The choice with a text equal to the prediction."""
    form = vqa_form(text.rstrip("."))
    same = [i for i, choice in enumerate(_texts(letters, choices)) if choice and choice == form]
    return same[0] if len(same) == 1 else None


def _texts(letters: str, choices: Sequence[str]) -> list[str]:
    """Normal forms of the choices' texts; "" where a text is the letter of an option."""
    plain = [choice.translate(_WIDE) for choice in choices]
    return ["" if choice.strip().upper() in list(letters) else vqa_form(choice) for choice in plain]


def _mentioned(text: str, letters: str, choices: Sequence[str]) -> int | None:
    """The only option in a sentence, by a separate letter or by its text; None if these differ."""
    held = _held(text, letters, choices)
    words = _SPLIT.sub(" ", text).split()
    alone = [
        word for word, after in zip_longest(words, words[1:]) if word in list(letters) and _free(word, after)
    ]
    if len(held) == 1:
        own = {letters[held[0] : held[0] + 1], *choices[held[0]].split()}
        return None if set(alone) - own else held[0]
    if held or len(set(alone)) != 1 or alone[-1] not in words[-LAST:]:
        return None
    return letters.index(alone[-1])


def _free(word: str, after: str | None) -> bool:
    """Whether a letter is not an article or pronoun, as "A" and "I" are before a lower-case word."""
    return word not in "AI" or after is None or not after.islower() or after in ("and", "or", "is")


def _held(text: str, letters: str, choices: Sequence[str]) -> list[int]:
    """Choices with texts in a sentence, compared by words; a text inside another choice's text does not count there.

    A text of two choices counts for both.
    """
    if len(text) > max(SENTENCE, 2 * sum(map(len, choices))):
        return []
    forms, rest, held = _texts(letters, choices), f" {vqa_form(text)} ", list[int]()
    for form in sorted(dict.fromkeys(forms), key=lambda form: -len(form)):
        if form and f" {form} " in rest:
            held += [i for i, other in enumerate(forms) if other == form]
            rest = rest.replace(f" {form} ", "  ")
    return held
