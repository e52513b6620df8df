"""Every scorer of single items on pairs that were scored by hand."""

from pathlib import Path

import pytest
import yaml

from moextend.bench.scorers import Answered, score_set
from tests.bench.scorers.single import SINGLE

PAIRS = yaml.safe_load((Path(__file__).parent / "by_hand.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SINGLE)
def test_pairs(name: str) -> None:
    assert len(PAIRS[name]) >= 6
    answered, values = [], []
    for prediction, answers, value, *choices in PAIRS[name]:
        golds = (answers,) if isinstance(answers, str) else tuple(answers)
        options = tuple(choices[0]) if choices else None
        assert all(isinstance(text, str) for text in (prediction, *golds, *(options or ()))), prediction
        answered.append(Answered("1", prediction, golds, choices=options))
        values.append(value)
    found = score_set(name, answered)
    wrong = [
        (one, mine)
        for one, mine, value in zip(answered, found.items, values, strict=True)
        if mine != pytest.approx(value, abs=1e-6)
    ]
    assert not wrong
    weights = found.weights or [1.0] * len(values)
    mean = sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)
    assert found.value == pytest.approx(mean, abs=1e-6) and found.n == len(values)


def test_all_pairs_are_of_scorers() -> None:
    assert set(PAIRS) == set(SINGLE)
