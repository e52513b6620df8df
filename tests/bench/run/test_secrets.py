"""No file that a run writes, and no error, holds a secret of the environment, the hub's token or a YAML's address."""

from pathlib import Path

import pytest

from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.progress import read_status
from moextend.data import cells
from moextend.data.images import ImageRef
from moextend.errors import InputError, masked
from tests.bench.run.local import launch
from tests.robustness import workspace as small

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
stages: [{{task: colour}}]
retention: [words]
train: {{steps: 2, batch_size: 4, learning_rate: 1.0e-3}}
scoring: {{batch_size: 4, limit: 4}}
methods: [lora]
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forked_workers: str) -> dict[Path, bytes]:
    """A run by a true worker with secrets all around it: what it wrote, by path."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    token = tmp_path / "home" / "token"
    token.parent.mkdir()
    token.write_text("hf_plantedTokenOfAFile")
    monkeypatch.setenv("HF_TOKEN_PATH", str(token))
    workspace = small.make(tmp_path / "workspace")
    (workspace / "registry" / "small.yaml").write_text(SEQUENCE)
    task = workspace / "tasks" / "colour.yaml"
    text = task.read_text().replace("images: ../images}", f"images: ../images, prepare: 'Fetch {LOGIN}'}}")
    assert LOGIN in text
    task.write_text(f"{text}licence: {LOGIN}\n")
    given = set(workspace.rglob("*"))
    (config,) = resolve(Request(workspace=workspace, sequence="small"))
    run = open_run(config, workspace / "runs")
    launch([run.folder])
    assert read_status(run.folder).state == "done", read_status(run.folder).error
    return {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file() and path not in given}


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
