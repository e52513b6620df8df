"""Lists of a question's options that an answer repeats: "A. red B. blue C. green"."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from moextend.bench.scorers.letters import HAN

# All repetitions are bounded and never tried again (possessive), so that long texts take no longer than their length.
_OPENS, _CLOSES = r"[\"'(\[{]{0,3}+", r"[\"')\].:,]{0,3}+"
_SPACES = r"\s{0,4}+"
_BETWEEN = r"[\s.,;|/!?)\]}\"'-]{0,12}+(?:(?:and|or)\s{1,4}+|[和与或及])?+"
_ENDS = r"(?=[ \t.,;|/!?)\]}\"'-]{0,12}+(?:\n|$|[^\sa-z:.,;|/!?)\]}\"'-]))"
"""Behind a list: not the rest of a sentence about its last option, as in "C. green is wrong"."""
_MARKS = " .,;|/!?)]}\"'-"
"""Marks behind a list."""
_CUT = re.compile(r"[\"'(\[{]*([A-Z])[\"')\].:]*\s*(.*)", re.DOTALL)


def without_lists(
    text: str, letters: str, choices: Sequence[str], *, unless: Callable[[str], bool] = lambda before: False
) -> str:
    """A text without the lists of all options in their order, each by its letter and its own text.

    A list that goes on as a sentence stays, and so does one with a text before it that is `unless`.
    """
    entries = _entries(letters, choices)
    if len(entries) < len(choices) or not entries:
        return text
    complete, place = re.compile(f"(?i:{_BETWEEN.join(entries.values())}){_ENDS}"), 0
    while (found := complete.search(text, place)) is not None:
        before, behind = text[: found.start()], text[found.end() :]
        if unless(before):
            place = found.end()
        else:
            text, place = (
                f"{before.rstrip()}\n{behind.lstrip(_MARKS)}".strip(),
                max(0, len(before.rstrip()) - 1),
            )
    return text


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
        own = _own_text(cut[1], choices[letters.index(cut[1])])
        return own.lower().startswith(cut[2].lower())
    return len(named) > 1 and not text[place:].strip()


def _entries(letters: str, choices: Sequence[str]) -> dict[str, str]:
    """Letter -> pattern of the option in a list, for the choices that have a text."""
    found: dict[str, str] = {}
    for letter, choice in zip(letters, choices, strict=False):
        own = _own_text(letter, choice)
        if own:
            words = r"\s+".join(map(re.escape, own.split()))
            ends = "" if re.search(f"[{HAN}]$", own) else r"(?![^\W_])"
            dash = "" if own[0] in "-–=|" else rf"[-–=|]?+{_SPACES}"
            named = rf"{_OPENS}(?<![A-Za-z0-9]){letter}(?=[\"')\].:,]|\s?[-–=|]){_CLOSES}{_SPACES}{dash}"
            found[letter] = rf"(?:(?:option|choice)\s)?{named}[\"']?(?:(?:the|an?)\s)?{words}[\"']?{ends}"
    return found


def _own_text(letter: str, choice: str) -> str:
    """A choice as a list has it: without its letter, a leading article and a final period."""
    plain = re.sub(rf"^{letter}[.):]\s*", "", choice.strip())
    return re.sub(r"^(?:the|an?)\s+(?=\S)", "", plain, flags=re.IGNORECASE).rstrip(". ")
