"""Runs whose base sees and hears, and one with a modality of a plug-in: alignments, costs, cells, restored models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moextend.bench.run import runner
from moextend.bench.run.models import restored
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir
from tests import toys

EYES = """
sequence: {name}
version: 1
base: {{model: tiny, vision: tiny{audio}}}
align: {align}
stages: [{stages}]
transfer: [{transfer}]
train: {{steps: 4, batch_size: 8, learning_rate: 3.0e-3}}
scoring: {{batch_size: 10, limit: 20}}
settings:
  moextend: {{probe_steps: 2, memory_tokens: 100}}
"""
ALIGN = "{{task: {}, steps: 3, batch_size: 8, learning_rate: 3.0e-3}}"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "registry").mkdir()
    captions, sounds = ALIGN.format("tiny-captions"), ALIGN.format("tiny-sounds")
    eyes = EYES.format(
        name="eyes", audio="", align=captions, stages="{task: tiny-attributes}", transfer="tiny-counting"
    )
    senses = EYES.format(
        name="senses", audio=", audio: tiny", align=f"[{captions}, {sounds}]", transfer="tiny-counting, tiny-spoken",
        stages="{task: tiny-attributes}, {task: tiny-timbre}, {task: tiny-match}",
    )  # fmt: skip
    for name, text in (("eyes", eyes), ("senses", senses)):
        (folder / "registry" / f"{name}.yaml").write_text(text)
    return folder


def done(workspace: Path, sequence: str, method: str) -> RunDir:
    (config,) = resolve(Request(workspace, sequence=sequence, methods=(method,)))
    run = open_run(config, workspace / "runs")
    runner.run(run.folder)
    return run


@pytest.mark.slow
def test_a_run_that_sees_and_hears(workspace: Path) -> None:
    eyes, senses = (done(workspace, name, "moextend:scope=own") for name in ("eyes", "senses"))
    assert read_status(senses.folder).state == "done"
    aligned = sorted((workspace / ".cache" / "aligned").glob("*/*.safetensors"))
    assert len(aligned) == 2, "images are aligned once for both sequences"
    row = {(stage, task): cell.value for (stage, task), cell in senses.cells().items()}
    assert {task for _, task in row} == {
        "tiny-attributes", "tiny-timbre", "tiny-match", "tiny-counting", "tiny-spoken",
    }  # fmt: skip
    before = {key: cell.value for key, cell in eyes.cells().items() if key[0] == 0}
    assert {key: row[key] for key in before} == before, "ears change nothing of what the base sees"
    assert len({row[stage, "tiny-attributes"] for stage in (1, 2, 3)}) == 1
    costs = [senses.costs()[stage].alignments for stage in (1, 2, 3)]
    assert [list(found) for found in costs] == [["image"], ["audio"], []]
    assert [costs[0]["image"].task, costs[1]["audio"].task] == ["tiny-captions", "tiny-sounds"]
    assert costs[1]["audio"].steps == 3 and costs[1]["audio"].flops and costs[1]["audio"].seconds
    assert costs[0] == eyes.costs()[1].alignments, "what it cost, also where another run paid"


@pytest.mark.slow
def test_a_run_with_a_modality_of_a_plug_in(tmp_path: Path) -> None:
    toys.series()
    for folder in ("registry", "tasks", "data"):
        (tmp_path / folder).mkdir()
    lines = []
    for i in range(24):
        up = i % 2
        values = [f"{(step if up else 12 - step) + i / 100}" for step in range(12)]
        (tmp_path / "data" / f"{i}.csv").write_text("\n".join(["value", *values]))
        lines.append(
            json.dumps({"curve": f"{i}.csv", "question": "does it grow ?", "answer": ["no", "yes"][up]})
        )
    (tmp_path / "data" / "curves.jsonl").write_text("\n".join(lines))
    (tmp_path / "tasks" / "growth.yaml").write_text(
        "{task: growth, version: 1, kind: vqa, prompt: '<series> Q {question} A:', max_new_tokens: 2,\n"
        "data: {path: ../data/curves.jsonl, train: 'all[:60%]', test: 'all[60%:]'},\n"
        "columns: {media: {series: curve}, question: question, answer: answer}}\n"
    )
    text = EYES.format(
        name="curves", audio="", align=ALIGN.format("growth"), stages="{task: growth}", transfer=""
    ).replace("vision: tiny", "encoders: {series: fourier}")
    (tmp_path / "registry" / "curves.yaml").write_text(text)
    run = done(tmp_path, "curves", "moextend:scope=own")
    assert list(restored(run).modalities) == ["series"]
    assert set(run.cells()) == {(0, "growth"), (1, "growth")}
    assert list(run.costs()[1].alignments) == ["series"]
