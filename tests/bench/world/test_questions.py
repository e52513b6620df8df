"""Questions have one answer in known words, and are selected evenly; test_world.py pins all of them."""

import random

import pytest

from moextend.bench.world.questions import ASKERS, Balance, Question
from moextend.bench.world.scenes import any_scene
from tests.bench.world import vocabulary


@pytest.mark.parametrize("task", ASKERS)
def test_every_question_has_one_answer_and_known_words(task: str) -> None:
    known = vocabulary()
    rng = random.Random(1)
    for _ in range(200):
        asked = list(ASKERS[task](any_scene(rng)))
        answers: dict[str, str] = {}
        for q in asked:
            assert answers.setdefault(q.words, q.answer) == q.answer
            assert set(f"Q {q.words} A: {q.answer}".split()) <= known


def test_balance_prefers_what_was_asked_least() -> None:
    balance = Balance(random.Random(0))
    pool = [Question("a", "x", "red"), Question("a", "y", "blue"), Question("b", "z", "red")]
    assert {q.kind for q in balance.choose(pool, 2)} == {"a", "b"}
    assert len(balance.choose(pool, 5)) == 3
