"""Lists of a question's options in an answer: "A. red B. blue C. green", also with a verdict on each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from moextend.bench.scorers.letter_forms import CJK, Options

# All repetitions are bounded and never tried again (possessive), so that long texts take no longer than their length.
_OPENS, _CLOSES = r"[\"'(\[{]{0,3}+", r"[\"')\].:,]{0,3}+"
_SPACES = r"\s{0,4}+"
_BETWEEN = r"[\s.,;|/!?)\]}\"'-]{0,12}+(?:(?:and|or)\s{1,4}+|[和与或及])?+"
_ENDS = r"(?=[ \t.,;|/!?)\]}\"'-]{0,12}+(?:\n|$|[^\sa-z:.,;|/!?)\]}\"'-]))"
"""Behind a list: not the rest of a sentence about its last option, as in "C. green is wrong"."""
_MARKS = " .,;|/!?)]}\"'-"
"""Marks behind a list."""
_CUT = re.compile(r"[\"'(\[{]*([A-Z])[\"')\].:]*\s*(.*)", re.DOTALL)

_LINE_START = r"^[ \t]*+(?:[-•+][ \t]+|\d{1,2}[.)][ \t]+)?"
_RIGHT = re.compile(
    r"(?<!not )(?<!not the )(?<!n't )(?<!n't the )\b(?:correct|right)\b|[✓✔✅]|[(\[]answer[)\]]|(?<!不)正确",
    re.IGNORECASE,
)
_WRONG = re.compile(
    r"\b(?:incorrect|wrong|false)\b|(?:\bnot|n't) (?:the )?(?:correct|right)\b|[✗✘❌]|错误|不正确",
    re.IGNORECASE,
)
_VERDICT = re.compile(
    r"(?<![A-Za-z])(?:(?:[Oo]ption|[Cc]hoice)[ ])?\(?([A-Z])\)?(?:选?项)?[ \t]{0,4}+[.:?]?[ \t(–—-]{0,4}+(?:is[ ])?"
    r"(?:(?i:(correct|right|true|yes)|(?:incorrect|wrong|false|no))\b|([✓✔✅]|正确|对)|[✗✘❌]|错误?)"
)


def without_lists(text: str, options: Options, *, unless: Callable[[str], bool]) -> str:
    """A text without the lists of all options in their order, each by its letter and its own text.

    A list that goes on as a sentence stays, and so does one with a text before it that is `unless`.
    """
    entries = _entries(options)
    if len(entries) < len(options.texts) or not entries:
        return text
    complete, place = re.compile(f"(?i:{_BETWEEN.join(entries.values())}){_ENDS}"), 0
    while (found := complete.search(text, place)) is not None:
        before, behind = text[: found.start()], text[found.end() :]
        if unless(before):
            place = found.end()
        else:
            before = before.rstrip()
            text, place = f"{before}\n{behind.lstrip(_MARKS)}".strip(), max(0, len(before) - 1)
    return text


def is_list(text: str, options: Options) -> bool:
    """Whether a text consists of two or more options in their order, each by its letter and its own text; the last one
    may be cut off.
    """
    entries = _entries(options)
    named, place = "", 0
    for letter, entry in entries.items():
        if found := re.compile(f"{entry}{_BETWEEN}", re.IGNORECASE).match(text, place):
            named, place = named + letter, found.end()
    cut = _CUT.fullmatch(text[place:].strip())
    if cut is not None and named and cut[1] in entries and cut[1] > named[-1]:
        return _own_text(cut[1], options.text(options.place(cut[1]))).lower().startswith(cut[2].lower())
    return len(named) > 1 and not text[place:].strip()


def _entries(options: Options) -> dict[str, str]:
    """Letter -> pattern of the option in a list, for those that have a text."""
    found: dict[str, str] = {}
    for letter, text in zip(options.letters, options.texts, strict=False):
        own = _own_text(letter, text)
        if own:
            words = r"\s+".join(map(re.escape, own.split()))
            ends = "" if re.search(f"[{CJK}]$", own) else r"(?![^\W_])"
            dash = "" if own[0] in "-–=|" else rf"[-–=|]?+{_SPACES}"
            named = rf"{_OPENS}(?<![A-Za-z0-9]){letter}(?=[\"')\].:,]|\s?[-–=|]){_CLOSES}{_SPACES}{dash}"
            found[letter] = rf"(?:(?:option|choice)\s)?{named}[\"']?(?:(?:the|an?)\s)?{words}[\"']?{ends}"
    return found


def _own_text(letter: str, text: str) -> str:
    """A text as a list has it: without its letter, a leading article and a final period."""
    plain = re.sub(rf"^{letter}[.):]\s*", "", text.strip())
    return re.sub(r"^(?:the|an?)\s+(?=\S)", "", plain, flags=re.IGNORECASE).rstrip(". ")


def without_explained(text: str, options: Options) -> tuple[str, list[str]]:
    """A text without a list of all options in their order, each at the start of a line with words about it.

    Also the entries of the list, which end with their line; none if there is no such list.
    """
    if len(options.texts) < 2:
        return text, []
    starts, place = list[int](), 0
    for letter, choice in zip(options.letters, options.texts, strict=False):
        own = re.escape(_own_text(letter, choice)) or "[:.)]"
        named = rf"(?:(?:option|choice)[ ])?[(\[]?{letter}[)\]]?(?:[.:)]|[ ]?[-–—]|[ ]\(?(?={own}))"
        found = re.compile(_LINE_START + named, re.IGNORECASE | re.MULTILINE).search(text, place)
        if found is None:
            return text, []
        starts.append(found.start())
        place = found.end()
    line_ends = text.find("\n", place)
    end = len(text) if line_ends < 0 else line_ends
    entries = [text[start:stop] for start, stop in zip(starts, [*starts[1:], end], strict=True)]
    return f"{text[: starts[0]].rstrip()}\n\n{text[end:].lstrip()}".strip(), entries


def judged_right(entries: Sequence[str]) -> int | None:
    """The only entry of an explained list that is called right, or that alone is not called wrong."""
    left = [place for place, entry in enumerate(entries) if not _WRONG.search(entry)]
    right = [place for place in left if _RIGHT.search(entries[place])]
    return next((found[0] for found in (right, left) if len(found) == 1), None)


def verdict(text: str, options: Options) -> int | None:
    """The only option that is called right where each has a verdict: "A: no. B: yes. C: no"."""
    found = {match[1]: bool(match[2] or match[3]) for match in _VERDICT.finditer(text)}
    right = [letter for letter, is_right in found.items() if is_right]
    each = len(options.letters) > 1 and set(found) == set(options.letters)
    return options.place(right[0]) if each and len(right) == 1 else None
