"""The parity check against servers over plain transformers: the right weights, the base's, and unusable servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import moextend
from moextend import MultimodalLM
from moextend.bench.score.backend import Served
from moextend.bench.score.evaluate import score_cell
from moextend.bench.score.records import Cell
from moextend.bench.score.served.answers import ServedModel
from moextend.bench.score.served.client import Client, ServerFailed
from moextend.bench.score.served.parity import (
    Known,
    ParityRefused,
    compare_task,
    compared,
    prove,
)
from moextend.bench.scoring import Scoring
from moextend.bench.task import TaskSpec, read_task
from moextend.util import content
from tests.bench.score.lm_tasks import generation

Serve = Callable[..., Client]
TOLERANCE = 1e-3
GENERATE = generation("names", "names.jsonl", "{{question}}", "{{answer}}", 4)
QUESTIONS = ["anna lives in", "2 plus 3 equals", "the dog of anna is", "a red circle is", "7 plus 1 equals"]


@pytest.fixture
def task(tmp_path: Path) -> Callable[[str], TaskSpec]:
    """The tasks that are compared: lm-eval's choices and generation, and own questions with and without choices."""
    rows = [
        {"qid": str(i), "question": text, "answer": "oslo", "options": ["oslo", "5", "red", "the dog"]}
        for i, text in enumerate(QUESTIONS)
    ]
    tasks = tmp_path / "tasks"
    (tasks / "own").mkdir(parents=True)
    (tasks / "own" / "names.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tasks / "own" / "names.yaml").write_text(GENERATE)
    about = {"version": 1, "description": "d", "source": "s", "licence": "MIT"}
    columns = {"id": "qid", "image": None, "question": "question", "answer": "answer"}
    data = {"path": "own", "train": None, "test": "names"}
    own = {"kind": "vqa", "data": data, "max_new_tokens": 4, "scorer": "exact@1", **about}
    written = {
        "generated": {
            "kind": "text",
            "lm_eval": {"task": "names", "path": "own", "metric": "exact_match"},
            **about,
        },
        "chosen": {**own, "columns": {**columns, "choices": "options"}, "prompt": "{question}"},
    }
    for name, spec in written.items():
        (tasks / f"{name}.yaml").write_text(json.dumps({"task": name, **spec}))

    def get(name: str) -> TaskSpec:
        folder = tasks if name in written else content.package_folder("tasks")
        return read_task(folder / f"{name}.yaml")

    return get


def scored(
    model: MultimodalLM, task: TaskSpec, folder: Path, workspace: Path, server: ServedModel | None
) -> tuple[Cell, list[dict[str, Any]]]:
    backend = None if server is None else Served(model, lambda: server)
    cell = score_cell(
        model,
        task,
        weights="w",
        folder=folder,
        scoring=Scoring(limit=12),
        workspace=workspace,
        backend=backend,
    )
    lines = (folder / str(cell.predictions)).read_text().splitlines()
    return cell, [json.loads(line) for line in lines]


def test_the_server_with_the_weights_is_proved(
    skilled: MultimodalLM, known: Known, serve: Serve, stock_folder: Path
) -> None:
    weights = moextend.active_fingerprint(skilled)
    proof = prove(ServedModel(serve(stock_folder), "stock"), known, weights, TOLERANCE, about="stage 1")
    assert proof.by == "sequences" and proof.fingerprint is None
    assert proof.difference < 1e-4
    assert proof.base is not None and proof.base > 0.01


def test_a_server_that_serves_the_base_is_refused(
    skilled: MultimodalLM, known: Known, serve: Serve, base_folder: Path
) -> None:
    """lm-evaluation-harness#2432: an adapter was named, and the base was scored."""
    server = ServedModel(serve(base_folder), "stock")
    with pytest.raises(ParityRefused, match=r"does not have the weights of stage 1.*It serves the base"):
        prove(server, known, moextend.active_fingerprint(skilled), TOLERANCE, about="stage 1")
    assert prove(server, known, known.base, TOLERANCE, about="the base").base is None


def test_weights_that_random_texts_cannot_tell_from_the_base_are_refused(
    known: Known, serve: Serve, base_folder: Path
) -> None:
    near = [[x + 1e-5 for x in row] for row in known.by_weights[known.base]]
    weak = Known(known.base, known.rows, {**known.by_weights, "near": near})
    server = ServedModel(serve(base_folder), "stock")
    with pytest.raises(ParityRefused, match="cannot be proved"):
        prove(server, weak, "near", TOLERANCE, about="stage 1")
    with pytest.raises(
        ServerFailed, match="with other weights"
    ):  # and not by a fingerprint that it does not give
        prove(ServedModel(server.client, "stock", "near"), weak, "near", TOLERANCE, about="stage 1")


@pytest.mark.parametrize("name", ["tiny-facts", "generated", "chosen"])
def test_both_backends_give_the_same_cell(
    name: str,
    task: Callable[[str], TaskSpec],
    skilled: MultimodalLM,
    serve: Serve,
    stock_folder: Path,
    tmp_path: Path,
) -> None:
    server = ServedModel(serve(stock_folder), "stock")
    moextend.activate(skilled, "skill")
    found = compare_task(
        skilled, server, task(name), Scoring(limit=12), tmp_path, items=3, tolerance=TOLERANCE, seed=0
    )
    assert len(found.items) == 3
    assert found.answers >= 3
    assert (found.difference is None) == (name == "generated")
    assert (found.difference or 0) < 1e-4
    mine, own = scored(skilled, task(name), tmp_path / "a", tmp_path, None)
    theirs, other = scored(skilled, task(name), tmp_path / "b", tmp_path, server)
    assert (mine.backend, theirs.backend) == (None, "openai")
    assert mine.predictions != theirs.predictions, "answers of the backends are kept apart"
    assert (theirs.value, theirs.stderr, theirs.n) == (mine.value, mine.stderr, mine.n)
    assert theirs.readings == pytest.approx(mine.readings)
    assert [line.get("prediction") for line in own] == [line.get("prediction") for line in other]
    again, _ = scored(
        skilled, task(name), tmp_path / "b", tmp_path, ServedModel(Client("http://127.0.0.1:9/v1"), "x")
    )
    assert again.reused, "answers that are there are not asked for again"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("no-echo", "no log-probabilities of a prompt"),
        ("bos", "for a prompt of 32 tokens"),
    ],
)
def test_a_server_that_cannot_be_checked_is_refused(
    fault: str, says: str, known: Known, serve: Serve, base_folder: Path
) -> None:
    with pytest.raises(ServerFailed, match=says):
        prove(
            ServedModel(serve(base_folder), f"stock+{fault}"), known, known.base, TOLERANCE, about="stage 1"
        )


def test_other_answers_and_other_log_likelihoods_are_refused() -> None:
    text, number = ("1", "red", 1), ("2", -4.0, 4)
    found = compared([text, number], [text, ("2", -4.002, 4)], 1e-3, where="here")
    assert (found.items, found.answers, found.likelihoods) == (["1", "2"], 1, 1)
    assert found.difference == pytest.approx(5e-4)
    with pytest.raises(ParityRefused, match=r"answers item 1 by 'blue', and transformers by 'red'"):
        compared([text], [("1", "blue", 1)], 1e-3, where="here")
    with pytest.raises(ParityRefused, match=r"differ by 0.0025 nats per token, more than 0.001"):
        compared([number], [("2", -4.01, 4)], 1e-3, where="here")
    with pytest.raises(ParityRefused, match="nan"):
        compared([number], [("2", float("nan"), 4)], 1e-3, where="here")
