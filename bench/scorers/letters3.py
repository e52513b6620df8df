"""Reads the option from a longer answer by the rules of version 3.

They are those of `letters`, and: a list of the options that an answer repeats is not read; a conclusion ("so the answer
is B") goes before the letter that an answer starts with, and is the only statement that does; what follows a next
question is not read.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from functools import partial

from moextend.bench.scorers import letters as version2
from moextend.bench.scorers.gold import Gold
from moextend.bench.scorers.option_lists import is_list, without_lists

BEFORE = 200
"""Characters before a conclusion that are read for its clause."""

_ADVERBS = (
    r"(?:(?:actually|clearly|definitely|indeed|likely|most|probably|still|then|therefore|thus)[ \t]++){0,2}"
)
_CONCLUSION = re.compile(
    rf"(?i:\b(?:{version2.KEYS})\b[\"']?[ \t]*+(?:(?:(?:is|should[ ]be|must[ ]be)\b[ \t]*+{_ADVERBS}:?|[:=])\s*+))"
    r"|(?:答案|选项)(?:应该是|应当是|应为|应是|是|为|[:=]|: )\s*+",
)
_LETTER = re.compile(rf"(?i:(?:option|choice|letter)\s+)?[(\[\"']*(?:{version2.UPPER}|{version2.LOWER})")
_CLAUSE = re.compile(r"[,;:.!?\n—]|\b(?:so|therefore|hence|thus|but|and)\b|所以|因此|因而", re.IGNORECASE)
_PLAIN = re.compile(
    r"(?:\W|\b(?:(?:so|therefore|thus|hence|finally|no|wait|actually|sorry|hmm|the|my|this|final|correct|right|best|most|"
    r"likely|means|that|which|it|follows|clearly|overall|consequently|conclusion|conclude|in|to|i|we|say|believe|think)\b)|"
    r"正确|最终|最后|我的|的|故)*+$",
    re.IGNORECASE,
)
"""What may stand before a conclusion in its clause."""
_SUPPOSED = re.compile(
    r"\b(?:if|were|when|whenever|assuming|suppose|supposing|unless|had)\b|如果|假如|若|当", re.IGNORECASE
)
_QUALIFIED = re.compile(r"[^.!?\n]{0,80}?(?:\?|\b(?:only|if|unless|when)\b|吗)", re.IGNORECASE)
_TWO = re.compile(r"[^\w]{0,4}(?:and|or)\s+\(?[A-Z]\b")
_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL)
_TAGGED = re.compile(r"<(answer|final|choice)>\s*+[(\[\"']?([A-Za-z])[)\]\"'.]{0,2}\s*+</\1>", re.IGNORECASE)
_NEXT = re.compile(
    r"\n[ \t#]*+(?:(?:(?:next )?(?:question|exercise|user|human|q)|问题|题目) ?\d* ?[:.]|question \d)",
    re.IGNORECASE,
)
"""A next question, which a model goes on with."""
_NUMBERED = re.compile(r"\n[ \t]*+\d+[.)] ")
"""The same behind an answer that starts with a letter."""
_LAST_LINE = re.compile(r"\n[ \t]{0,8}+\n\s{0,8}+[(\[\"']?([A-Z])[)\]\"'.]{0,2}$")


def letter3(prediction: str, gold: Gold) -> float:
    """1 for the right letter as `letter2` reads it, but for lists of the options and conclusions.

    A question without choices among others is scored as `exact`.
    """
    return version2.judged(prediction, gold, partial(_read, choices=(), listed=gold.choices or ()))


def option3(prediction: str, gold: Gold) -> float:
    """1 for the right letter as `letter3` reads it, or for the text of the right choice and of no other."""
    listed = gold.choices or ()
    return version2.judged(prediction, gold, partial(_read, choices=listed, listed=listed))


def _read(prediction: str, letters: str, choices: Sequence[str], listed: Sequence[str]) -> int | None:
    """Index of the option in an answer, by letter or (with `choices`) by text; `listed`: all options."""
    answer = _THOUGHT.sub("", prediction).strip() or prediction
    tagged = [found[2].upper() for found in _TAGGED.finditer(answer) if found[2].upper() in letters]
    found = letters.index(tagged[-1]) if tagged else version2.boxed(answer, letters)
    if found is None:
        found = _same(answer, letters, choices)
    if found is not None:
        return found
    text, listed = version2.plain(answer), [version2.plain(choice) for choice in listed]
    for ends in (_NEXT, _NUMBERED):
        head = ends.split(text, maxsplit=1)[0].strip()
        if head in ("", text) or (ends is _NUMBERED and version2.first_letter(head, letters) is None):
            continue
        if (found := _read_text(head, letters, choices, listed)) is not None:
            return found
    return _read_text(text, letters, choices, listed)


def _read_text(text: str, letters: str, choices: Sequence[str], listed: Sequence[str]) -> int | None:
    if is_list(text, letters, listed):
        return None
    text = without_lists(text, letters, listed, unless=_announces)
    last = _LAST_LINE.search(text)
    if last is not None and last[1] in letters and not re.fullmatch(r"[\sA-Z]+", text):
        return letters.index(last[1])
    first = version2.first_letter(text, letters)
    if first is None and version2.full_text(text, letters, choices) is None:
        first = version2.tight_letter(text, letters)
    for stated in reversed([*_CONCLUSION.finditer(text)]):
        if _is_plain(stated, text) and not _is_own(stated, text, first, listed):
            found, clear = _concluded(text[stated.end() :], letters, choices, listed)
            if clear:
                return found
    return version2.read_sentence(text, letters, choices) if first is None else first


def _concluded(
    text: str, letters: str, choices: Sequence[str], listed: Sequence[str]
) -> tuple[int | None, bool]:
    """The option at the start of what a conclusion says, None for several; and whether it says one clearly."""
    line = text.partition("\n")[0]
    found = _same(line.strip(" \"'()[]{}"), letters, choices)
    if found is not None:
        return found, True
    letter = _LETTER.match(text)
    if letter is None:
        return None, False
    place = letters.find((letter[1] or letter[2]).upper())
    behind = text[letter.end() :]
    if place < 0 or _QUALIFIED.match(behind):
        return None, False
    own = listed[place] if place < len(listed) else ""
    after = behind.lstrip(" ).:(\"'")
    behind = after[len(own) :] if own and after.startswith(own) else behind
    return (None if version2.MORE.match(behind) or _TWO.match(behind) else place), True


def _is_plain(stated: re.Match[str], text: str) -> bool:
    """Whether a conclusion is neither denied, supposed nor that of others, by the text before it."""
    before = text[max(0, stated.start() - BEFORE) : stated.start()]
    sentence = re.split(r"[.!?\n]\s", before)[-1]
    clause = _CLAUSE.split(sentence)[-1]
    if stated[0][0] in "答选":
        clause = clause.rpartition(" ")[2]
    return bool(_PLAIN.match(clause)) and not _SUPPOSED.search(sentence)


def _announces(before: str) -> bool:
    """Whether a text ends with the start of a conclusion ("The answer is")."""
    before = f"{before[-BEFORE:]} "
    last = deque(_CONCLUSION.finditer(before), maxlen=1)
    return bool(last) and not before[last[0].end() :].strip(" \"'([{") and _is_plain(last[0], before)


def _is_own(stated: re.Match[str], text: str, first: int | None, listed: Sequence[str]) -> bool:
    """Whether a conclusion is in the text of the choice behind the first letter: "A. The answer is B"."""
    own = listed[first] if first is not None and first < len(listed) else ""
    start = text.find(own, 1)
    return bool(own) and 0 <= start <= stated.start() and stated.end() <= start + len(own)


def _same(answer: str, letters: str, choices: Sequence[str]) -> int | None:
    """The choice whose text is the answer as it is written: "-1" is not "1", and "$10" not "10"."""
    written = answer.strip().rstrip(".").lower()
    same = [i for i, choice in enumerate(choices) if choice.strip().rstrip(".").lower() == written]
    return same[0] if len(same) == 1 and written.upper() not in list(letters) else None
