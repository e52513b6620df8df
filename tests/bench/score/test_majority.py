"""The majority answer, by hand."""

import json
from pathlib import Path
from typing import Any

from moextend.bench.score.majority import majority_level
from moextend.bench.task import Data, TaskSpec
from moextend.data.examples import Columns


def _task(
    folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]], columns: Columns
) -> TaskSpec:
    for split, rows in (("train", train), ("test", test)):
        (folder / f"{split}.json").write_text(json.dumps(rows))
    return TaskSpec(task="t", version=1, kind="vqa", data=Data(path=str(folder)), columns=columns)


def test_the_kind_counts_where_questions_have_no_common_form(tmp_path: Path) -> None:
    def rows(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
        return [{"q": "?", "answer": answer, "kind": kind, "image": "none"} for kind, answer in pairs]

    train = rows(*[("x", "a")] * 10, *[("x", "b")] * 5, *[("y", "c")] * 10, *[("y", "a")] * 5)
    test = rows(("x", "a"), ("x", "b"), ("y", "c"), ("z", "a"))
    task = _task(tmp_path, train, test, Columns(question="q", kind="kind"))
    # x: a is right once of two; y: c is right; z was never seen: the most common of all, a, is right.
    assert majority_level(task, tmp_path) == 75.0
    assert majority_level(task, tmp_path, limit=2) == 50.0
    without = task.model_copy(update={"columns": Columns(question="q")})
    assert majority_level(without, tmp_path) == 50.0
    scored = task.model_copy(update={"data": Data(path=str(tmp_path), train=None)})
    assert majority_level(scored, tmp_path) is None


def test_a_form_is_the_longest_beginning_that_ten_training_questions_share(tmp_path: Path) -> None:
    """One answer for the whole task reaches 50, and one to each form of question 100."""

    def row(question: str, answer: str) -> dict[str, Any]:
        return {"q": question, "answer": answer, "image": "none"}

    train = (
        [row("is it red?", "no")] * 20 + [row("is it not red?", "yes")] * 20 + [row("is it rare?", "yes")] * 9
    )
    test = [row("Is it red", "no"), row("is it not red today?", "yes"), row("is it red?", "no")]
    # "is it rare" has nine questions: those that begin with "is it" are mostly answered with yes.
    test += [row("is it rare?", "yes")]
    task = _task(tmp_path, train, test, Columns(question="q"))
    assert majority_level(task, tmp_path) == 100.0
