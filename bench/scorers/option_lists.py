"""Lists of a question's options that an answer repeats: "A. red B. blue C. green"."""

from __future__ import annotations

import re
from collections.abc import Sequence

_HAN = "\u3400-\u9fff"
# All repetitions are bounded and never tried again (possessive), so that long texts take no longer than their length.
_OPENS, _CLOSES = r"[\"'(\[{]{0,3}+", r"[\"')\].:,]{0,3}+"
_SPACES = r"\s{0,4}+"
_BETWEEN = r"[\s.,;|/!?)\]}\"'-]{0,12}+(?:(?:and|or)\s{1,4}+|[和与或及])?+"
_ENDS = r"(?=[ \t.,;|/!?)\]}\"'-]{0,12}+(?:\n|$|[^\sa-z:.,;|/!?)\]}\"'-]))"
"""Behind a list: not the rest of a sentence about its last option, as in "C. green is wrong"."""
_ANNOUNCED = re.compile(
    r"(?:\b(?:answer|(?:correct|right|best|final)\s+(?:option|choice|letter))\b\s*(?:is)?|答案\s*[是为]?)[\s:=(\[\"'-]{0,12}$",
    re.IGNORECASE,
)
_MARKS = " .,;|/!?)]}\"'-"
"""Marks behind a list."""
_CUT = re.compile(r"[\"'(\[{]*([A-Z])[\"')\].:]*\s*(.*)", re.DOTALL)


def without_list(text: str, letters: str, choices: Sequence[str]) -> str:
    """A text without a list of all options in their order, each by its letter and its own text.

    A list whose first option is stated ("the answer is A. red") stays, and so does one that goes on as a sentence.
    """
    entries = _entries(letters, choices)
    if len(entries) < len(choices) or not entries:
        return text
    found = re.search(f"(?i:{_BETWEEN.join(entries.values())}){_ENDS}", text)
    if found is None or _ANNOUNCED.search(text[: found.start()]):
        return text
    before, behind = text[: found.start()], text[found.end() :]
    return f"{before.rstrip()}\n{behind.lstrip(_MARKS)}".strip()


def is_list(text: str, letters: str, choices: Sequence[str]) -> bool:
    """Whether a text consists of two or more options in their order, each by its letter and its own text; the last one
    may be cut off.
    """
    entries = _entries(letters, choices)
    named, place = list[str](), 0
    for letter, entry in entries.items():
        if found := re.compile(f"{entry}{_BETWEEN}", re.IGNORECASE).match(text, place):
            named.append(letter)
            place = found.end()
    cut = _CUT.fullmatch(text[place:].strip())
    if cut is not None and named and cut[1] in entries and cut[1] > named[-1]:
        whole = _own_text(cut[1], choices[letters.index(cut[1])])
        return whole.lower().startswith(cut[2].lower())
    return len(named) > 1 and not text[place:].strip()


def _entries(letters: str, choices: Sequence[str]) -> dict[str, str]:
    """Letter -> pattern of the option in a list, for the choices that have a text."""
    found: dict[str, str] = {}
    for letter, choice in zip(letters, choices, strict=False):
        own = _own_text(letter, choice)
        if own:
            words = r"\s+".join(map(re.escape, own.split()))
            ends = "" if re.search(f"[{_HAN}]$", own) else r"(?![^\W_])"
            named = rf"{_OPENS}(?<![A-Za-z0-9]){letter}(?=[\"')\].:,]|\s?[-–=|]){_CLOSES}{_SPACES}[-–=|]?+{_SPACES}"
            found[letter] = rf"(?:(?:option|choice)\s)?{named}[\"']?(?:(?:the|an?)\s)?{words}[\"']?{ends}"
    return found


def _own_text(letter: str, choice: str) -> str:
    """A choice as a list has it: without its letter, a leading article and a final period."""
    plain = re.sub(rf"^{letter}[.):]\s*", "", choice.strip())
    return re.sub(r"^(?:the|an?)\s+(?=\S)", "", plain, flags=re.IGNORECASE).rstrip(". ")
