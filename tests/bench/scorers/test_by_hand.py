"""Every scorer of single items on pairs that were scored by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from moextend.bench.scorers import Answered, score_set
from tests.bench.scorers.single import SINGLE, score

PAIRS = yaml.safe_load((Path(__file__).parent / "by_hand.yaml").read_text(encoding="utf-8"))


def rows() -> Iterator[tuple[str, Answered, float]]:
    for name, pairs in PAIRS.items():
        for prediction, answers, value, *choices in pairs:
            golds = tuple([answers] if isinstance(answers, str) else answers)
            options = tuple(choices[0]) if choices else None
            assert all(isinstance(text, str) for text in (prediction, *golds, *(options or ()))), prediction
            yield name, Answered("1", prediction, golds, choices=options), value


@pytest.mark.parametrize(("name", "answered", "value"), list(rows()))
def test_pair(name: str, answered: Answered, value: float) -> None:
    assert score(name, answered.prediction, answered) == pytest.approx(value, abs=1e-6)


def test_the_table_is_complete() -> None:
    assert set(PAIRS) == set(SINGLE), "every scorer of single items has its pairs"
    assert sum(map(len, PAIRS.values())) >= 200
    assert min(map(len, PAIRS.values())) >= 6


@pytest.mark.parametrize("name", PAIRS)
def test_a_set_is_the_mean_of_its_items(name: str) -> None:
    of_name = [(answered, value) for own, answered, value in rows() if own == name]
    found = score_set(name, [answered for answered, _ in of_name])
    values = [value for _, value in of_name]
    weights = found.weights or [1.0] * len(values)
    mean = sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)
    assert found.items == pytest.approx(values, abs=1e-6)
    assert found.value == pytest.approx(mean, abs=1e-6) and found.n == len(values)
