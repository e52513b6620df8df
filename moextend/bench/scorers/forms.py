"""Normal forms of texts for the comparison of answers."""

from __future__ import annotations

import re
import string
from functools import lru_cache

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_MARKED = re.compile(f"[{re.escape(_PUNCTUATION)}]")
_PERIOD = re.compile(r"\.(?!\d)")
_COMMA = re.compile(r"\d,\d")
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
_NUMBERS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_ARTICLES = ("a", "an", "the")
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've
we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've
you'll you're you've
"""


def _contractions() -> dict[str, str]:
    """The official map: each word without one of its apostrophes -> the word."""
    found = {"somebody'd": "somebodyd"}
    for word in _CONTRACTED.split():
        places = [i for i, letter in enumerate(word) if letter == "'"]
        found |= {word[:i] + word[i + 1 :]: word for i in places}
    return found


_CONTRACTIONS = _contractions()


def plain(text: str) -> str:
    """Stripped, lower-case, without periods at the end (GQA's form)."""
    return text.strip().rstrip(".").strip().lower()


@lru_cache(maxsize=1 << 16)
def vqa_form(text: str) -> str:
    """The normal form of the official VQA evaluation: punctuation, numbers, articles, contractions."""
    text = one_line(text)
    out = text
    joined = _COMMA.search(text) is not None
    for mark in set(_MARKED.findall(text)):
        spaced = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if spaced or joined else " ")
    words = [_NUMBERS.get(word, word) for word in _PERIOD.sub("", out).lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


@lru_cache(maxsize=1 << 16)
def evalai_form(text: str) -> str:
    """The form of TextVQA and VizWiz (EvalAI): without commas and question marks, `'s` separate, then `vqa_form`."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return vqa_form(text.strip())


def one_line(text: str) -> str:
    """Stripped, with line breaks and tabs as spaces."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 16)
def squad_form(text: str) -> str:
    """The form of SQuAD: lower case, without ASCII punctuation, then without articles; one space between words."""
    unmarked = text.lower().translate(_ASCII_PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", unmarked).split())


def words_form(text: str) -> str:
    """Stripped, lower-case, one space between words (ANLS)."""
    return " ".join(text.lower().split())
