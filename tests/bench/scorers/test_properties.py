"""Properties of all scorers for all texts."""

from dataclasses import dataclass
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from moextend.bench.scorers import own_answer, readings
from moextend.bench.scorers.forms import evalai_form, plain, vqa_form
from moextend.bench.scorers.published import PUBLISHED
from tests.bench.scorers.single import SINGLE, score


@dataclass(frozen=True)
class Gold:
    answers: tuple[str, ...]
    choices: tuple[str, ...] | None = None
    position: int | None = None


# Words as they occur, and texts as nobody foresees them.
words = st.lists(
    st.sampled_from(
        [
            "the",
            "a",
            "Red",
            "two",
            "dont",
            "1,000",
            "3.5",
            "x-y",
            "u.s.",
            "what?",
            "No.",
            "yes",
            "B",
            "42%",
            "'s",
        ]
    ),
    max_size=4,
)
texts = st.one_of(words.map(" ".join), st.text(max_size=20))
non_blank = texts.filter(lambda text: text.strip())
names = st.sampled_from(SINGLE)
# The papers' rules take golds as they are written: what begins or ends with a space is no gold there.
PAPERS = {scorer.name for scorer in PUBLISHED}
LETTERED = st.sampled_from(["letter@1", "letter@4", "option@1", "option@4"])
YES_OR_NO = {"pope@2", "mme@1"}
golds = st.builds(Gold, st.lists(non_blank, min_size=1, max_size=10).map(tuple))


@given(names, texts, golds)
def test_between_nothing_and_one(name: str, prediction: str, gold: Gold) -> None:
    assert 0.0 <= score(name, prediction, gold) <= 1.0
    assert set(readings(prediction, gold).values()) <= {0.0, 1.0}


@given(names, st.sampled_from(["", " ", "\n", "\t "]), golds)
def test_an_empty_answer_is_never_right(name: str, nothing: str, gold: Gold) -> None:
    assert score(name, nothing, gold) == 0.0
    assert readings(nothing, gold) == {"strict": 0.0, "normalised": 0.0}


@given(names.filter(lambda name: name not in PAPERS | YES_OR_NO), non_blank, st.integers(1, 10))
def test_the_own_answer_scores_one(name: str, answer: str, annotators: int) -> None:
    gold = Gold((answer,) * annotators)
    assert score(name, own_answer(name, gold), gold) == 1.0
    assert readings(answer, gold) == {"strict": 1.0, "normalised": 1.0}


@given(
    st.sampled_from(sorted(PAPERS & set(SINGLE))),
    st.sampled_from(["red", "b", "1,000", "5%", "[a]"]),
)
def test_the_own_answer_scores_one_by_the_rules_of_papers(name: str, answer: str) -> None:
    gold = Gold((answer,))
    assert score(name, own_answer(name, gold), gold) == 1.0


@given(LETTERED, st.lists(non_blank, min_size=2, max_size=6, unique_by=str.strip), st.data())
def test_the_own_letter_scores_one(name: str, choices: list[str], data: st.DataObject) -> None:
    gold = Gold((data.draw(st.sampled_from(choices)),), tuple(choices))
    assert score(name, own_answer(name, gold), gold) == 1.0


@given(
    st.sampled_from(["letter@4", "option@4"]),
    st.permutations("ABCD"),
    st.integers(0, 3),
)
def test_one_letter_is_right_where_the_choices_are_letters(name: str, choices: list[str], right: int) -> None:
    """Two of them were: the letter of the option, and the letter that is its text."""
    gold = Gold((choices[right],), tuple(choices))
    assert [score(name, letter, gold) for letter in "ABCD"] == [float(i == right) for i in range(4)]


@given(
    st.sampled_from(["letter@4", "option@4"]),
    st.sampled_from("BCD"),
    st.text("abcdefgh BCDXYZ", min_size=1, max_size=12),
)
def test_a_letter_inside_a_word_is_none(name: str, letter: str, rest: str) -> None:
    """Not before a word, not in one, not behind one."""
    gold = Gold((letter,), ("one", "two", "three", "four"))
    assert score(name, f"x{letter}{rest.replace(' ', '')}x", gold) == 0.0


@given(st.sampled_from(["yes", "no", "Yes", "No", "Yes.", "No.", "NO", "YES", "nO."]))
def test_scorers_of_yes_and_no_know_their_own_answers(answer: str) -> None:
    gold, name = Gold((answer,)), "pope@2"
    assert score("mme@1", own_answer("mme@1", gold), gold) == 1.0
    assert score(name, own_answer(name, gold), gold) == 1.0
    if answer not in ("NO", "nO."):
        assert own_answer(name, gold) == answer


@given(names, non_blank, golds)
def test_outer_spaces_change_nothing(name: str, prediction: str, gold: Gold) -> None:
    assert score(name, f"  {prediction} ", gold) == score(name, prediction, gold)


@given(
    st.sampled_from(["vqa@1", "vqa@2", "evalai@1", "anls@1", "exact@1", "relaxed@1"]),
    texts,
    golds,
    st.randoms(),
)
def test_the_order_of_annotators_changes_nothing(
    name: str, prediction: str, gold: Gold, random: Random
) -> None:
    other = list(gold.answers)
    random.shuffle(other)
    assert score(name, prediction, gold) == score(name, prediction, Gold(tuple(other)))


@given(non_blank.filter(str.isascii), golds)
def test_case_changes_nothing(prediction: str, gold: Gold) -> None:
    for name in ("exact@1", "evalai@1", "anls@1"):
        assert score(name, prediction.swapcase(), gold) == score(name, prediction, gold)


@given(non_blank, non_blank, st.integers(1, 9))
def test_more_annotators_score_no_less(prediction: str, other: str, agreeing: int) -> None:
    def value(m: int) -> float:
        return score("evalai@1", prediction, Gold((prediction,) * m + (other,) * (10 - m)))

    assert value(agreeing) <= value(agreeing + 1)


@settings(max_examples=300)
@given(texts)
def test_forms_are_stable(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    assert vqa_form(f" {text}\n") == vqa_form(text)
    assert evalai_form(text.lower()) == evalai_form(text)


def test_choices_behind_the_last_letter_of_the_alphabet_are_read_by_their_text() -> None:
    choices = tuple(f"word{i}" for i in range(30))
    assert score("option@4", "It is word28", Gold(("word28",), choices)) == 1.0
