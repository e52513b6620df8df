"""Variants of finished runs: which there are, how they are scored, and what interrupts leave."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run import models, variants
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir
from moextend.bench.run.runner import run as execute
from moextend.bench.run.variants import score_variants
from moextend.bench.score import evaluate
from moextend.errors import InputError, RunFailed
from tests.bench.conftest import MakeConfig
from tests.bench.run.test_runner import prepared, workspace

__all__ = ["workspace"]


def labels(found: Sequence[variants.Variant]) -> list[str]:
    return [variants.label(each) for each in found]


def test_which_variants_there_are(make_config: MakeConfig) -> None:
    config = make_config("moextend")
    assert variants.rewound(config)[1] == (("colour", 0.25), ("count", 0.25))
    assert labels(variants.rewound(config)) == [f"strength {s}" for s in ("0", "0.25", "0.5", "0.75", "1")]
    assert labels(variants.subsets(config)) == ["without colour", "without count"]


@pytest.mark.parametrize(
    ("method", "mode", "subsets", "why"),
    [
        ("zero-shot", "sequence", False, "'zero-shot' learns cannot be scaled"),
        ("lora", "sequence", True, "train the same weights"),
        ("moextend", "independent", False, "a model for each stage"),
        ("moextend", "joint", True, "has one stage"),
        ("lora", "joint", False, None),
        ("full-ft", "sequence", False, None),
        ("o-lora", "sequence", True, None),
        ("moextend:scope=all", "sequence", True, None),
    ],
)
def test_what_is_refused(
    make_config: MakeConfig, method: str, mode: str, subsets: bool, why: str | None
) -> None:
    found = variants.refusal(make_config(method, mode=mode), subsets=subsets)
    assert found is None if why is None else why in str(found)


@pytest.fixture(scope="module")
def done(workspace: Path) -> RunDir:
    """A run of two stages of MoExtend, with all extensions for every input."""
    made = prepared(workspace, "moextend:scope=all,layers=last")
    execute(made.folder)
    return made


@pytest.fixture
def run(done: RunDir) -> Iterator[RunDir]:
    """That run without variants; what a test changes in its records is put back."""
    before = files_of(done)
    yield RunDir(done.folder)
    (done.folder / variants.FILE).unlink(missing_ok=True)
    for name, content in before.items():
        (done.folder / name).write_bytes(content)


def files_of(run: RunDir) -> dict[str, bytes]:
    names = ("config.json", "scores.jsonl", "status.json", "facts.json")
    return {name: (run.folder / name).read_bytes() for name in names}


def test_a_dial_is_scored_once_and_changes_no_file(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    before, cells, steps = files_of(run), run.cells(), list[str]()
    wanted = [variants.rewound(run.config)[place] for place in (0, 2, 4)]
    assert score_variants(run, wanted, steps.append) == []
    tasks = variants.tasks_of(run.config)
    assert [step.partition(" (")[2] for step in steps] == [f"{n} of 9)" for n in range(1, 10)]
    found = variants.read(run)
    for task in tasks:
        for variant, stage in ((wanted[0], 0), (wanted[2], 2)):
            mine, row = found[variant, task], cells[stage, task]
            assert (mine.value, mine.weights, mine.sha256) == (row.value, row.weights, row.sha256), task
    assert files_of(run) == before and read_status(run.folder).state == "done"
    monkeypatch.setattr(models, "restored_stages", None)  # no model is needed
    assert score_variants(run, wanted) == []


def test_an_interrupted_dial_goes_on_where_it_stopped(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, score = variants.subsets(run.config), evaluate.score_cell
    calls = list[str]()

    def some(model: Any, task: Any, **more: Any) -> Any:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(task.task)
        return score(model, task, **more)

    monkeypatch.setattr(evaluate, "score_cell", some)
    with pytest.raises(KeyboardInterrupt):
        score_variants(run, wanted)
    assert len(variants.read(run)) == 2
    with (run.folder / variants.FILE).open("a") as file:
        file.write('{"stage": 2, "task": "tiny-')  # as a power cut leaves a line
    monkeypatch.setattr(evaluate, "score_cell", score)
    steps = list[str]()
    assert score_variants(run, wanted, steps.append) == []
    assert "(3 of 6)" in steps[0] and len(variants.read(run)) == 2 * len(variants.tasks_of(run.config))


def test_a_cell_that_cannot_be_scored_is_named(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    score = evaluate.score_cell

    def some(model: Any, task: Any, **more: Any) -> Any:
        if task.kind == "text":
            raise RunFailed("no room.", where="here", hint="Make some.")
        return score(model, task, **more)

    monkeypatch.setattr(evaluate, "score_cell", some)
    failed = score_variants(run, variants.subsets(run.config)[1:])
    assert len(failed) == len(run.config.retention) and "no room" in failed[0]
    assert len(variants.read(run)) == 2


def test_a_run_that_is_not_done_is_refused(run: RunDir) -> None:
    status = json.loads((run.folder / "status.json").read_text())
    (run.folder / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    with pytest.raises(InputError, match="is not done"):
        score_variants(run, variants.rewound(run.config))
