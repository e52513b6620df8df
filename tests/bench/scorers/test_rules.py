"""Scorers on pairs that were scored by hand."""

from dataclasses import dataclass

import pytest

from moextend.bench.scorers import Answered, own_answer, readings, score_set
from moextend.bench.scorers.forms import evalai_form, vqa_form
from moextend.bench.scorers.rules import consensus, levenshtein, yes_or_no
from moextend.errors import UnknownName
from tests.bench.scorers.single import score


@dataclass(frozen=True)
class Gold:
    answers: tuple[str, ...]
    choices: tuple[str, ...] | None = None
    position: int | None = None


def gold(answers: str | list[str], choices: tuple[str, ...] | None = None) -> Gold:
    return Gold((answers,) if isinstance(answers, str) else tuple(answers), choices)


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("red", "red", 1), ("Red", "red", 1), (" red ", "red", 1), ("red.", "red", 1), ("Red. ", "red", 1),
        ("red", "Red.", 1), ("yes", "Yes", 1), ("Yes.", "yes", 1), ("red...", "red", 1), ("3.5", "3.5", 1),
        ("dark red", "red", 0), ("re", "red", 0), ("the red", "red", 0), ("", "red", 0), (" ", "red", 0),
        (".", "red", 0), ("two", "2", 0), ("red, blue", "red,blue", 0), ("3.50", "3.5", 0), ("+", "+", 1),
        ("-", "+", 0), ("", "", 0), ("garbage bin", "garbage  bin", 0), ("ÄRGER", "ärger", 1),
    ],
)  # fmt: skip
def test_exact(prediction: str, answer: str, right: int) -> None:
    assert score("exact@1", prediction, gold(answer)) == right


def test_exact_takes_any_of_several_answers() -> None:
    assert score("exact@1", "sofa", gold(["couch", "sofa"])) == 1.0


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Red", "red"), ("the red car", "red car"), ("a an the", ""), ("two dogs", "2 dogs"), ("None", "0"),
        ("ten", "10"), ("eleven", "eleven"), ("dont know", "don't know"), ("couldn'tve", "couldn't've"),
        ("couldnt've", "couldn't've"), ("somebody'd", "somebodyd"), ("yall'd've", "y'all'd've"),
        ("ow's'at", "'ow's'at"), ("she'dve", "she'd've"), ("shed", "shed"), ("well", "well"), ("im", "im"),
        ("1,000", "1000"), ("red, blue", "red blue"), ("red,blue", "red blue"), ("red-blue", "red blue"),
        ("red - blue", "red blue"), ("black/white", "black white"), ("yes!", "yes"), ("what?", "what"),
        ("3.5", "3.5"), ("3.", "3"), (".5", ".5"), ("u.s.a.", "usa"), ("mr. x", "mr x"), ("5:30", "5:30"),
        ("it's", "it's"), ("line\nbreak", "line break"), ("tab\there", "tab here"), ("(left)", "left"),
        ("  two   dogs ", "2 dogs"), ("$5", "$5"), ("50%", "50%"), ("x,y 1,2", "xy 12"), ("a-frame", "frame"),
    ],
)  # fmt: skip
def test_official_form(text: str, form: str) -> None:
    assert vqa_form(text) == form


@pytest.mark.parametrize(
    ("text", "form"),
    [("What's this?", "what 's this"), ("1,000", "1000"), ("red,blue", "redblue"), ("The Stop", "stop")],
)
def test_evalai_form(text: str, form: str) -> None:
    assert evalai_form(text) == form


@pytest.mark.parametrize(
    ("matches", "annotators", "value"),
    [
        (0, 10, 0.0), (1, 10, 0.3), (2, 10, 0.6), (3, 10, 0.9), (4, 10, 1.0), (10, 10, 1.0), (1, 1, 1.0), (0, 1, 0.0),
        (2, 2, 1.0), (1, 2, 0.5), (3, 3, 1.0), (2, 3, 2 / 3), (1, 3, 1 / 3), (4, 4, 1.0), (3, 4, 0.75), (1, 4, 0.25),
    ],
)  # fmt: skip
def test_consensus(matches: int, annotators: int, value: float) -> None:
    assert consensus(matches, annotators) == pytest.approx(value)


def test_consensus_is_the_mean_of_the_leave_one_out_sets() -> None:
    for annotators in range(4, 12):
        for matches in range(annotators + 1):
            predicted = [True] * matches + [False] * (annotators - matches)
            left_out = [min(1.0, (matches - one) / 3) for one in predicted]
            assert consensus(matches, annotators) == pytest.approx(sum(left_out) / annotators)


AGREED, SPLIT = ["yes"] * 10, ["yes"] * 2 + ["no"] * 8


