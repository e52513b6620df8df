"""Statements of an answer that conclude with an option: "the answer is B", "Option B is correct", "I'd go with B"."""

from __future__ import annotations

import re
from collections.abc import Iterator

from moextend.bench.scorers import letter_forms
from moextend.bench.scorers.letter_forms import Options

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
Found = tuple[int, int | None]
"""Where a conclusion starts, and the index of its option; None where it names several."""


def announces(before: str) -> bool:
    """Whether a text ends with the start of a conclusion ("The answer is")."""
    before = f"{before[-BEFORE:]} "
    last = list(_ANSWER.finditer(before))[-1:]
    return bool(last) and not before[last[0].end() :].strip(" \"'([{") and _is_plain(last[0], before)


def strong(text: str, options: Options) -> Iterator[Found]:
    """The conclusions that name the answer by letter or text, last one first."""
    return _conclusions(_ANSWER, _IS_ANSWER, text, options)


def weak(text: str, options: Options) -> Iterator[Found]:
    """The other conclusions, last one first: "it must be B", "I would choose B", "B is correct"."""
    return _conclusions(_OTHER, _IS_RIGHT, text, options)


def _conclusions(
    before: re.Pattern[str], behind: re.Pattern[str], text: str, options: Options
) -> Iterator[Found]:
    """The conclusions with these words before an option or behind it."""
    subjects = [found for found in _SUBJECT.finditer(text) if options.place(found[1] or found[2]) is not None]
    for stated in sorted([*before.finditer(text), *subjects], key=lambda found: -found.start()):
        if stated.re is before:
            place, clear = _option(text[stated.end() : stated.end() + AFTER], options)
        else:
            place = options.place(stated[1] or stated[2])
            called = behind.match(text, _behind_own(text, stated.end(), options.text(place)))
            clear = called is not None and not _QUALIFIED.match(text, called.end())
        if clear and _is_plain(stated, text):
            yield stated.start(), place


def _behind_own(text: str, place: int, own: str) -> int:
    """The place behind an option's own text, if it stands at `place`."""
    found = re.compile(rf"[ \t(\"':,–-]{{0,4}}{re.escape(own)}[\")',]{{0,2}}", re.IGNORECASE).match(
        text, place
    )
    return found.end() if own and found else place


def _option(text: str, options: Options) -> tuple[int | None, bool]:
    """The option at the start of what a conclusion says, None for several; and whether it says one clearly."""
    found = options.written(text.partition("\n")[0].strip(" \"'()[]{}"))
    if found is not None:
        return found, True
    letter = _LETTER.match(text)
    place = options.place(letter[1] or letter[2]) if letter else None
    if letter is None or place is None:
        return None, False
    behind, own = text[letter.end() :], options.text(place)
    if _QUALIFIED.match(behind):
        return None, False
    after = behind.lstrip(" ).:(\"'")
    behind = after[len(own) :] if own and after.startswith(own) else behind
    return (None if letter_forms.MORE.match(behind) or _TWO.match(behind) else place), True


def _is_plain(stated: re.Match[str], text: str) -> bool:
    """Whether a conclusion is neither denied, supposed nor that of others, by the text before it."""
    before = text[max(0, stated.start() - BEFORE) : stated.start()]
    sentence = re.split(r"[.!?\n]\s", before)[-1]
    clause = _CLAUSE.split(sentence)[-1]
    if stated[0][0] in "答选回解正정답":
        clause = clause.rpartition(" ")[2]
    return bool(_PLAIN.match(clause)) and not _SUPPOSED.search(sentence) and not _QUOTED.search(before)
