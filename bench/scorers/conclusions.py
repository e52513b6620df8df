"""Statements of an answer that conclude with an option: "the answer is B", "Option B is correct", "I'd go with B"."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moextend.bench.scorers import letter_forms

BEFORE, AFTER = 200, 1000
"""Characters before a conclusion that are read for its clause, and behind it for its option."""

_ADVERBS = (
    r"(?:(?:actually|clearly|definitely|indeed|likely|most|probably|still|then|therefore|thus)[ \t]++){0,2}"
)
_ANSWER = re.compile(
    rf"(?i:\b(?:{letter_forms.KEYS}|ans|conclusion|my[ ]choice|(?:most[ ]\w+|selected)[ ](?:option|choice))\b"
    r"[\"']?[ \t]*+"
    rf"(?:(?:(?:is|should[ ]be|must[ ]be)\b[ \t]*+{_ADVERBS}:?|[:=→])\s*+))"
    r"|(?:答案|选项)(?:应该是|应当是|应为|应是|是|为|[:=]|: |\] ?)\s*+(?:选项)?"
    r"|(?:答え|回答|解答|正解|正答|正しい選択肢|정답|답)(?:は|은|:|=)\s*+:?\s*+(?:選択肢|선택지|보기)?\s*+"
)
"""What stands before an option that is the answer."""
_OTHER = re.compile(
    rf"\b(?i:(?:it|this|that)(?:'s|[ ]is|[ ](?:must|should|would|can[ ]only|has[ ]to|have[ ]to)[ ]be)[ ]{_ADVERBS}"
    r"|(?:I|we)(?:'ll|'d|[ ](?:will|would|must|should|can))?[ ](?:therefore[ ]|then[ ]|thus[ ])?"
    r"(?:answer|choose|chose|conclude|get|go[ ]with|mean|pick|say|select)[ ]"
    r"|(?:the[ ])?best[ ](?:match|fit|description)[ ]is[ ]"
    r"|(?:hence|so|therefore|thus),?[ ]|that[ ]leaves[ ](?:us[ ]with[ ])?)"
    r"|(?:其实|因此|应该|所以|而|觉得)是\s*+"
)
"""What stands before one that an answer takes in other words."""
_BEST = r"(?:correct|right|best|better|(?:the )?most (?:accurate|appropriate|likely|plausible|suitable|fitting)|only)"
_IS_ANSWER = re.compile(
    rf"(?i:[ \t]*+(?:is|must be|should be|seems to be)[ ]{_ADVERBS}(?:the )?(?:{_BEST}[ ]){{0,2}}"
    r"(?:answer|option|choice))\b|が(?:正(?:解|答|し)|答え)|번?[이가][ ]?(?:정답|맞|옳)"
)
"""What stands behind an option that is the answer."""
_IS_RIGHT = re.compile(
    rf"(?i:[ \t]*+(?:(?:is|would be|must be|should be|seems to be)[ ]{_ADVERBS}(?:the )?{_BEST}"
    r"|(?:fits|matches)[ ]best|makes[ ]the[ ]most[ ]sense)\b)|(?:选?项)?(?:是)?(?:正确|对的)"
)
"""What stands behind one that is called right."""
_UPPER = (
    rf"(?![AI][ \t]+(?!{letter_forms.BEHIND}|[{letter_forms.CJK}]|(?:instead|not|over|rather)\b)\w)([A-Z])"
    rf"(?!['’-]\w|(?![{letter_forms.CJK}])\w)"
)
_LETTER = re.compile(rf"(?i:(?:option|choice|letter)\s+)?[(\[\"'‘“]*(?:{_UPPER}|{letter_forms.LOWER})")
_SUBJECT = re.compile(
    r"(?:\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Ll]etter) )?[(\[\"']{0,2}(?<![\w'’-])([A-Z])(?![\w'’-])[)\]\"'.:]{0,3}"
    rf"|(?<![A-Za-z])([A-Z])\)?(?=[{letter_forms.CJK}])"
)
_CLAUSE = re.compile(r"[,;:.!?\n—]|\b(?:so|therefore|hence|thus|but|and)\b|所以|因此|因而", re.IGNORECASE)
_PLAIN = re.compile(
    r"(?:\W|\b(?:(?:so|therefore|thus|hence|finally|no|wait|actually|sorry|hmm|the|my|this|final|correct|right|best|most|"
    r"likely|means|that|which|it|follows|clearly|overall|consequently|conclusion|conclude|in|to|i|we|say|believe|think)\b)|"
    r"正确|选项|最终|最后|我的|的|故|"
    r"(?:最も)?適切な|正しい|選択肢|よって|したがって|この問題の|私の|따라서|그러므로|선택지|보기)*+$",
    re.IGNORECASE,
)
"""What may stand before a conclusion in its clause."""
_SUPPOSED = re.compile(
    r"\b(?:if|were|when|whenever|assuming|suppose|supposing|unless|had)\b|如果|假如|若|当",
    re.IGNORECASE,
)
_QUOTED = re.compile(
    r"\b(?:argued|argues|believes|claimed|claims|sa(?:id|ys)|thinks)(?: that)?[:,]? ?[\"'“]?(?:[Mm]y |[Tt]he )?$"
)
"""Before what others say."""
_QUALIFIED = re.compile(
    r"[^.!?\n]{0,80}?(?:\?|\b(?:only|if|unless|when)\b|吗|か[.?])|[^.!?,\n]{0,4}?(?:では|じゃ|아[니닙])",
    re.IGNORECASE,
)
_TWO = re.compile(
    r"[^\w]{0,4}(?:or\s+\(?[A-Z]\b|and\s+\(?[A-Z]\)?(?=\s*(?:$|[.,;:!?)]|(?:are|as|because|both|since|together)\b)))"
)
_ENDS = re.compile(
    r"[)\]\"'’”.]*\s*(?:$|[.,;:!\n(—–-]|(?:as|because|for|instead|over|rather|since|which)\b|吧)"
)


@dataclass(frozen=True)
class Conclusion:
    """One conclusion of an answer."""

    start: int
    place: int | None
    """Index of the option; None where it names several."""


def announces(before: str) -> bool:
    """Whether a text ends with the start of a conclusion ("The answer is")."""
    before = f"{before[-BEFORE:]} "
    last = deque(_ANSWER.finditer(before), maxlen=1)
    return bool(last) and not before[last[0].end() :].strip(" \"'([{") and _is_plain(last[0], before)


def strong(text: str, letters: str, choices: Sequence[str], listed: Sequence[str]) -> Iterator[Conclusion]:
    """The conclusions that name the answer by letter, or (with `choices`) by text, last one first."""
    return _conclusions(_ANSWER, _IS_ANSWER, text, letters, choices, listed, ends=False)


def weak(text: str, letters: str, choices: Sequence[str], listed: Sequence[str]) -> Iterator[Conclusion]:
    """The other conclusions, last one first: "it must be B", "I would choose B", "B is correct"."""
    return _conclusions(_OTHER, _IS_RIGHT, text, letters, choices, listed, ends=True)


def _conclusions(
    before: re.Pattern[str],
    behind: re.Pattern[str],
    text: str,
    letters: str,
    choices: Sequence[str],
    listed: Sequence[str],
    *,
    ends: bool,
) -> Iterator[Conclusion]:
    """The conclusions with these words before an option (which ends the clause, if `ends`) or behind it."""
    subjects = [found for found in _SUBJECT.finditer(text) if (found[1] or found[2]) in letters]
    for stated in sorted([*before.finditer(text), *subjects], key=lambda found: -found.start()):
        if stated.re is before:
            rest = text[stated.end() : stated.end() + AFTER]
            place, clear = _option(rest, letters, choices, listed, ends=ends)
        else:
            place = letters.index(stated[1] or stated[2])
            called = behind.match(text, _behind_own(text, stated.end(), place, listed))
            clear = called is not None and not _QUALIFIED.match(text, called.end())
        if clear and _is_plain(stated, text):
            yield Conclusion(stated.start(), place)


def _behind_own(text: str, place: int, letter: int, listed: Sequence[str]) -> int:
    """The place behind an option's own text, if it stands at `place`."""
    if letter >= len(listed) or not listed[letter]:
        return place
    own = re.compile(rf"[ \t(\"':,–-]{{0,4}}{re.escape(listed[letter])}[\")',]{{0,2}}", re.IGNORECASE)
    found = own.match(text, place)
    return found.end() if found else place


