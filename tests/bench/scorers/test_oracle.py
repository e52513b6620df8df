"""The scorers against a second, plain implementation of the same rules, on generated cases."""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moextend.bench.scorers import Answered
from moextend.bench.scorers.boxes import read_box
from moextend.bench.scorers.forms import evalai_form, vqa_form
from tests.bench.scorers.single import score

WORDS = [
    "a", "an", "the", "The", "none", "Two", "ten", "dont", "don't", "couldnt've", "yes", "no", "No", "not", "A", "B",
    "b.", "C.", "(B)", "cat", "cats", "red", "Red.", "1,000", "1000", "3.5", "3.", ".5", "-5", "50%", "0.5", "0", "0.0",
    "$5", "u.s.", "what?", "x-y", "black/white", "joe's", "'s", "é", "…", ";", ":", "!", "?", ",", ".",
    "The answer is B.",
]  # fmt: skip
texts = st.lists(st.sampled_from(WORDS), max_size=5).flatmap(
    lambda words: st.sampled_from([" ", "  ", "\n", "\t", "", " , "]).map(lambda gap: gap.join(words))
)
anything = st.one_of(texts, st.text(max_size=12), st.text(alphabet="ab 1.,%-?'/\n", max_size=12))
annotators = st.lists(texts, min_size=4, max_size=10)
oracle = settings(max_examples=150, deadline=None)


def blank(text: str) -> bool:
    return not any(letter.isalnum() for letter in text)


@cache
def contractions() -> dict[str, str]:
    """The official table, as the VQA evaluation in lmms-eval's files has it; nothing of that package is imported."""
    package = find_spec("lmms_eval")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs the official table of contractions: pip install --no-deps lmms-eval")
    path = Path(package.submodule_search_locations[0]) / "tasks" / "_task_utils" / "vqa_eval_metric.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CONTRACTIONS":
            table: dict[str, str] = ast.literal_eval(node.value)
            return table
    raise AssertionError(f"{path} has no table CONTRACTIONS")


def the_form(text: str) -> str:
    """Rule "Normalisation (official VQA)", steps 1 to 4."""
    text = text.replace("\n", " ").replace("\t", " ").strip()
    out = text
    for mark in ';/[]"{}()=+\\_-><@`,?!':
        near_space = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if near_space or re.search(r"\d,\d", text) else " ")
    out = re.sub(r"\.(?!\d)", "", out).lower()
    digits = "none:0 zero:0 one:1 two:2 three:3 four:4 five:5 six:6 seven:7 eight:8 nine:9 ten:10"
    mapped = dict(pair.split(":") for pair in digits.split())
    kept = [mapped.get(word, word) for word in out.split()]
    return " ".join(contractions().get(word, word) for word in kept if word not in ("a", "an", "the"))


def the_evalai_form(text: str) -> str:
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return the_form(text)


def leave_one_out(predicted: str, golds: list[str]) -> float:
    """Mean over the leave-one-out sets of min(1, matches / 3)."""
    values = []
    for left_out in range(len(golds)):
        others = [gold for i, gold in enumerate(golds) if i != left_out]
        values.append(min(1.0, sum(gold == predicted for gold in others) / 3))
    return sum(values) / len(values)


@oracle
@given(anything)
@example("1,000 a/b")
@example("a , b/c")
def test_forms(text: str) -> None:
    assert vqa_form(text) == the_form(text)
    assert evalai_form(text) == the_evalai_form(text)


def test_every_contraction_of_the_official_table() -> None:
    assert len(contractions()) == 120
    for word, full in contractions().items():
        if word.islower():  # the others are looked up after lower-casing, and never found
            assert vqa_form(word) == full
            assert vqa_form(full) == contractions().get(full, full)


@oracle
@given(texts, annotators)
def test_vqa(prediction: str, golds: list[str]) -> None:
    if blank(prediction):
        return  # an answer without a letter or digit is handled below
    tidy = [gold.replace("\n", " ").replace("\t", " ").strip() for gold in golds]
    if len(set(tidy)) == 1:
        predicted = prediction.replace("\n", " ").replace("\t", " ").strip()
        expected = leave_one_out(predicted, tidy)
    else:
        expected = leave_one_out(the_form(prediction), [the_form(gold) for gold in golds])
    assert score("vqa@1", prediction, Answered("1", "", tuple(golds))) == pytest.approx(expected)


