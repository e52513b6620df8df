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
oracle = settings(max_examples=60, deadline=None)


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
