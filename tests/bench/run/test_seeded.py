"""A task whose data are another for each seed: what is opened, compared, checked and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from moextend.bench.data import open_items
from moextend.bench.report.collect import collect
from moextend.bench.report.explain import data_sources
from moextend.bench.report.items import ItemReader, contrast
from moextend.bench.run import runner
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.preflight import check_here
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError
from tests.bench.run.test_changed_data import SEQUENCE, TASK, picture

SEEDS = (3, 4)


@pytest.fixture
def workspace(tmp_path: Path, small_world: None) -> Path:
    """A workspace with a task of four images to learn and four to score for each seed, with ids of their own."""
    for seed in (0, *SEEDS):
        folder = tmp_path / f"tasks/pets-{seed}"
        folder.mkdir(parents=True)
        for split in ("train", "test"):
            rows: list[dict[str, Any]] = []
            for i in range(4):
                picture(folder / f"{split}{i}.png", i + 4 * (seed == 4))
                rows.append({"id": f"{seed}-{i}", "image": f"{split}{i}.png", "question": "what color"})
                rows[-1]["answer"] = ("red", "blue")[i % 2]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task: dict[str, Any] = dict(TASK)
    task |= {"data": {**task["data"], "path": "pets-{seed}"}, "columns": {**task["columns"], "id": "id"}}
    (tmp_path / "tasks/pets.yaml").write_text(yaml.safe_dump(task))
    (tmp_path / "registry").mkdir()
    only = SEQUENCE.replace("[{task: tiny-attributes}, {task: pets}]", "[{task: pets}]")
    (tmp_path / "registry/pets.yaml").write_text(only)
    return tmp_path


def runs_of(workspace: Path, *methods: str) -> list[RunDir]:
    configs = resolve(Request(workspace=workspace, sequence="pets", methods=methods, seeds=SEEDS))
    return [open_run(config, workspace / "runs") for config in configs]


def test_a_run_opens_the_data_of_its_seed_and_a_command_without_a_run_those_of_seed_0(
    workspace: Path,
) -> None:
    for run, seed in zip(runs_of(workspace, "zero-shot"), SEEDS, strict=True):
        assert run.config.tasks["pets"]["data"]["path"] == "pets-{seed}", (
            "runs of all seeds are one experiment"
        )
        items = open_items(run.config.task_spec("pets"), "test", workspace)
        assert [item.id for item in items] == [f"{seed}-{i}" for i in range(4)]
        assert data_sources(run, "pets")["data"].startswith(f"pets-{seed}")
    task = Request(workspace=workspace, sequence="pets").tasks["pets"]
    assert [item.id for item in open_items(task, "test", workspace)] == [f"0-{i}" for i in range(4)]


def test_the_data_of_every_seed_are_looked_for_before_a_run(workspace: Path) -> None:
    request = Request(workspace=workspace, sequence="pets")
    sequence, tasks, _ = request.read
    check_here(sequence, tasks, workspace, device=None, runs=None, seeds=SEEDS)
    with pytest.raises(InputError, match=r"no file or folder .*pets-5"):
        check_here(sequence, tasks, workspace, device=None, runs=None, seeds=(3, 5))


@pytest.mark.slow  # four runs
def test_seeds_with_data_of_their_own_are_one_experiment_whose_items_are_not_shared(workspace: Path) -> None:
    runs = runs_of(workspace, "zero-shot", "lora")
    for run in runs:
        runner.run(run.folder)
    (found,) = collect(runs)
    assert len(found.results) == 4 and not found.left_out and not found.apart
    by = {(result.config.method, result.config.seed): result for result in found.results}
    reader, weights = ItemReader(), {(1, "pets"): 1.0}
    parts = [tuple(reader.parts(by[name, seed], weights) for name in ("lora", "zero-shot")) for seed in SEEDS]
    compared = contrast([1.0, 2.0], parts)  # type: ignore[arg-type]
    assert compared is not None and compared.clusters == 8
    assert compared.item_variance == compared.unseen, "no item is common to two seeds"

    (workspace / "tasks/pets-4/test.jsonl").write_text(
        (workspace / "tasks/pets-4/test.jsonl").read_text().replace("red", "green")
    )
    (other,) = (run for run in runs_of(workspace, "zero-shot", "replay") if run.folder.name == "replay-s4")
    runner.run(other.folder)
    first, second = collect([*runs, other])
    assert [result.name for result in second.results] == ["replay-s4"]
    assert "test data of task 'pets' with seed 4" in first.apart[0]
