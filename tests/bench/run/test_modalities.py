"""A run whose base sees and hears: alignments, costs and cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from moextend.bench.run import runner
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.progress import read_status

SENSES = """
sequence: senses
version: 1
base: {model: tiny, vision: tiny, audio: tiny}
align:
- {task: tiny-captions, steps: 3, batch_size: 4, learning_rate: 3.0e-3}
- {task: tiny-sounds, steps: 3, batch_size: 4, learning_rate: 3.0e-3}
stages: [{task: tiny-attributes}, {task: tiny-timbre}]
transfer: [tiny-spoken]
train: {steps: 2, batch_size: 4, learning_rate: 3.0e-3}
scoring: {batch_size: 10, limit: 4}
settings:
  moextend: {probe_steps: 1, memory_tokens: 100}
"""


@pytest.mark.slow
def test_a_run_that_sees_and_hears(tmp_path: Path, small_world: None) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "senses.yaml").write_text(SENSES)
    (config,) = resolve(Request(tmp_path, sequence="senses", methods=("moextend:scope=own",)))
    run = open_run(config, tmp_path / "runs")
    runner.run(run.folder)
    assert read_status(run.folder).state == "done"
    assert len(list((tmp_path / ".cache" / "aligned").glob("*/*.safetensors"))) == 2
    row = {(stage, task): cell.value for (stage, task), cell in run.cells().items()}
    assert {task for _, task in row} == {"tiny-attributes", "tiny-timbre", "tiny-spoken"}
    assert row[1, "tiny-attributes"] == row[2, "tiny-attributes"]
    costs = [run.costs()[stage].alignments for stage in (1, 2)]
    assert [list(found) for found in costs] == [["image"], ["audio"]]
    assert [costs[0]["image"].task, costs[1]["audio"].task] == ["tiny-captions", "tiny-sounds"]
    assert costs[1]["audio"].steps == 3 and costs[1]["audio"].flops and costs[1]["audio"].seconds