@oracle
@given(
    st.one_of(texts, st.sampled_from(["A", "B. x", "The answer is C.", "C", "A.", "D", "E. y", "B"])),
    st.data(),
)
def test_scienceqa(prediction: str, data: st.DataObject) -> None:
    right = data.draw(st.sampled_from("ABCD"))
    predicted = prediction.strip()
    letter: str | None
    if predicted in ("A", "B", "C", "D"):
        letter = predicted
    elif re.match(r"[ABCD]\. ", predicted):
        letter = predicted[0]
    else:
        found = re.findall(r"The answer is ([A-Z])", predicted)
        letter = found[0] if len(found) == 1 else None
    item = Answered("1", "", (right,), choices=("w1", "w2", "w3", "w4"))
    assert score("letter@1", prediction, item) == (letter == right)


numbers = st.one_of(
    st.sampled_from(["0", "100", "-100", "50%", "0.5", "105", "95", "104.9", "95%", "blue", "Blue", "1,000"]),
    st.integers(-200, 200).map(str),
    st.floats(-2, 2).map(lambda x: f"{x:.3f}"),
    st.integers(0, 120).map(lambda x: f"{x}%"),
)


@oracle
@given(numbers, numbers)
def test_chartqa(prediction: str, target: str) -> None:
    def value(text: str) -> float | None:
        try:
            return float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            return None

    predicted, meant = value(prediction), value(target)
    if predicted is None or meant is None or meant == 0:
        expected = prediction.lower() == target.lower()
    else:
        expected = abs(predicted - meant) / abs(meant) <= 0.05
    assert score("relaxed@1", prediction, Answered("1", "", (target,))) == expected


def distance(a: str, b: str) -> int:
    """Edit distance by its recursion."""
    table = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            steps = table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            table[i, j] = min(steps)
    return table[len(a), len(b)]


@oracle
@given(anything, st.lists(texts.filter(str.strip), min_size=1, max_size=3))
def test_docvqa(prediction: str, golds: list[str]) -> None:
    best = 0.0
    predicted = " ".join(prediction.lower().split())
    for gold in golds:
        meant = " ".join(gold.lower().split())
        best = max(best, 1 - distance(predicted, meant) / max(len(predicted), len(meant)))
    expected = best if best >= 0.5 and predicted else 0.0
    assert score("anls@1", prediction, Answered("1", "", tuple(golds))) == pytest.approx(expected)


@oracle
@given(anything, st.lists(texts.filter(str.strip), min_size=1, max_size=3))
@example("The cat, the red cat!", ["a red cat", "cat cat"])
def test_squad(prediction: str, golds: list[str]) -> None:
    """The rule of SQuAD 2.0's evaluation."""

    def words(text: str) -> list[str]:
        kept = "".join(c for c in text.lower() if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
        return re.sub(r"\b(?:an?|the)\b", " ", kept).split()

    def f1(gold: str) -> float:
        mine, theirs = words(prediction), words(gold)
        if not mine or not theirs:
            return float(mine == theirs)
        left, same = list(theirs), 0
        for word in mine:
            if word in left:
                left.remove(word)
                same += 1
        precision, recall = same / len(mine), same / len(theirs)
        return 2 * precision * recall / (precision + recall) if same else 0.0

    if not blank(prediction):
        expected = max(map(f1, golds))
        assert score("f1@1", prediction, Answered("1", "", tuple(golds))) == pytest.approx(expected)


corners = st.tuples(*[st.integers(0, 999)] * 4)


@oracle
@given(corners, corners)
def test_iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> None:
    """By counting cells of a grid of 1000 x 1000, in one direction and the other."""

    def cells(low: int, high: int) -> set[int]:
        return set(range(min(low, high), max(low, high)))

    def area(box: tuple[int, int, int, int]) -> int:
        return len(cells(box[0], box[2])) * len(cells(box[1], box[3]))

    wide = len(cells(a[0], a[2]) & cells(b[0], b[2]))
    high = len(cells(a[1], a[3]) & cells(b[1], b[3]))
    both = area(a) + area(b) - wide * high
    expected = wide * high / both if both else 0.0
    texts = [f"<box>({x[0]},{x[1]}),({x[2]},{x[3]})</box>" for x in (a, b)]
    if read_box(texts[0]) == read_box(texts[1]):
        expected = 1.0
    item = Answered("1", "", (texts[1],))
    assert score("iou@1", texts[0], item) == pytest.approx(expected)
    if abs(expected - 0.5) > 1e-9:
        assert score("grounding@2", texts[0], item) == (expected > 0.5)
