"""Scorers that need all items of a task at once, and the result of every scorer for a set."""

import math
import random
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moextend.bench.scorers import Answered, find_scorer, score_set
from moextend.bench.scorers.captions import ptb_tokens
from moextend.bench.scorers.gold import Scorer
from moextend.bench.scorers.table import ALL
from moextend.errors import UnknownName


def captions(*pairs: Any) -> list[Answered]:
    return [
        Answered(str(i), predicted, tuple(references)) for i, (predicted, *references) in enumerate(pairs)
    ]


def test_cider_by_hand() -> None:
    # Three images; ln 3 is the weight of an n-gram that one image's references have, ln 1.5 of two images'.
    items = captions(
        ("a red cat runs", "a red cat runs"), ("a dog", "a dog sits"), ("fish", "the blue bird flies")
    )
    once, twice = math.log(3), math.log(1.5)
    # The first equals its reference: every cosine is 1.
    first = 10.0
    # The second: a (two images), dog, "a dog" (one image) against the same with "sits", "dog sits", "a dog sits".
    one = (twice**2 + once**2) / (math.hypot(twice, once) * math.hypot(twice, once, once))
    two = once**2 / (once * math.hypot(once, once))
    second = 10 * (one + two) / 4 * math.exp(-((1 - 2) ** 2) / 72)  # 1 and 2 pairs of words
    assert score_set("cider@1", items).items == pytest.approx((first, second, 0.0))
    assert score_set("cider@1", items).value == pytest.approx((first + second) / 3)


def test_cider_equals_the_coco_evaluation() -> None:
    cider = pytest.importorskip("pycocoevalcap.cider.cider").Cider()
    rnd = random.Random(0)
    words = "a man dog cat riding red blue big small on in the field wave two"

    def caption() -> str:
        return " ".join(rnd.choices(words.split(), k=rnd.randint(1, 14)))

    references = {i: [caption() for _ in range(rnd.randint(1, 6))] for i in range(80)}
    predicted = {
        i: [rnd.choice([caption(), own[0], f"{own[-1]} {caption()}"])] for i, own in references.items()
    }
    mean, each = cider.compute_score(references, predicted)
    found = score_set("cider@1", [Answered(str(i), predicted[i][0], tuple(references[i])) for i in predicted])
    assert found.value == pytest.approx(mean) and found.items == pytest.approx(each)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # As Stanford's PTBTokenizer with the COCO evaluation's list of punctuation gives them.
        ("A man riding a wave on top of a surfboard .", "a man riding a wave on top of a surfboard"),
        (
            "Two dogs' toys, don't run. A man's hat is 1,000.5!",
            "two dogs toys do n't run a man 's hat is 1,000.5",
        ),
        ('U.S. flag at 5 p.m.; it\'s "big" & tall.', "u.s. flag at 5 p.m. it 's big & tall"),
        ("well-known black/white cat: $5 50% #1", "well-known black/white cat $ 5 50 % # 1"),
        ("I can't cannot gonna wanna", "i ca n't can not gon na wan na"),
        ("who's they've I'll we're he'd", "who 's they 've i 'll we 're he 'd"),
        ("a (red) [b]", "a -lrb- red -rrb- -lsb- b -rsb-"),
        ("3.5 -5 1/2 10:30 café", "3.5 -5 1/2 10:30 café"),
        ("he says, 'hi there'.", "he says hi there"),
        ("mid - dash – en — em ...", "mid dash en em"),
        ("1-2 shots, a 12-cavity pan??", "1-2 shots a 12-cavity pan ??"),
        ("Mr. Smith\nand his dog", "mr. smith and his dog"),
        ("", ""),
        (" . ", ""),
    ],
)
def test_ptb_tokens(text: str, tokens: str) -> None:
    assert ptb_tokens(text) == tokens.split()


SPECIES = "About 95 species are currently accepted ."
KNOWN = (
    "About 95 species are currently known .",
    "About 95 species are now accepted .",
    "95 species are now accepted .",
)


def sari(predicted: str, source: str = SPECIES, references: Sequence[str] = KNOWN) -> float:
    return score_set("sari@1", [Answered("1", predicted, tuple(references), source)]).value


def test_sari_of_the_published_example() -> None:
    assert sari("About 95 you now get in .") == pytest.approx(0.26953601953601954)


def test_sari_by_hand() -> None:
    # Source a b, predicted a c, reference a c. Words: a kept, b gone, c added, all right. Pairs: "a b" gone, "a c"
    # added, none kept: 0/0 = 1; of longer ones there are none. All shares are 1.
    assert sari("a c", "a b", ["a c"]) == 1.0
    # Predicted a b. Words: kept F1 of P 1/2, R 1 = 2/3; nothing gone: 1; none added of one: P 1, R 0: 0. Pairs: kept
    # P 0, R 1: 0; gone 1; added 0. Triples and quadruples: all 1.
    assert sari("a b", "a b", ["a c"]) == pytest.approx((2 / 3 + 1 + 0 + 0 + 1 + 0 + 6) / 12)
    assert sari("", "a b", ["a c"]) == 0.0


