"""Properties of all scorers for all texts."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from moextend.bench.scorers import own_answer, readings
from moextend.bench.scorers.protocols import PUBLISHED
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
LETTERED = st.sampled_from(["letter@1", "option@1", "option@4"])
YES_OR_NO = {"pope@2", "mme@1"}
golds = st.builds(Gold, st.lists(non_blank, min_size=1, max_size=10).map(tuple))


@given(names.filter(lambda name: name not in PAPERS | YES_OR_NO), non_blank, st.integers(1, 10))
def test_the_own_answer_scores_one(name: str, answer: str, annotators: int) -> None:
    gold = Gold((answer,) * annotators)
    assert score(name, own_answer(name, gold), gold) == 1.0
    assert readings(answer, gold) == {"strict": 1.0, "normalised": 1.0}


@given(LETTERED, st.lists(non_blank, min_size=2, max_size=6, unique_by=str.strip), st.data())
def test_the_own_letter_scores_one(name: str, choices: list[str], data: st.DataObject) -> None:
    gold = Gold((data.draw(st.sampled_from(choices)),), tuple(choices))
    assert score(name, own_answer(name, gold), gold) == 1.0


def test_choices_behind_the_last_letter_of_the_alphabet_are_read_by_their_text() -> None:
    choices = tuple(f"word{i}" for i in range(30))
    assert score("option@4", "It is word28", Gold(("word28",), choices)) == 1.0
