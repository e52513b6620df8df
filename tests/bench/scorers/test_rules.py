"""Scorers on pairs that were scored by hand."""

from dataclasses import dataclass

import pytest

from moextend.bench.scorers import own_answer
from moextend.bench.scorers.rules import consensus
from tests.bench.scorers.single import score


@dataclass(frozen=True)
class Gold:
    answers: tuple[str, ...]
    choices: tuple[str, ...] | None = None
    position: int | None = None


def gold(answers: str | list[str], choices: tuple[str, ...] | None = None) -> Gold:
    return Gold((answers,) if isinstance(answers, str) else tuple(answers), choices)


def test_consensus_is_the_mean_of_the_leave_one_out_sets() -> None:
    for annotators in range(4, 12):
        for matches in range(annotators + 1):
            predicted = [True] * matches + [False] * (annotators - matches)
            left_out = [min(1.0, (matches - one) / 3) for one in predicted]
            assert consensus(matches, annotators) == pytest.approx(sum(left_out) / annotators)


AGREED, SPLIT = ["yes"] * 10, ["yes"] * 2 + ["no"] * 8


ANIMALS = ("cat", "dog", "fox")


def test_own_answer() -> None:
    assert own_answer("vqa@1", gold(["a", "b", "b"])) == "b"
    assert own_answer("letter@1", gold("fox", ANIMALS)) == "C"
    assert own_answer("letter@1", gold("wolf", ANIMALS)) == "wolf"


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
        assert score("option@4", prediction, gold(COLORS[place], COLORS)) == (name == letter), name


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