def _option(
    text: str, letters: str, choices: Sequence[str], listed: Sequence[str], *, ends: bool
) -> tuple[int | None, bool]:
    """The option at the start of what a conclusion says, None for several; and whether it says one clearly."""
    line = text.partition("\n")[0]
    found = same(line.strip(" \"'()[]{}"), letters, choices)
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
    if ends and not _ENDS.match(behind):
        return None, False
    return (None if letter_forms.MORE.match(behind) or _TWO.match(behind) else place), True


def _is_plain(stated: re.Match[str], text: str) -> bool:
    """Whether a conclusion is neither denied, supposed nor that of others, by the text before it."""
    before = text[max(0, stated.start() - BEFORE) : stated.start()]
    sentence = re.split(r"[.!?\n]\s", before)[-1]
    clause = _CLAUSE.split(sentence)[-1]
    if stated[0][0] in "答选回解正정답":
        clause = clause.rpartition(" ")[2]
    return bool(_PLAIN.match(clause)) and not _SUPPOSED.search(sentence) and not _QUOTED.search(before)


def same(answer: str, letters: str, choices: Sequence[str]) -> int | None:
    """The choice whose text is the answer as it is written: "-1" is not "1", and "$10" not "10"."""
    written = answer.strip().rstrip(".").lower()
    found = [i for i, choice in enumerate(choices) if choice.strip().rstrip(".").lower() == written]
    return found[0] if len(found) == 1 and written.upper() not in list(letters) else None
