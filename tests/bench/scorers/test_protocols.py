"""The scorers of published sequences against results of the papers' own code on generated pairs.

`tests/fixtures/protocols` names the code (repository, commit, file) and holds its verdicts, not the code itself.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.scorers import Answered, find_scorer, score_set
from moextend.bench.scorers.protocols import PUBLISHED
from tests.bench.scorers.protocol_pairs import COUNT, pairs, pairs_digest

FOLDER = Path(__file__).parents[2] / "fixtures" / "protocols"
PROTOCOLS = sorted(path.stem for path in FOLDER.glob("*.json"))
generated = cache(pairs)


def read(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def answered(kind: str) -> list[Answered]:
    return [
        Answered(str(i), pair.prediction, pair.answers, pair.question, image=pair.image)
        for i, pair in enumerate(generated(kind))
    ]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_pair_is_scored_otherwise_than_by_the_paper(name: str) -> None:
    frozen = read(name)
    assert pairs_digest(generated(frozen["kind"])) == frozen["pairs"], (
        "the pairs are not those of the verdicts"
    )
    theirs = [float(verdict) for verdict in frozen["verdicts"]]
    ours = score_set(frozen["scorer"], answered(frozen["kind"])).items
    assert len(theirs) == len(ours) == COUNT
    differ = [
        (pair, mine, their)
        for pair, mine, their in zip(generated(frozen["kind"]), ours, theirs, strict=True)
        if mine != pytest.approx(their, abs=1e-4)
    ]
    assert not differ, f"{len(differ)} of {COUNT}, the first: {differ[0]}"


def test_every_scorer_of_a_published_sequence_is_frozen() -> None:
    frozen = {read(name)["scorer"] for name in PROTOCOLS}
    assert {scorer.name for scorer in PUBLISHED} <= frozen


def test_the_f1_of_pope_is_the_papers() -> None:
    found = score_set("pope@2", answered("yes_or_no")).metrics
    theirs = read("pope")["metrics"]
    assert {key: round(found[key] / 100, 6) for key in theirs} == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("name", [scorer.name for scorer in PUBLISHED])
def test_only_an_empty_prediction_is_judged_otherwise(name: str) -> None:
    """Some papers' code finds nothing in everything: here an empty prediction is wrong everywhere."""
    nothing = [Answered("1", blank, ("red",), image="AI2D_1.png") for blank in ("", " ", "\n")]
    assert score_set(name, nothing).items == (0.0, 0.0, 0.0)
    assert find_scorer(name).top == 1.0
