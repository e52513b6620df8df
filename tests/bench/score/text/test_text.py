"""The bridge to lm-eval: its numbers per item, and errors that affect only one task."""

import json
import random
import shutil
import socket
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.score.records import Cell
from moextend.bench.sequence import Scoring
from moextend.errors import RunFailed, UnknownName
from tests.bench.score.text.conftest import MakeTask


def by_lm_eval(model: Any, workspace: Path, name: str, cache: Path, **changes: Any) -> Any:
    """What lm-eval's own front door says, on a copy with absolute paths."""
    import datasets
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = cache / "copy"
    shutil.copytree(workspace / "tasks" / "lm", folder)
    for path in folder.glob("*.yaml"):
        path.write_text(path.read_text().replace("{folder}", str(folder)))
    before, datasets.config.HF_DATASETS_CACHE = datasets.config.HF_DATASETS_CACHE, cache / "hf"
    try:
        return simple_evaluate(
            model=HFLM(pretrained=model.lm, tokenizer=model.tokenizer, backend="causal", batch_size=8),
            tasks=[name], task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            bootstrap_iters=0, **changes,
        )  # fmt: skip
    finally:
        datasets.config.HF_DATASETS_CACHE = before


def lines_of(tmp_path: Path, cell: Cell) -> list[dict[str, Any]]:
    assert cell.predictions
    path = tmp_path / "predictions" / cell.predictions
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "changes"),
    [("first", {"metric": "acc_norm"}), ("shots", {"num_fewshot": 1, "limit": 7})],
)  # fmt: skip
def test_numbers_of_lm_eval(
    name: str,
    changes: dict[str, Any],
    make_task: MakeTask,
    model: Any,
    score: Callable[..., Cell],
    workspace: Path,
    tmp_path: Path,
) -> None:
    cell = score(make_task(name, **changes))
    own = {key: value for key, value in changes.items() if key != "metric"}
    found = by_lm_eval(model, workspace, name, tmp_path, **own)
    metric = changes.get("metric", "acc")
    assert cell.value == pytest.approx(100 * found["results"][name][f"{metric},none"])
    assert cell.n == changes.get("limit", 20)
    *kept, summary = lines_of(tmp_path, cell)
    for line, sample in zip(kept, found["samples"][name], strict=True):
        assert line["id"] == sample["doc_id"] and line["right"] == sample[metric]
        assert line["question"] and sample["arguments"][0][0].endswith(line["question"])
        assert line["loglikelihoods"] == pytest.approx(
            [resp[0] for resp in sample["filtered_resps"]], abs=1e-5
        )
        assert line["right"] == (line["prediction"] == line["gold"])
    assert summary["summary"]["value"] == cell.value
    values = [line["right"] for line in kept]
    assert cell.stderr == pytest.approx(100 * statistics.stdev(values) / len(values) ** 0.5)


def test_group(
    make_task: MakeTask, model: Any, score: Callable[..., Cell], workspace: Path, tmp_path: Path
) -> None:
    cell = score(make_task("both"))
    found = by_lm_eval(model, workspace, "both", tmp_path)["results"]
    assert cell.value == pytest.approx(100 * found["both"]["acc,none"])
    assert cell.n == 32 and cell.kind_sizes == {"first": 20, "second": 12}
    assert cell.by_kind["second"] == pytest.approx(100 * found["second"]["acc,none"])
    parts = [score(make_task(name)) for name in ("first", "second")]
    first, second = (part.stderr for part in parts)
    assert first is not None and second is not None
    pooled = (first * 20 / 32) ** 2 + (second * 12 / 32) ** 2
    assert cell.stderr == pytest.approx(pooled**0.5)


def test_generation(
    make_task: MakeTask, model: Any, score: Callable[..., Cell], workspace: Path, tmp_path: Path
) -> None:
    cell = score(make_task("says", metric="exact_match"))
    found = by_lm_eval(model, workspace, "says", tmp_path)
    assert cell.value == pytest.approx(100 * found["results"]["says"]["exact_match,none"])
    kept = lines_of(tmp_path, cell)[:-1]
    assert [line["prediction"] for line in kept] == [
        sample["filtered_resps"][0] for sample in found["samples"]["says"]
    ]