@pytest.mark.parametrize(
    ("scorer", "prediction", "answers", "value"),
    [
        ("vqa@1", "yes", AGREED, 1.0), ("vqa@1", "Yes", AGREED, 0.0), ("vqa@1", "yes ", AGREED, 1.0),
        ("vqa@1", "Yes", SPLIT, 0.6), ("vqa@1", "no.", SPLIT, 1.0), ("vqa@1", "maybe", SPLIT, 0.0),
        ("vqa@1", "", SPLIT, 0.0), ("vqa@1", "2", ["two"] * 9 + ["2"], 1.0), ("vqa@1", "2", ["two"] * 10, 0.0),
        ("vqa@1", "Red.", ["red"], 1.0), ("vqa@1", "the", ["a"] * 5 + ["b"] * 5, 1.0), ("vqa@1", ".", ["a", "b"], 0.0),
        ("evalai@1", "Yes", AGREED, 1.0), ("evalai@1", "yes?", AGREED, 1.0), ("evalai@1", "2", ["two"] * 10, 1.0),
        ("evalai@1", "joe's", ["joe's"] * 3 + ["Joe's"] * 7, 1.0), ("evalai@1", "stop", ["STOP"] + ["go"] * 9, 0.3),
        ("evalai@1", "unanswerable", ["unanswerable"] * 5 + ["x"] * 5, 1.0), ("evalai@1", "", [""] * 10, 0.0),
    ],
)  # fmt: skip
def test_annotators(scorer: str, prediction: str, answers: str | list[str], value: float) -> None:
    assert score(scorer, prediction, gold(answers)) == pytest.approx(value)


ANIMALS = ("cat", "dog", "fox")


@pytest.mark.parametrize(
    ("prediction", "strict", "lenient"),
    [
        ("B", 1, 1), ("B. dog", 1, 1), ("The answer is B.", 1, 1), ("The answer is B", 1, 1), (" B ", 1, 1),
        ("A", 0, 0), ("A. cat", 0, 0), ("D", 0, 0), ("", 0, 0), ("b", 0, 1), ("(B)", 0, 1), ("(b) dog", 0, 1),
        ("B) dog", 0, 1), ("B: dog", 0, 1), ("B.", 0, 1), ("dog", 0, 1), ("Dog.", 0, 1), ("the dog", 0, 1),
        ("Bad", 0, 0), ("cat", 0, 0), ("AB", 0, 0), ("The answer is A. The answer is B.", 0, 0),
        ("Because", 0, 0), ("B dog", 0, 0), ("[B], dog", 0, 1),
    ],
)  # fmt: skip
def test_letter(prediction: str, strict: int, lenient: int) -> None:
    question = gold("dog", ANIMALS)
    assert score("letter@1", prediction, question) == strict
    assert readings(prediction, question)["normalised"] == lenient


def test_letter_of_a_gold_that_is_a_letter() -> None:
    assert score("letter@1", "B", gold("B", ANIMALS)) == 1.0
    assert score("letter@1", "B", gold("B")) == 1.0
    assert score("letter@1", "A", gold("B", ("B", "A"))) == 1.0, "the text of a choice wins over its letter"


def test_letter_without_choices_is_exact() -> None:
    assert score("letter@1", "42.", gold("42")) == 1.0
    assert score("letter@1", "41", gold("42")) == 0.0


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("100", "100", 1), ("95", "100", 1), ("105", "100", 1), ("94.9", "100", 0), ("105.1", "100", 0),
        ("-95", "-100", 1), ("95", "-100", 0), ("0.42", "42%", 1), ("42%", "0.42", 1), ("42", "42%", 0), ("0", "0", 1),
        ("0.0", "0", 0), ("0.01", "0", 0), ("Yes", "yes", 1), ("yes.", "Yes", 1), ("no", "yes", 0), ("", "5", 0),
        ("1,000", "1000", 0), ("2019 ", "2019", 1), ("2020", "1950", 1), ("nan", "5", 0),
        ("inf", "5", 0), ("5", "inf", 0),
    ],
)  # fmt: skip
def test_relaxed(prediction: str, answer: str, right: int) -> None:
    assert score("relaxed@1", prediction, gold(answer)) == right


@pytest.mark.parametrize(
    ("prediction", "answers", "value"),
    [
        ("hello", "hello", 1.0), ("Hello ", "hello", 1.0), ("hallo", "hello", 0.8), ("", "hello", 0.0),
        ("x", "hello", 0.0),
        ("abcd", "abxy", 0.5), ("abc", "axyz", 0.0), ("12 may", "12  May", 1.0), ("cat", ["dog", "cut"], 2 / 3),
    ],
)  # fmt: skip
def test_anls(prediction: str, answers: str | list[str], value: float) -> None:
    assert score("anls@1", prediction, gold(answers)) == pytest.approx(value)


