"""Error rates of transcripts against jiwer, Whisper's normalisers and a second implementation."""

from random import Random

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

from moextend.bench.scorers import Answered, score_set
from moextend.bench.scorers.transcripts import basic_form, english_form

WORDS = """the cat The CAT sat, sat. twenty one 21 $5 don't won't Mr. uh colour [noise] (laughs) <unk> ( ) [ > é e\u0301
ß
Ⅳ ½ 天气 x's 'tis 1,000 1960s % -5 …""".split()  # noqa: SIM905
texts = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
anything = st.one_of(texts, st.text(max_size=20), st.text(alphabet="ab<>[]() '1.", max_size=20))


def answered(pairs: list[tuple[str, str]]) -> list[Answered]:
    return [Answered(str(i), prediction, (gold,)) for i, (prediction, gold) in enumerate(pairs)]


def one_space(text: str) -> str:
    return " ".join(text.split())


@settings(max_examples=100)
@given(anything)
@example("a < b > c ) d ( e")
@example("(()a) [<x]>")
def test_the_basic_form_is_whispers(text: str) -> None:
    assert basic_form(text) == one_space(BasicTextNormalizer()(text))


@settings(max_examples=100)
@given(anything)
@example("twenty one hundred, $2.50 and 10% of the 1960s")
@example("he's got 2nd-hand colour")
def test_the_english_form_is_whispers_without_spellings(text: str) -> None:
    rest = text.lower()
    assume(
        not any(mark in rest for mark in "<[(")
    )  # brackets that nothing closes: spaces from the start here
    assert english_form(text) == one_space(EnglishTextNormalizer({})(one_space(text)))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Mr. Smith won't pay $20 million in the 1960s!", "mister smith will not pay $20000000 in the 1960s"),
        ("twenty-one percent, uh, of one hundred and five", "21% of 105"),
        ("Let's go; he'd been there.", "let us go he had been there"),
        ("[noise] hello (laughs) <unk> it's", "hello it is"),
        ("one oh one, naïve café", "101 naive cafe"),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_frozen_english_forms(text: str, form: str) -> None:
    """wer-en@1 has these forms, whichever transformers is installed; other forms are another version."""
    assert english_form(text) == form


def test_a_corpus_by_hand() -> None:
    """2 errors of 6 words, none of 2, 3 of 1: WER 5/9; the score counts the last item's errors up to its word."""
    pairs = [("the cat sat on", "the cat sat on the mat"), ("Hello, world!", "hello world"), ("a b c", "yes")]
    found = score_set("wer@1", answered(pairs))
    assert found.items == pytest.approx((4 / 6, 1, 0)) and found.weights == pytest.approx((6, 2, 1))
    assert found.value == pytest.approx(1 - 3 / 9)
    assert found.metrics == pytest.approx(
        {"wer": 500 / 9, "substitutions": 100 / 9, "deletions": 200 / 9, "insertions": 200 / 9}
    )
    # w (x - R) with R = 2/3: 0, 2/3 and -2/3; the mean weight is 3.
    assert found.stderr == pytest.approx((3 / 2 * 2 * (2 / 9) ** 2) ** 0.5 / 3)


def spoken(symbols: bool) -> list[tuple[str, str]]:
    """Predictions and references, drawn by `Random.random` only; with signs and British spellings or not."""
    plain = """the a cat sat on twenty one 21 five Mr. smith won't it's don't, harbor. 1960s Hello! hmm uh naïve café
    x-ray (laughs) I'd you've"""
    words = plain.split() + (["$5", "10%", "centre"] if symbols else [])
    rnd = Random(1)

    def draw() -> str:
        return words[int(rnd.random() * len(words))]

    golds = [[draw() for _ in range(3 + int(rnd.random() * 18))] for _ in range(400)]
    answers = [[word if rnd.random() < 0.8 else draw() for word in gold] for gold in golds]
    return [(" ".join(answer), " ".join(gold)) for answer, gold in zip(answers, golds, strict=True)]


@pytest.mark.parametrize(
    ("name", "symbols", "theirs"),
    [
        ("wer@1", True, 21.559805024371954),
        ("wer@1", False, 21.565025716385012),
        ("wer-en@1", False, 23.716673298846),
    ],
)
def test_the_rates_are_lmms_evals(name: str, symbols: bool, theirs: float) -> None:
    """Results of lmms-eval 0.7.3, tasks/asr_wer_utils.py: French for the basic form, English for the other.

    In English it applies the basic form, too, and has a table of spellings: the rates of texts with $ and % differ.
    """
    assert score_set(name, answered(spoken(symbols))).metrics["wer"] == pytest.approx(theirs)
