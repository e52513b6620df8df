"""`bench score` from the command line: models that a trainer writes while they are scored, and wrong input."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from moextend.bench.checkpoints import complete_in
from moextend.bench.run.progress import read_status
from moextend.cli import scoring
from moextend.util import content
from tests.bench.run import elsewhere
from tests.cli.conftest import Cli

TOKENIZER = content.package_folder("registry") / "models" / "tiny" / "lm"
SEQUENCE = """
sequence: outside
version: 1
stages: [{task: tiny-attributes}, {task: tiny-counting}]
scoring: {batch_size: 4, limit: 4}
"""


@pytest.mark.slow  # two forked workers load models
def test_models_are_scored_as_a_trainer_writes_them(
    cli: Cli, tmp_path: Path, forked_workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "SETTLED", 0.0)
    monkeypatch.setattr(scoring, "LOOK_EVERY", 0.1)
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "outside.yaml").write_text(SEQUENCE)
    elsewhere.llava(AutoTokenizer.from_pretrained(TOKENIZER), tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "out" / "stage-2")
    late = tmp_path / "out" / "stage-10"
    shutil.copytree(tmp_path / "base", late)
    weights = (late / "model.safetensors").rename(tmp_path / "later.safetensors")
    run = tmp_path / "runs/outside/theirs-s0"
    states = []

    def go_on_training() -> None:
        while not (run / "status.json").is_file() or read_status(run).state != "waiting":
            time.sleep(0.1)
        states.append({json.loads(line)["stage"] for line in (run / "scores.jsonl").read_text().splitlines()})
        weights.rename(late / "model.safetensors")

    trainer = threading.Thread(target=go_on_training)
    trainer.start()
    asked = ("bench", "score", "outside", "--name", "theirs", "--stage", "base")
    found = cli(*asked, "--watch", "out", "--pattern", "stage-*")
    trainer.join()
    assert found.code == 0, found.err
    assert states == [{0, 1}], "the first two were scored before the third was there"
    assert "waiting for stage 2 (tiny-counting)" in found.err
    assert read_status(run).state == "done"
    assert found.out.count("outside: 2 tasks, trained elsewhere") == 2, "the table grows"
    places = json.loads((run / "config.json").read_text())["places"]["stages"]
    assert [Path(stage["model"]).name for stage in places] == ["base", "stage-2", "stage-10"]


def test_a_checkpoint_counts_when_all_its_shards_are_there_and_rest(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-1.safetensors").write_bytes(b"x")
    assert not complete_in(tmp_path, "*", 0)
    (folder / "model-2.safetensors").write_bytes(b"x")
    assert complete_in(tmp_path, "*", 0) == [folder]
    assert not complete_in(tmp_path, "*", 60), "it may still be written to"
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    assert complete_in(tmp_path, "*", 60) == [folder]
    assert not complete_in(tmp_path, "stage-*", 60)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--name: is missing"),
        (("--name", "mine"), "--stage: is missing"),
        (("--name", "lora", "--stage", str(TOKENIZER)), "--name: 'lora' is a method of this package"),
        (("--name", "mine", "--stage", "nowhere/at/all"), "there is no folder 'nowhere/at/all'"),
        (("--name", "mine", "--stage", str(TOKENIZER), "--task-id", "some"), "--task-id"),
    ],
)
def test_wrong_input_is_one_line_with_a_way_out(cli: Cli, words: tuple[str, ...], said: str) -> None:
    found = cli("bench", "score", "tiny", *words)
    assert found.code == 2 and said in found.err, found.err
