"""Reads the option from a longer answer.

The formats are those of `letter_forms`. A list of the options that an answer repeats is not read; a conclusion ("so the
answer is B") and a last line "B. blue" go before the letter that an answer starts with; what follows a next question is
not read; where a text names no option, its last paragraph alone may.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from moextend.bench.scorers import conclusions, letter_forms
from moextend.bench.scorers.gold import Gold
from moextend.bench.scorers.option_lists import (
    is_list,
    judged_right,
    verdict,
    without_explained,
    without_lists,
)

LINE = 300
"""Characters of a last line that can be an option."""

_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL)
_ENDED = re.compile(r"<\|(?:im_end|eot_id|end_of_text|endoftext|end)\|>.*", re.DOTALL)
_COURTESY = re.compile(
    r"^(?:(?:assistant:|(?:sure|certainly|of course)\b[^\n]*\n)\s*+)"
    r"|(?<!\s)\s++(?:(?:I )?hope (?:this|that) helps|(?:please )?let me know|feel free|if you have any)\b[^\n]*$",
    re.IGNORECASE,
)
_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)
_TOKEN = re.compile(r"<\|[a-z_]{1,30}\|>")
_TAGGED = re.compile(r"<(answer|final|choice)>\s*+[(\[\"']?([A-Za-z])[)\]\"'.]{0,2}\s*+</\1>", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?([^{}]{1,300})\}")
_NEXT = re.compile(
    r"(?:\n[ \t#]*+|^[(\[]?[A-Z][)\].:]{1,2} )"
    r"(?:(?:(?:next )?(?:question|exercise|user|human|q)|问题|题目) ?\d* ?[:.]|question \d)",
    re.IGNORECASE,
)
"""A next question, which a model goes on with."""
_NUMBERED = re.compile(r"\n[ \t]*+\d+[.)] ")
"""The same behind an answer that starts with a letter."""
_PARAGRAPH = re.compile(r"\n[ \t]{0,8}+\n")
_LEADS = re.compile(
    r"(?:[-•+][ ]+|(?:so|therefore|thus|hence|(?:final )?answer|(?:in )?conclusion|(?:最终)?答案)\b[ ]*[,:]?\s*)*+",
    re.IGNORECASE,
)
"""What may stand before the option in a last line."""
_LINE = re.compile(r"[(\[\"']{0,2}([A-Z])[)\]\"'.:]{0,3}(?![A-Za-z0-9])")
_LAST = re.compile(
    rf"(?:[a-z)\]\"'{letter_forms.CJK}]{{2}}[.!?]\s+(?:(?:so|therefore|thus|hence)\b,?\s*)?"
    r"|\b(?:(?:wait|no|sorry|correction)[,:.]|actually,?)\s+(?:actually,? )?)"
    r"(?:it's |it is |i mean )?\(?([A-Z])\)?\.?$",
    re.IGNORECASE,
)
"""A letter alone as the last sentence, or as a correction."""
_BRACKETED = re.compile(r"\(([A-Z])\)[.!]?$")
_RETHINKS = re.compile(
    r"\b(?:wait|hmm+|sorry|(?:up)?on (?:second thought|reflection)|let me (?:check|double-check|re-?\w+))\b"
    "|不对|等等",
    re.IGNORECASE,
)
"""What an answer says before it changes its mind."""
_ALONE = re.compile(r"(?<![\w'’-])([B-HJ-Z])(?![\w'’-])")
_KEY = re.compile(
    rf"\b(?:{letter_forms.KEYS})\b|答案|选|\b(?:option|choice|letter) [A-Z][).]{{0,2}}$", re.IGNORECASE
)
_BUT = re.compile(r"\bbut\b|而是|なく|아니라", re.IGNORECASE)
_OPEN = re.compile(
    r"\botherwise\b|\bif\b[^.\n]*\belse\b|吗"
    r"|\b(?:(?:do|does|can)(?:n't| not)|cannot) (?:think|believe|say|know)\b"
    r"|\b(?:doubt|unlikely|nobody|no way|unsure|unclear|not (?:sure|clear|certain))\b",
    re.IGNORECASE,
)
"""What an answer says that leaves it open, or denies it: "if it is dark, A; otherwise B", "I don't think it is B"."""
_WORD = re.compile(r"(yes|no|true|false)\b(?=\s*[,.;:!\n—–-])", re.IGNORECASE)


def letter(prediction: str, gold: Gold) -> float:
    """1 for the right letter in any usual dress: "**B**", "Option B", "\\boxed{B}", "A. ..., so the answer is B".

    A question without choices among others is scored as `exact`.
    """
    return letter_forms.judged(prediction, gold, partial(_read, choices=(), listed=gold.choices or ()))


def option(prediction: str, gold: Gold) -> float:
    """1 for the right letter as `letter` reads it, or for the text of the right choice and of no other.

    Where the choices are letters themselves, a letter is the option's, never its text.
    """
    listed = gold.choices or ()
    return letter_forms.judged(prediction, gold, partial(_read, choices=listed, listed=listed))


def _read(prediction: str, letters: str, choices: Sequence[str], listed: Sequence[str]) -> int | None:
    """Index of the option in an answer, by letter or (with `choices`) by text; `listed`: all options."""
    answer = _THOUGHT.sub("", prediction).strip() or prediction
    answer = _TOKEN.sub("", _ENDED.sub("", answer)).strip() or answer
    answer = _COURTESY.sub("", _BREAK.sub("\n", answer)) or answer
    tagged = [found[2].upper() for found in _TAGGED.finditer(answer) if found[2].upper() in letters]
    if tagged:
        return letters.index(tagged[-1])
    forms = [letter_forms.plain(choice) for choice in choices]
    text = _without_denied(letter_forms.plain(answer), forms)
    boxed = _BOXED.findall(answer)
    for reading in (
        conclusions.same(boxed[-1], letters, choices) if boxed else None,
        letter_forms.boxed(answer, letters),
        conclusions.same(answer.strip("*_ \n"), letters, choices),
        conclusions.same(text, letters, forms),
    ):
        if reading is not None:
            return reading
    listed = [letter_forms.plain(choice) for choice in listed]
    for ends in (_NEXT, _NUMBERED):
        if (next_one := ends.search(text)) is None:
            continue
        head = (text[: next_one.start()] or next_one[0][:2]).strip()
        if head in ("", text) or (ends is _NUMBERED and letter_forms.first_letter(head, letters) is None):
            continue
        if (found := _read_text(head, letters, forms, listed)) is not None:
            return found
    return _read_text(text, letters, forms, listed)


def _read_text(text: str, letters: str, choices: Sequence[str], listed: Sequence[str]) -> int | None:
    if is_list(text, letters, listed):
        return None
    text = without_lists(text, letters, listed, unless=conclusions.announces)
    text, explained = without_explained(text, letters, listed)
    if not text:
        return judged_right(explained)
    if (found := verdict(text, letters)) is not None:
        return found
    if (found := _closing(text, letters, listed)) is not None:
        return found
    first = letter_forms.first_letter(text, letters)
    if first is None and letter_forms.full_text(text, letters, choices) is None:
        first = letter_forms.tight_letter(text, letters)
    for each in conclusions.strong(text, letters, choices, listed):
        if not _is_own(each.start, text, first, listed):
            return each.place
    if first is not None and not _RETHINKS.search(text):
        return first
    if (other := next(conclusions.weak(text, letters, choices, listed), None)) is not None:
        return other.place
    if first is not None:
        return first
    word = _WORD.match(text)
    for reading in (
        conclusions.same(word[1], letters, choices) if word else None,
        judged_right(explained),
        _bracketed(text, letters),
        _only_named(text, letters, choices),
    ):
        if reading is not None:
            return reading
    last = _PARAGRAPH.split(text)[-1].strip()
    if last == text:
        return None
    return _only_named(last, letters, choices)


def _without_denied(text: str, choices: Sequence[str]) -> str:
    """A text with "C" for "not B but C", by letter or by text, also in Chinese, Japanese and Korean."""
    if not _BUT.search(text):
        return text
    own = "".join(f"|{re.escape(choice)}" for choice in choices if choice)
    option = rf"(?:(?:option|choice)[ ])?[(\"']?(?:(?-i:[A-Z])(?![a-z]){own})[)\"']?"
    denied = (
        rf"(?:(?:^|[ ])not|n't)[ ]{option},?[ ]but(?:[ ]rather)?(?=[ ]{option})"
        rf"|不是[ ]?{option}[, ]{{0,2}}而(?=是)|{option}번?(?:ではなく|じゃなく|[이가] ?아니라)[, ]{{0,2}}"
    )
    return re.sub(denied, "", text, flags=re.IGNORECASE).strip()


def _closing(text: str, letters: str, listed: Sequence[str]) -> int | None:
    """The option that is a last paragraph of one line, by its letter or by letter and text, or a last sentence."""
    *before, last = _PARAGRAPH.split(text)
    last = last.strip()
    if before and len(last) <= LINE and "\n" not in last and not re.fullmatch(r"[\sA-Z]+", text):
        found = _LINE.match(last, _LEADS.match(last).end())  # type: ignore[union-attr]
        place = letters.find(found[1]) if found else -1
        if found is not None and place >= 0:
            own = listed[place] if place < len(listed) else ""
            rest = last[found.end() :].strip(" .\"'")
            goes_on = (
                re.match(rf"\W*{letters[place - 1]}\b", before[-1].strip().rpartition("\n")[2])
                if place
                else None
            )
            if not rest or (own and rest.lower() == own.strip(" .\"'").lower() and not goes_on):
                return place
    return _place(_LAST.search(text[-LINE:]), letters)


def _bracketed(text: str, letters: str) -> int | None:
    """The only letter in brackets of the last sentence, if it ends it: "the color is blue (B)"."""
    sentence = re.split(r"[.!?]\s", text[-LINE:])[-1]
    return _place(_BRACKETED.search(sentence), letters) if sentence.count("(") == 1 else None


def _place(found: re.Match[str] | None, letters: str) -> int | None:
    """Index of the option whose letter was found, if there is such an option."""
    return letters.index(found[1]) if found is not None and found[1] in letters else None


def _only_named(text: str, letters: str, choices: Sequence[str]) -> int | None:
    """The option of a text without a conclusion; None if other letters stand in it, but for "... is option B"."""
    if _OPEN.search(text):
        return None
    found = letter_forms.read_sentence(text, letters, choices)
    if found is None or _KEY.search(text):
        return found
    for choice in choices:
        text = text.replace(choice, " ")
    return None if {*_ALONE.findall(text)} & {*letters} - {letters[found]} else found


def _is_own(start: int, text: str, first: int | None, listed: Sequence[str]) -> bool:
    """Whether a conclusion is in the text of the choice behind the first letter: "A. The answer is B"."""
    own = listed[first] if first is not None and first < len(listed) else ""
    begins = text.find(own, 1)
    return bool(own) and 0 <= begins <= start < begins + len(own)
