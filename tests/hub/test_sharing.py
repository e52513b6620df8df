"""Extensions on the hub: push, pull and load by the real client, and what the hub refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hub.commands import Ended, User
from tests.hub.repositories import Repository
from tests.hub.server import Hub

TOKEN = "hf_of_a_writer"
WEIGHTS = "extension.safetensors"


@pytest.fixture(scope="module")
def skill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An extension of the tiny base."""
    import torch

    import moextend

    folder = tmp_path_factory.mktemp("skills") / "skill"
    model = moextend.load("tiny")
    moextend.attach(model.lm, "skill", {0: [0], 2: [1]})
    with torch.no_grad():
        for key, new in moextend.new_parameters(model.lm, "skill").items():
            new.add_(
                torch.randn(new.shape, generator=torch.Generator().manual_seed(1)) + key.endswith("bias")
            )
    moextend.save_extension(model, "skill", folder=folder)
    return folder


@pytest.fixture
def writer(user: User, hub: Hub, skill: Path) -> Iterator[User]:
    """A user with a token that may write to `me`, and the extension in the workspace."""
    import shutil

    shutil.copytree(skill, user.workspace / "skill")
    hub.uploads.writers[TOKEN] = {"me"}
    hub.tokens[TOKEN] = set()
    yield user
    hub.uploads.writers.clear()
    hub.uploads.stored.clear()
    hub.tokens.pop(TOKEN)
    for key in [key for key in hub.repositories if key[1].startswith("me/")]:
        del hub.repositories[key]


def push(user: User, *more: str, name: str = "me/skill", token: str = TOKEN) -> Ended:
    return user("push", "skill", name, *more, HF_TOKEN=token)


def files_of(hub: Hub, name: str = "me/skill", branch: str = "main") -> dict[str, bytes]:
    """Files of a branch."""
    found: Repository = hub.repositories["models", name]
    return {path: file.content for path, file in found.commits[found.refs[branch]].items()}


@pytest.mark.long  # 38 s; test_path.py has the way from a hub to a report
def test_push_pull_and_load(writer: User, hub: Hub, skill: Path) -> None:
    (writer.workspace / "skill" / ".env").write_text("SECRET=1")
    pushed = push(writer, "--licence", "mit", "--message", "First")
    assert pushed.code == 0, pushed.text
    held = files_of(hub)
    assert set(held) == {".gitattributes", "README.md", "extension.json", WEIGHTS}
    assert held[WEIGHTS] == (skill / WEIGHTS).read_bytes() and hub.uploads.messages[-1] == "First"
    assert yaml.safe_load(held["README.md"].decode().split("---")[1])["license"] == "mit"
    assert {asked.token for asked in hub.asked if not asked.on_hub} == {None}, "the storage gets no token"
    pulled = writer("pull", "me/skill", "--out", "copy")
    assert pulled.code == 0, pulled.text
    copy = writer.workspace / "copy"
    assert {path.name for path in copy.iterdir()} == {"README.md", "extension.json", WEIGHTS}
    assert (copy / WEIGHTS).read_bytes() == (skill / WEIGHTS).read_bytes()
    ask = ("generate", "tiny", "--prompt", "anna lives in", "--max-new-tokens", "4")
    local, remote, base = (writer(*ask, *more) for more in (("-e", "copy"), ("-e", "me/skill"), ()))
    assert remote.code == 0 and remote.text == local.text != base.text
    offline = writer(*ask, "-e", "me/skill", offline=True)
    assert offline.code == 0 and offline.text == local.text


def test_branches_and_revisions(writer: User, hub: Hub) -> None:
    assert push(writer, "--branch", "v1").code == 0
    assert WEIGHTS in files_of(hub, branch="v1") and WEIGHTS not in files_of(hub)
    assert writer("pull", "me/skill@v1", "--out", "a").code == 0
    assert writer("pull", "me/skill", "--revision", "v1", "--out", "b").code == 0
    empty = writer("pull", "me/skill", "--out", "c")
    assert empty.code == 2 and "holds no extension and no exported model" in empty.error
    missing = writer("pull", "me/skill@v9", "--out", "d")
    assert missing.code == 2 and "has no revision 'v9'" in missing.error
    ask = ("generate", "tiny", "--prompt", "anna lives in", "-e")
    assert writer(*ask, "me/skill@v1").code == 0
    assert writer(*ask, "me/skill").code == 2 and writer(*ask, "me/skill@v9").code == 2
    twice = push(writer, "--branch", "v1", name="me/skill@v2")
    assert twice.code == 2 and "given twice" in twice.error


def test_private_repositories(writer: User, hub: Hub) -> None:
    assert push(writer, "--private").code == 0
    assert hub.repositories["models", "me/skill"].private
    assert writer("pull", "me/skill", "--out", "a").code == 2, "without a token"
    assert writer("pull", "me/skill", "--out", "a", HF_TOKEN=TOKEN).code == 0
    assert push(writer, name="me/open").code == 0
    leak = push(writer, "--private", name="me/open")
    assert leak.code == 2 and "exists and is public" in leak.error


def test_what_is_refused(writer: User, hub: Hub) -> None:
    none = push(writer, token="")
    assert none.code == 2 and "only from users with a token" in none.error and hub.asked == []
    wrong = push(writer, token="hf_wrong")
    assert wrong.code == 2 and "refuses the token" in wrong.error
    other = push(writer, name="you/skill")
    assert other.code == 2 and "may not write there" in other.error
    assert push(writer, name="skill").code == 2 and push(writer, name="a/b/c").code == 2
    gone = writer("pull", "me/nothing", "--out", "a")
    assert gone.code == 2 and "the hub has no such model" in gone.error
    model = writer("pull", "org/olmoe", "--out", "a")
    assert model.code == 2 and "holds no extension" in model.error
    not_one = writer("generate", "tiny", "--prompt", "a", "-e", "org/olmoe")
    assert not_one.code == 2 and "holds no extension" in not_one.error
    assert not (writer.workspace / "a").exists()
    for ended in (none, wrong, other, gone, model):
        assert TOKEN not in ended.text and "Traceback" not in ended.text


@pytest.mark.parametrize(
    ("match", "how"),
    [
        ("PUT /upload", {"status": 403}),
        ("POST .*/commit/", {"status": 500}),
        ("POST .*/preupload/", {"status": 504}),
    ],
)
def test_an_upload_that_fails_leaves_nothing(writer: User, hub: Hub, match: str, how: dict[str, Any]) -> None:
    hub.fail(match, **how)
    failed = push(writer)
    assert failed.code in (1, 2) and "Traceback" not in failed.text, failed.text
    assert set(files_of(hub)) == {".gitattributes"}, "a commit is complete or absent"
    hub.recover()
    assert push(writer).code == 0 and WEIGHTS in files_of(hub)


def test_a_repository_with_pickles(writer: User, hub: Hub) -> None:
    assert push(writer).code == 0
    repository = hub.repositories["models", "me/skill"]
    held = repository.commits[repository.refs["main"]]
    for name in ("optimizer.pt", "run.sh", "pytorch_model.bin"):
        held[name] = hub.uploads.file(name, b"\x80\x04.")
    hub.recover()
    assert writer("pull", "me/skill", "--out", "a").code == 0
    assert not {"optimizer.pt", "run.sh", "pytorch_model.bin"} & set(hub.bodies())
    assert not (writer.workspace / "a" / "optimizer.pt").exists()
