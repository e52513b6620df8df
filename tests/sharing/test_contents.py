"""Which files are pushed, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moextend.errors import InputError
from moextend.sharing.hub import kind_of_names, local_paths, pushed
from tests.certificate.conftest import made


@pytest.fixture(scope="module")
def skill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contents") / "skill"
    made(folder)
    return folder


@pytest.fixture
def folder(skill: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(skill, tmp_path / "skill"))


def test_only_files_of_the_extension_are_pushed(folder: Path) -> None:
    for name in (".env", "notes.txt", "trainer_state.json", "optimizer.pt", "tokens/token"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    (folder / "memory.safetensors").symlink_to("/etc/passwd")
    (folder / "certificate-own.md").write_text("# Certificate")
    found = pushed(folder)
    assert found.kind == "extension"
    assert found.names == ("certificate-own.md", "extension.json", "extension.safetensors")
    assert {"memory.safetensors", ".env", "optimizer.pt", "tokens/token"} <= set(found.left_out)


def test_tokens_are_refused(folder: Path) -> None:
    (folder / "log.jsonl").write_text('{"token": "hf_' + "a" * 34 + '"}\n')
    with pytest.raises(InputError, match="access token"):
        pushed(folder)


def test_exported_folders(tmp_path: Path) -> None:
    names = {
        "config.json": '{"model_type": "moextend", "base": "/home/me/base"}', "x.safetensors": "",
        "extensions/0-skill/extension.json": "{}", "tokenizer.json": "{}", "base/model-00001-of-2.safetensors": "",
        "run.sh": "rm", "extensions/0-skill/secret.json": "{}", "README.md": "mine",
    }  # fmt: skip
    for name, text in names.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = pushed(tmp_path)
    assert found.kind == "moextend"
    assert set(found.left_out) == {"run.sh", "extensions/0-skill/secret.json"}
    assert set(found.names) == set(names) - set(found.left_out) - {"README.md"}
    assert local_paths(tmp_path, found.kind) == ["config.json names /home/me/base"]


def test_what_is_nothing_to_push(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mixtral"}))
    with pytest.raises(InputError, match="no extension and no exported model"):
        pushed(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        pushed(tmp_path / "nothing")
    assert kind_of_names({"adapter_config.json", "adapter_model.safetensors"}) == "peft"
    assert kind_of_names({"extension.json"}) is None