def test_existing_scores_are_not_computed_again(
    make_task: MakeTask,
    model: Any,
    score: Callable[..., Cell],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    task = make_task("first")
    first = score(task)
    monkeypatch.setattr(type(model.lm), "forward", lambda *_, **__: pytest.fail("the model was asked"))
    again = score(task)
    assert not first.reused and again.reused
    assert (again.value, again.stderr, again.n, again.predictions) == (
        first.value,
        first.stderr,
        20,
        first.predictions,
    )


def test_incomplete_file_is_made_again(
    make_task: MakeTask, score: Callable[..., Cell], tmp_path: Path
) -> None:
    first = score(make_task("first"))
    assert first.predictions
    path = tmp_path / "predictions" / first.predictions
    whole = path.read_bytes()
    for cut in (0, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert not score(make_task("first")).reused and path.read_bytes() == whole


def test_changed_data_yaml_or_setting_is_another_key(
    make_task: MakeTask, score: Callable[..., Cell], workspace: Path
) -> None:
    files = {score(make_task("first")).predictions}
    files.add(score(make_task("first"), scoring=Scoring(batch_size=4)).predictions)
    files.add(score(make_task("first", limit=5)).predictions)
    files.add(score(make_task("first", metric="acc_norm")).predictions)
    folder = workspace / "tasks" / "lm"
    data = folder / "data" / "one.jsonl"
    data.write_text("".join(data.read_text().splitlines(keepends=True)[1:]))
    files.add(score(make_task("first")).predictions)
    yaml = folder / "first.yaml"
    yaml.write_text(yaml.read_text().replace('"{{context}}"', '"Q {{context}}"'))
    files.add(score(make_task("first")).predictions)
    assert len(files) == 6


CODE = """
ANSWER = "Q "

def process_docs(docs):
    return docs.map(lambda doc: {**doc, "context": ANSWER + doc["context"]})
"""


def test_the_key_of_a_task_with_functions_is_that_of_their_code(
    make_task: MakeTask, score: Callable[..., Cell], workspace: Path
) -> None:
    """Not an address in memory, which is another one in each process; and also the code that a function uses."""
    from moextend.bench.score.text import harness

    folder = workspace / "tasks" / "lm"
    (folder / "utils.py").write_text(CODE)
    with (folder / "first.yaml").open("a") as file:
        file.write("process_docs: !function utils.process_docs\n")
    task = make_task("first", trust_remote_code=True)
    first = score(task)
    harness._load.cache_clear()
    harness._manager.cache_clear()
    assert score(task).reused
    (folder / "utils.py").write_text(CODE.replace("Q", "R"))
    other = score(task)
    assert not other.reused and other.predictions != first.predictions


def test_random_states_mode_and_caches_are_left_alone(
    make_task: MakeTask, model: Any, score: Callable[..., Cell], workspace: Path
) -> None:
    import datasets
    import numpy
    import torch

    model.lm.train()
    random.seed(5), numpy.random.seed(5), torch.manual_seed(5)

    def states() -> tuple[object, ...]:
        ours: Any = numpy.random.get_state()
        return random.getstate(), ours[1].tolist(), ours[2], torch.get_rng_state().tolist()

    before = states()
    bars = datasets.are_progress_bars_disabled()
    score(make_task("shots"))
    assert states() == before
    assert model.lm.training
    assert datasets.are_progress_bars_disabled() == bars
    assert any((workspace / ".cache" / "rows").glob("*/json"))


def test_quiet_and_without_network(
    make_task: MakeTask,
    score: Callable[..., Cell],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    seen = []
    score(make_task("first"), on_items=lambda done, total: seen.append((done, total)))
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")
    assert seen[-1][0] == seen[-1][1] > 0 and seen == sorted(seen)


def test_unknown_task(make_task: MakeTask, score: Callable[..., Cell]) -> None:
    with pytest.raises(
        UnknownName, match=r"t-frist.yaml: lm_eval.task: no lm-eval task 'frist'. Did you mean 'first'\?"
    ):
        score(make_task("frist"))


def test_a_broken_task_costs_only_itself(
    make_task: MakeTask, score: Callable[..., Cell], workspace: Path
) -> None:
    (workspace / "tasks" / "lm" / "data" / "one.jsonl").unlink()
    with pytest.raises(
        RunFailed, match=r"t-first.yaml: lm_eval: lm-eval failed on 'first' \(FileNotFoundError"
    ):
        score(make_task("first"))
    assert score(make_task("second")).n == 12
