"""Reads the option in the answer to a multiple-choice question.

The forms are those of `letter_forms`. A list of the options that an answer repeats is not read; a conclusion ("so the
answer is B") and a last line "B. blue" go before the letter that an answer starts with; what follows a next question is
not read; where a text names no option, its last paragraph alone may.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence

from moextend.bench.scorers import conclusions, letter_forms
from moextend.bench.scorers.gold import Gold
from moextend.bench.scorers.letter_forms import CJK, Options, plain, written
from moextend.bench.scorers.rules import exact, gold_position

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
_MARKED = re.compile(
    r"(?:\\boxed\s*\{|<(?:answer|final|choice)>)\s*+(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\s*+)?([^{}<]{1,300})",
    re.IGNORECASE,
)
"""What an answer marks as its result."""
_DRESSED = re.compile(r"[(\[\"']?([A-Za-z])[)\]\"'.:]{0,2}(?=\s|$)")
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


def option(prediction: str, gold: Gold) -> float:
    """1 for the right letter in any usual dress ("**B**", "Option B", "\\boxed{B}", "A. ..., so the answer is B"), or
    for the text of the right choice and of no other.

    Where the choices are letters themselves, a letter is the option's, never its text. A question without choices among
    others is scored as `exact`.
    """
    right = gold_position(gold)
    if right is None:
        return exact(prediction, gold)
    return float(_read(prediction, gold.choices or ()) == right)


def _read(prediction: str, choices: tuple[str, ...]) -> int | None:
    """Index of the option in an answer, by letter or by text."""
    letters = string.ascii_uppercase[: len(choices) or 26]
    options = Options(letters, [plain(choice) for choice in choices])
    answer = _THOUGHT.sub("", prediction).strip() or prediction
    answer = _TOKEN.sub("", _ENDED.sub("", answer)).strip() or answer
    answer = _COURTESY.sub("", _BREAK.sub("\n", answer)) or answer
    text = _without_denied(plain(answer), options)
    marked = _MARKED.findall(answer)[-1:]
    for whole in (*marked, answer.strip("*_ \n")):
        if (found := written(whole, letters, choices)) is not None:
            return found
    dressed = _DRESSED.match(marked[0]) if marked else None
    for found in (options.place(dressed[1]) if dressed else None, options.written(text)):
        if found is not None:
            return found
    for ends in (_NEXT, _NUMBERED):
        if (next_one := ends.search(text)) is None:
            continue
        head = (text[: next_one.start()] or next_one[0][:2]).strip()
        if head in ("", text) or (ends is _NUMBERED and options.first_letter(head) is None):
            continue
        if (found := _read_text(head, options)) is not None:
            return found
    return _read_text(text, options)


def _read_text(text: str, options: Options) -> int | None:
    if is_list(text, options):
        return None
    text = without_lists(text, options, unless=conclusions.announces)
    text, explained = without_explained(text, options)
    if not text:
        return judged_right(explained)
    for found in (verdict(text, options), _closing(text, options)):
        if found is not None:
            return found
    first = options.first_letter(text)
    if first is None and options.full_text(text) is None:
        first = options.tight_letter(text)
    for start, place in conclusions.strong(text, options):
        if not _is_own(start, text, options.text(first)):
            return place
    if first is None or _RETHINKS.search(text):
        for _, place in conclusions.weak(text, options):
            return place
    if first is not None:
        return first
    word = _WORD.match(text)
    named = options.written(word[1]) if word else None
    for found in (named, judged_right(explained), _only_named(text, options)):
        if found is not None:
            return found
    last = _PARAGRAPH.split(text)[-1].strip()
    return None if last == text else _only_named(last, options)


def _without_denied(text: str, options: Options) -> str:
    """A text with "C" for "not B but C", by letter or by text, also in Chinese, Japanese and Korean."""
    if not _BUT.search(text):
        return text
    own = "".join(f"|{re.escape(choice)}" for choice in options.texts if choice)
    option = rf"(?:(?:option|choice)[ ])?[(\"']?(?:(?-i:[A-Z])(?![a-z]){own})[)\"']?"
    denied = (
        rf"(?:(?:^|[ ])not|n't)[ ]{option},?[ ]but(?:[ ]rather)?(?=[ ]{option})"
        rf"|不是[ ]?{option}[, ]{{0,2}}而(?=是)|{option}번?(?:ではなく|じゃなく|[이가] ?아니라)[, ]{{0,2}}"
    )
    return re.sub(denied, "", text, flags=re.IGNORECASE).strip()


def _closing(text: str, options: Options) -> int | None:
    """The option that is a last paragraph of one line, by its letter or by letter and text, or a last sentence."""
    *before, last = _PARAGRAPH.split(text)
    last = last.strip()
    if before and len(last) <= LINE and "\n" not in last and not re.fullmatch(r"[\sA-Z]+", text):
        found = _LINE.match(last, _LEADS.match(last).end())  # type: ignore[union-attr]
        place = options.place(found[1]) if found else None
        if found is not None and place is not None:
            own, rest = options.text(place).strip(" .\"'"), last[found.end() :].strip(" .\"'")
            line = before[-1].strip().rpartition("\n")[2]
            goes_on = place and re.match(rf"\W*{options.letters[place - 1]}\b", line)
            if not rest or (own and rest.lower() == own.lower() and not goes_on):
                return place
    end = _LAST.search(text[-LINE:])
    return options.place(end[1]) if end and end[1].isupper() else None


def _only_named(text: str, options: Options) -> int | None:
    """The option of a text without a conclusion; None if other letters stand in it, but for "... is option B"."""
    if _OPEN.search(text):
        return None
    found = options.sentence(text)
    if found is None or _KEY.search(text):
        return found
    for choice in options.texts:
        text = text.replace(choice, " ")
    return None if {*_ALONE.findall(text)} & {*options.letters} - {options.letters[found]} else found


def _is_own(start: int, text: str, own: str) -> bool:
    """Whether a conclusion is in the text `own` of the choice behind the first letter: "A. The answer is B"."""
    begins = text.find(own, 1)
    return bool(own) and 0 <= begins <= start < begins + len(own)
