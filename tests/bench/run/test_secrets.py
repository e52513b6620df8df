"""No file that a run writes, and no error, holds a secret of the environment, the hub's token or a YAML's address."""

from pathlib import Path

import pytest

from moextend.bench.data import open_items
from moextend.bench.run.launch import launch
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.progress import read_status
from moextend.data import cells
from moextend.data.images import ImageRef
from moextend.errors import InputError, masked
from moextend.util import content

SECRETS = {
    "HF_TOKEN": "hf_plantedTokenOfTheHub",
    "HUGGING_FACE_HUB_TOKEN": "hf_plantedOlderToken",
    "OPENAI_API_KEY": "sk-plantedKeyOfAnApi",
    "WANDB_API_KEY": "plantedKeyOfATracker",
    "AWS_SECRET_ACCESS_KEY": "plantedKeyOfACloud",
    "https_proxy": "http://planted-user:plantedProxyPassword@127.0.0.1:9",
}
LOGIN = "https://planted-user:plantedYamlPassword@host.example/data"
SEQUENCE = f"""
sequence: small
version: 1
description: See {LOGIN}
base: {{model: tiny, vision: tiny}}
stages: [{{task: secret-counting}}]
retention: [tiny-facts]
train: {{steps: 2, batch_size: 4, learning_rate: 1.0e-3}}
scoring: {{batch_size: 10, limit: 10}}
methods: [lora]
"""


class Silent:
    def update(self) -> None:
        pass


@pytest.fixture
def written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forked_workers: str, small_world: None
) -> dict[Path, bytes]:
    """A run by a true worker with secrets all around it: what it wrote, by path."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    token = tmp_path / "home" / "token"
    token.parent.mkdir()
    token.write_text("hf_plantedTokenOfAFile")
    monkeypatch.setenv("HF_TOKEN_PATH", str(token))
    workspace = tmp_path / "workspace"
    for folder in ("registry", "tasks"):
        (workspace / folder).mkdir(parents=True)
    sequence = workspace / "registry" / "small.yaml"
    sequence.write_text(SEQUENCE)
    task = workspace / "tasks" / "secret-counting.yaml"
    text = content.find("tasks", "tiny-counting", workspace).read_text()
    text = text.replace("task: tiny-counting", "task: secret-counting")
    text = text.replace("licence: Apache-2.0", f"licence: {LOGIN}")
    task.write_text(text.replace("test: test}", f"test: test, prepare: 'Fetch {LOGIN}'}}"))
    (config,) = resolve(Request(workspace=workspace, sequence="small"))
    open_items(config.task_spec("secret-counting"), "train", workspace)  # small, also for the worker
    run = open_run(config, workspace / "runs")
    launch([run.folder], jobs=1, view=Silent())
    assert read_status(run.folder).state == "done", read_status(run.folder).error
    files = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    return {path: data for path, data in files.items() if path not in (sequence, task)}


@pytest.mark.slow
def test_no_file_of_a_run_holds_a_secret(written: dict[Path, bytes]) -> None:
    assert {"config.json", "scores.jsonl", "status.json", "facts.json"} <= {path.name for path in written}
    secrets = [*SECRETS.values(), "hf_plantedTokenOfAFile", "plantedYamlPassword", "planted-user"]
    found = [
        (str(path), secret) for path, data in written.items() for secret in secrets if secret.encode() in data
    ]
    assert found == []
    config = next(data for path, data in written.items() if path.name == "config.json")
    assert b"https://***@host.example/data" in config, "the rest of the address is kept"


def test_no_error_holds_a_password() -> None:
    with pytest.raises(InputError, match=r"web address \(https://\*\*\*@host\.example/data/a\.png\)"):
        cells.media(ImageRef, f"{LOGIN}/a.png", where="row 1", folders=())
    assert masked("at http://u:p@ss@h/x and ftp://h/y@z, a@b.c") == "at http://***@h/x and ftp://h/y@z, a@b.c"