def rotations(question: int, *predicted: str, right: str = "ABCD") -> list[Answered]:
    choices = ("w", "x", "y", "z")
    return [
        Answered(str(turn * 1_000_000 + question), answer, (right[turn],), choices=choices)
        for turn, answer in enumerate(predicted)
    ]


def test_circular_wants_every_rotation() -> None:
    answered = [
        *rotations(1, "A", "B", "(c)", "the answer is D"),
        *rotations(2, "A", "B", "C", "C"),
        *rotations(3, "", "B"),
        *rotations(4, "A"),
    ]
    random.Random(0).shuffle(answered)
    found = score_set("circular@4", answered)
    assert (found.value, found.n) == (0.5, 4)
    assert sum(item is None for item in found.items) == len(answered) - 4
    # s^2 = 4 (1/2)^2 / 3 over the four questions.
    assert found.stderr == pytest.approx(math.sqrt(1 / 3 / 4))


@pytest.mark.parametrize(
    ("name", "strict", "prediction", "answers", "choices"),
    [
        ("vqa@2", "vqa@1", "Yes", ("yes",) * 10, None),
        ("option@4", "option@1", "A. x B. y\nB", ("y",), ("x", "y")),
    ],
)
def test_readings_contain_the_strict_rule(
    name: str, strict: str, prediction: str, answers: tuple[str, ...], choices: tuple[str, ...] | None
) -> None:
    found = score_set(name, [Answered("1", prediction, answers, choices=choices)])
    assert found.value == 1.0 and found.metrics == {strict: 0.0}
    assert score_set(strict, [Answered("1", prediction, answers, choices=choices)]).value == 0.0


def test_unknown_scorer() -> None:
    with pytest.raises(UnknownName, match=r"task.yaml: no scorer 'cidr@1'. Did you mean 'cider@1'\?"):
        find_scorer("cidr@1", where="task.yaml")


ANSWERS = {"iou@1": "[1, 2, 3, 4]", "pope@2": "yes"}
ANSWERS |= {"grounding@2": "[1, 2, 3, 4]", "mme@1": "yes", "dcl-finance@1": "B"}
IMAGE = "AI2D_1.png"
FOR_SETS = [
    ("one red bird sings here", "tree"), ("two blue cats ran there", "lake"), ("no dogs eat my food", "hill")
]  # fmt: skip


@pytest.mark.parametrize("scorer", ALL, ids=lambda scorer: scorer.name)
def test_own_answers_score_full_and_empty_answers_zero(scorer: Scorer) -> None:
    golds = [ANSWERS.get(scorer.name, text) for text, _ in FOR_SETS]
    own = [Answered(str(i), gold, (gold,), FOR_SETS[i][1], image=IMAGE) for i, gold in enumerate(golds)]
    found = score_set(scorer.name, own)
    assert found.items == pytest.approx([scorer.top] * 3) and found.stderr == 0.0
    for nothing in ("", " ", "\n\t"):
        empty = [Answered(one.id, nothing, one.answers, one.question, image=IMAGE) for one in own]
        assert score_set(scorer.name, empty).items == (0.0, 0.0, 0.0)


WORDS = "a the Red cat cats no 5 5% 1,000 -3 B (b) it's ? [0,0,1,1] é"
words = st.lists(st.sampled_from(WORDS.split()), max_size=6)
phrases = words.map(" ".join)
non_blank = phrases.filter(str.strip)
sets_of = st.lists(st.tuples(phrases, st.lists(non_blank, min_size=1, max_size=4)), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([scorer.name for scorer in ALL]), sets_of, st.randoms())
def test_values_of_any_set(name: str, pairs: Any, rnd: Random) -> None:
    answered = [
        Answered(str(i), one, tuple(golds), "a question", image=IMAGE) for i, (one, golds) in enumerate(pairs)
    ]
    found, top = score_set(name, answered), find_scorer(name).top
    assert all(0.0 <= item <= top + 1e-9 for item in found.items if item is not None)
    weights = found.weights or [1.0] * len(answered)
    if not sum(weights):
        weights = [1.0] * len(answered)
    items = [(item, weight) for item, weight in zip(found.items, weights, strict=True) if item is not None]
    assert found.value == pytest.approx(
        sum(item * weight for item, weight in items) / sum(w for _, w in items)
    )
    order = list(range(len(answered)))
    rnd.shuffle(order)
    moved = score_set(name, [answered[i] for i in order])
    assert moved.items == pytest.approx([found.items[i] for i in order]), "the order of items changes nothing"