@pytest.mark.parametrize(
    ("a", "b", "steps"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_levenshtein(a: str, b: str, steps: int) -> None:
    assert levenshtein(a, b) == levenshtein(b, a) == steps


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("No", "no"), ("no", "no"), ("NO", "yes"), ("No, there is none.", "no"), ("There is not a dog.", "no"),
        ("no\nyes", "yes"), ("Yes, it is.", "yes"),
    ],
)  # fmt: skip
def test_yes_or_no(text: str, read: str) -> None:
    assert yes_or_no(text) == read


def test_pope() -> None:
    assert score("pope@2", "Yes, there is.", gold("yes")) == 1.0
    assert score("pope@2", "No.", gold("Yes")) == 0.0
    assert score("pope@2", "", gold("yes")) == 0.0


def test_pope_set_metrics() -> None:
    pairs = [("yes", "yes"), ("yes", "no"), ("yes", "no"), ("no", "yes"), ("no", "no"), ("", "yes")]

    def metrics(name: str, *pairs: tuple[str, str]) -> dict[str, float]:
        return score_set(name, [Answered("1", predicted, (right,)) for predicted, right in pairs]).metrics

    found = metrics("pope@2", *pairs)
    # 3 of 6 answer yes, 1 of them rightly; 3 of 6 are yes.
    assert found == pytest.approx({"precision": 100 / 3, "recall": 100 / 3, "f1": 100 / 3, "yes": 50})
    assert metrics("pope@2", ("no", "no"))["f1"] == 0.0
    assert metrics("exact@1", ("no", "no")) == {}


@pytest.mark.parametrize(
    ("prediction", "strict", "normalised"),
    [("two", 1, 1), ("Two", 0, 1), ("2", 0, 1), ("three", 0, 0), ("", 0, 0), ("the two.", 0, 1)],
)
def test_readings(prediction: str, strict: int, normalised: int) -> None:
    assert readings(prediction, gold("two")) == {"strict": strict, "normalised": normalised}


def test_own_answer() -> None:
    assert own_answer("vqa@1", gold(["a", "b", "b"])) == "b"
    assert own_answer("letter@1", gold("fox", ANIMALS)) == "C"
    assert own_answer("letter@1", gold("wolf", ANIMALS)) == "wolf"


def test_unknown_scorer() -> None:
    with pytest.raises(
        UnknownName, match=r"no scorer 'exact@2'. Did you mean 'exact@1'\?.* All \d+: moextend bench list\."
    ):
        score("exact@2", "a", gold("a"))


COLORS, COUNTS = ("red", "blue", "green", "yellow"), ("3", "4", "5", "6")


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("The answer is not B but C", "C"), ("The answer isn't B, it's C.", "C"),
        ("It's not (B) blue; it's (C) green.", "C"),
        ("Options A, C and D can be ruled out. That leaves B.", "B"),
        ("I am torn between A and B, but I'll go with B.", "B"),
        ("At first glance A seems right, but on closer inspection the answer is B.", "B"),
        ("If there were no friction it would slide; since it stops, the answer is B.", "B"),
        ("If no friction, A; otherwise B", ""), ("It could be A or B.", ""), ("Both A and B are correct.", ""),
        ("I would not choose A.", ""), ("A car is shown on the road.", ""), ("The car is yellow and blue.", ""),
        ("正しい答えはBです。", "B"), ("答えはBではなくCです。", "C"), ("答えはBではありません。", ""),
        ("따라서 정답은 B입니다.", "B"), ("정답은 B가 아니라 C입니다.", "C"), ("정답은 B가 아닙니다.", ""),
    ],
)  # fmt: skip
def test_an_option_of_a_longer_answer(prediction: str, letter: str) -> None:
    for place, name in enumerate("ABCD"):
        for scorer in ("option@4", "letter@4"):
            assert score(scorer, prediction, gold(COLORS[place], COLORS)) == (name == letter), (scorer, name)


@pytest.mark.parametrize("choices", [COUNTS, tuple(f"{count} apples" for count in COUNTS)])
def test_the_text_of_one_choice_in_a_sentence(choices: tuple[str, ...]) -> None:
    assert [score("option@4", "There are 3 apples", gold(choice, choices)) for choice in choices] == [
        1,
        0,
        0,
        0,
    ]
    for none in ("There are 13 apples", "There are 3 apples and 4 apples", "There are not 3 apples"):
        assert not any(score("option@4", none, gold(choice, choices)) for choice in choices), none


@pytest.mark.parametrize(
    ("prediction", "read"),
    [("Yes, it is", "Yes"), ("n", "No"), ("The image shows a dog.", ""), ("The answer is yes", "")],
)
def test_mme_reads_the_start_of_an_answer(prediction: str, read: str) -> None:
    assert [score("mme@1", prediction, gold(answer)) for answer in ("Yes", "No")] == [
        read == "Yes",
        read == "No",
    ]
