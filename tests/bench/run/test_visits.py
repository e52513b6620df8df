"""Tasks that come back: a second visit is a stage and a column of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from moextend.bench.run import runner
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.rundir import RunDir

SEQUENCE = """
sequence: again
version: 1
base: {model: tiny, vision: tiny}
align: {task: tiny-captions, steps: 2, batch_size: 4, learning_rate: 3.0e-3}
stages: [{task: tiny-attributes}, {task: tiny-counting}, {task: tiny-attributes, steps: 3}]
train: {steps: 2, batch_size: 4, learning_rate: 3.0e-2}
scoring: {batch_size: 10, limit: 10}
"""
NAMES = ["tiny-attributes", "tiny-counting", "tiny-attributes-visit2"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "registry").mkdir()
    (folder / "registry" / "again.yaml").write_text(SEQUENCE)
    yield folder


@pytest.mark.slow  # trains three stages
def test_a_given_task_is_answered_by_its_last_visit(workspace: Path) -> None:
    (config,) = resolve(Request(workspace=workspace, sequence="again", methods=("lora-per-task",)))
    run = open_run(config, workspace / "runs")
    runner.run(run.folder)
    cells = RunDir(run.folder).cells()
    weights = [[cells[stage, name].weights for name in NAMES] for stage in range(4)]
    first, counting, again = weights[1][0], weights[2][1], weights[3][2]
    base = weights[0][0]
    assert len({base, first, counting, again}) == 4
    assert weights == [
        [base, base, base],
        [first, base, first],
        [first, counting, first],
        [again, counting, again],
    ]
    for stage in range(4):
        assert cells[stage, "tiny-attributes"].value == cells[stage, "tiny-attributes-visit2"].value
