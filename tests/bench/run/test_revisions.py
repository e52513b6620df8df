"""A run resolves the commits of the hub once, records them, and opens them ever after."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
import yaml

from moextend.bench.report.explain import data_sources, method_sources
from moextend.bench.run import inputs, models
from moextend.bench.run.context import RunContext, refuse_changed_inputs
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.rundir import RunDir
from moextend.bench.task import TaskSpec
from moextend.data import hub as opened
from moextend.util import content
from tests.bench.data.hub_rows import Hub
from tests.hub import server

TINY = content.package_folder("registry") / "models" / "tiny"
DATA = "lmms-lab-encoder/ChartQA"
MOVED = hashlib.sha1(b"moved").hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[server.Hub]:
    with server.connected(tmp_path / "cache", monkeypatch) as found:
        found.push("org/base", TINY / "lm")
        found.push("org/tower", TINY / "vision")
        yield found


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    (tmp_path / "rows").mkdir()
    found = Hub(tmp_path / "rows")
    opened._load.cache_clear()
    monkeypatch.setattr(datasets, "load_dataset", found.load_dataset)
    yield found
    opened._load.cache_clear()


def prepared(workspace: Path, **base: str) -> RunDir:
    sequence = {
        "sequence": "hubbed", "version": 1, "base": {"model": "org/base", "vision": "hf-hub:org/tower", **base},
        "stages": [{"task": "charts"}], "train": {"steps": 1, "batch_size": 1, "learning_rate": 0.001},
    }  # fmt: skip
    task = {
        "task": "charts", "version": 1, "kind": "vqa", "data": {"path": DATA, "train": "test", "test": "test"},
        "columns": {"image": "image", "question": "question", "answer": "answer"}, "scorer": "relaxed@1",
    }  # fmt: skip
    for folder, name, record in (("registry", "hubbed", sequence), ("tasks", "charts", task)):
        (workspace / folder).mkdir(exist_ok=True)
        (workspace / folder / f"{name}.yaml").write_text(yaml.safe_dump(record))
    (config,) = resolve(Request(workspace=workspace, sequence="hubbed", methods=("zero-shot",)))
    return open_run(config, workspace / "runs")


def test_models_are_opened_at_the_recorded_commits_after_the_branch_moved(
    hub: server.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(tmp_path)
    models.base(RunContext(run))
    first = {name: next(iter(found.commits)) for (_, name), found in hub.repositories.items()}
    known = {"base": {"org/base": first["org/base"]}, "image encoder": {"org/tower": first["org/tower"]}}
    assert run.facts().models == known
    moved = {
        name: hub.push(name, TINY / part) for name, part in (("org/base", "lm"), ("org/tower", "vision"))
    }
    hub.asked.clear()
    models.base(RunContext(run))
    assert run.facts().models == known
    assert not hub.revisions() & {"main", *moved.values()}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.asked.clear()
    models.base(RunContext(run))
    assert run.facts().models == known and not hub.asked
    shown = method_sources(run)
    assert shown["base"] == f"org/base, commit {first['org/base']} of org/base"
    assert shown["image encoder"] == f"hf-hub:org/tower, commit {first['org/tower']} of org/tower"


def test_data_are_opened_at_the_recorded_commit_after_the_branch_moved(rows: Hub, tmp_path: Path) -> None:
    run = prepared(tmp_path, model="tiny", vision="tiny")
    refuse_changed_inputs(RunContext(run))
    first = hashlib.sha1(DATA.encode()).hexdigest()
    assert run.facts().revisions == {"charts": first}
    assert {asked[3] for asked in rows.asked[1:]} == {first}, "every split is of the commit of the first one"
    rows.newest[DATA] = MOVED
    rows.asked.clear()
    opened._load.cache_clear()
    refuse_changed_inputs(RunContext(run))
    assert {asked[3] for asked in rows.asked} == {first} and run.facts().revisions == {"charts": first}
    assert f"{DATA}, commit {first}, digest " in data_sources(run, "charts")["data"]


def test_data_of_text_tasks_are_recorded_and_pinned(
    rows: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(tmp_path, model="tiny", vision="tiny")
    text = TaskSpec.model_validate(
        {"task": "facts", "version": 1, "kind": "text", "lm_eval": {"task": "facts"}}
    )
    monkeypatch.setattr(inputs, "text_commits", lambda task, workspace: {"org/facts": MOVED})
    inputs.record_commits(run, text, tmp_path)
    monkeypatch.setattr(inputs, "text_commits", lambda task, workspace: {"org/facts": "newer"})
    inputs.record_commits(run, text, tmp_path)
    assert run.facts().text_data == {"facts": {"org/facts": MOVED}}
    pinned = inputs.pinned_task(text, run.facts())
    assert pinned.lm_eval is not None and pinned.lm_eval.revisions == {"org/facts": MOVED}
    assert "revisions" not in text.model_dump(mode="json")["lm_eval"], (
        "records of former runs stay what they are"
    )
