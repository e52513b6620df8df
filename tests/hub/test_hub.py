"""From the hub to a report and without it again; what the hub refuses; extensions on the hub. One file: one server."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import moextend
from tests.hub.commands import Ended, User
from tests.hub.contents import ARC, VQA
from tests.hub.repositories import Repository
from tests.hub.server import Hub

SHARDS = {f"model-0000{number}-of-00004.safetensors" for number in (1, 2, 3, 4)}
METADATA = {"config.json", "README.md"}


def test_from_the_hub_to_a_report_and_again_without_it(user: User, hub: Hub) -> None:
    assert user("bench", "new", "sequence", "shop", "--base", "org/olmoe", "--vision", "tiny").code == 0
    added = user("bench", "add-task", "vqa", "--data", VQA, "--name", "signs", "-s", "shop")
    assert added.code == 0 and "20 train, 20 test items" in added.text, added.text
    assert "answer: stop (scores 1 by vqa@2)" in added.text
    user.sequence(text=True)  # as short as a test has to be
    hub.recover()

    dry = user("bench", "run", "shop", "--dry-run", "--json")
    assert dry.code == 0, dry.text
    (model,) = json.loads(dry.text)["downloads"]
    files = next(iter(hub.repositories["models", "org/olmoe"].commits.values()))
    size = sum(len(file.content) for name, file in files.items() if name != "README.md")
    assert model["what"] == "model org/olmoe from the hub" and model["problem"] is None
    assert model["mb"] == pytest.approx(size / 1e6)
    assert set(hub.bodies()) <= METADATA, "weights were downloaded by a dry run"
    assert not [blob for blob in user.blobs("models--*") if blob.stat().st_size > 10_000]

    ran = user.run()
    assert ran.code == 0 and "Traceback" not in ran.text, ran.text
    assert set(hub.bodies()) >= SHARDS and len(hub.bodies()) == len(set(hub.bodies())), "each file once"
    assert user("bench", "run", "shop", "--dry-run").text.count("Downloads: none.") == 1
    report = user("bench", "report", "shop")
    assert report.code == 0 and re.search(r"^ lora ", report.text, re.MULTILINE), report.text
    facts = json.loads((user.folder_of() / "facts.json").read_text())
    assert facts["models"]["base"] == {"org/olmoe": hub.repositories["models", "org/olmoe"].refs["main"]}
    assert facts["revisions"] == {"signs": hub.repositories["datasets", VQA].refs["main"]}
    assert facts["text_data"] == {"science": {ARC: hub.repositories["datasets", ARC].refs["main"]}}

    hub.recover()
    hub.fail(".", status=503)
    again = user("bench", "run", "shop", offline=True)
    assert again.code == 0 and "1 of 1 run was done before." in again.text, again.text
    assert hub.asked == [], "offline, nothing is asked"


TOKEN = "hf_aTokenThatNobodyMaySee"


def refused(user: User, ended: Ended) -> str:
    """The error of a command that was refused: one line, and nothing was begun."""
    assert ended.code == 2 and "Traceback" not in ended.text, ended.text
    assert not list(user.workspace.glob("runs/*/*")) and not user.blobs("models--*")
    assert TOKEN not in ended.text
    return ended.error


LOG_IN = "log in with hf auth"


@pytest.mark.parametrize(
    ("base", "place", "what", "hint"),
    [
        ("model: org/gated", "model", "'org/gated' is gated", f"Ask for access at {{page}}, then {LOG_IN}"),
        ("model: org/nothing", "model", "the hub has no such model, or it is private", f"{LOG_IN} login"),
        ("model: org/olmoe, revision: v9", "revision", "has no revision 'v9'", "a commit of {page}/commits"),
    ],
)
def test_a_model_that_is_refused(user: User, hub: Hub, base: str, place: str, what: str, hint: str) -> None:
    user.sequence(base=base)
    error = refused(user, user.run())
    name = base.removeprefix("model: ").partition(",")[0]
    assert f"shop.yaml: base.{place}: " in error and what in error
    assert hint.format(page=f"{hub.address}/{name}") in error


def test_a_data_set_that_is_refused(user: User, hub: Hub) -> None:
    user.sequence()
    task, data = user.workspace / "tasks/signs.yaml", "org/gated-vqa"
    task.write_text(task.read_text().replace("lmms-lab-encoder/textvqa", data))
    added = refused(user, user("bench", "add-task", "vqa", "--data", data, "--name", "more", "-s", "shop"))
    assert not (user.workspace / "tasks/more.yaml").exists()
    ran = user.run()
    assert ran.code == 2, ran.text
    for error in (added, ran.error):
        assert "'org/gated-vqa' is gated" in error
        assert f"Ask for access at {hub.address}/datasets/{data}, then {LOG_IN} login" in error


def test_an_encoder_that_is_refused(user: User, hub: Hub) -> None:
    user.sequence()
    file = user.workspace / "registry/shop.yaml"
    file.write_text(file.read_text().replace("vision: tiny", "vision: 'hf-hub:org/gated'"))
    ran = user.run()
    assert ran.code == 2 and "Traceback" not in ran.text, ran.text
    assert "vision encoder 'hf-hub:org/gated': the model 'org/gated' is gated" in ran.text
    assert f"Ask for access at {hub.address}/org/gated, then log in with hf auth login" in ran.text


def test_a_revision_of_data_that_is_not_there(user: User, hub: Hub) -> None:
    user.sequence()
    task = user.workspace / "tasks/signs.yaml"
    task.write_text(task.read_text().replace("textvqa,", "textvqa, revision: v9,"))
    ran = user.run()
    assert ran.code == 2, ran.text
    assert (
        "signs.yaml: data.revision: the data set 'lmms-lab-encoder/textvqa' has no revision 'v9'."
        in ran.error
    )


def test_tokens_that_are_wrong_or_without_access(
    user: User, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.sequence(base="model: org/gated")
    assert "the hub refuses the token. Log in again" in refused(user, user.run(HF_TOKEN=TOKEN))
    monkeypatch.setitem(hub.tokens, TOKEN, set())
    error = refused(user, user.run(HF_TOKEN=TOKEN))
    assert "is gated, and this account has no access to it. Ask for access at" in error


def test_a_token_opens_a_gated_model_and_is_written_nowhere(
    user: User, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hub.tokens, TOKEN, {"org/gated"})
    user.sequence(base="model: org/gated")
    ran = user.run(HF_TOKEN=TOKEN)
    assert ran.code == 0, ran.text
    assert {asked.token for asked in hub.asked if "/org/gated/" in asked.path} == {TOKEN}
    assert {asked.token for asked in hub.asked if not asked.on_hub} == {None}, "the storage gets no token"
    holding = [
        path for path in user.folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
    assert holding == []


def test_offline_without_the_files(user: User, hub: Hub) -> None:
    user.sequence()
    ended = user.run(offline=True)
    assert ended.code == 2 and not list(user.workspace.glob("runs/*/*")), ended.text
    assert "'org/olmoe' is not (completely) in the cache" in ended.error
    assert "Unset HF_HUB_OFFLINE and run the same command once" in ended.error
    assert hub.asked == []


WRITER = "hf_of_a_writer"
WEIGHTS = "extension.safetensors"


@pytest.fixture(scope="module")
def skill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An extension of the tiny base."""
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
    shutil.copytree(skill, user.workspace / "skill")
    hub.uploads.writers[WRITER] = {"me"}
    hub.tokens[WRITER] = set()
    yield user
    hub.uploads.writers.clear()
    hub.uploads.stored.clear()
    hub.tokens.pop(WRITER)
    for key in [key for key in hub.repositories if key[1].startswith("me/")]:
        del hub.repositories[key]


def push(user: User, *more: str, name: str = "me/skill", token: str = WRITER) -> Ended:
    return user("push", "skill", name, *more, HF_TOKEN=token)


def files_of(hub: Hub, name: str = "me/skill", branch: str = "main") -> dict[str, bytes]:
    """Files of a branch."""
    found: Repository = hub.repositories["models", name]
    return {path: file.content for path, file in found.commits[found.refs[branch]].items()}


@pytest.mark.long  # 38 s; the first test has the way from a hub to a report
def test_push_pull_and_load(writer: User, hub: Hub, skill: Path) -> None:
    (writer.workspace / "skill" / ".env").write_text("SECRET=1")
    pushed = push(writer, "--licence", "mit")
    assert pushed.code == 0, pushed.text
    held = files_of(hub)
    assert set(held) == {".gitattributes", "README.md", "extension.json", WEIGHTS}
    assert held[WEIGHTS] == (skill / WEIGHTS).read_bytes()
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
    assert push(writer, name="me/skill@v1").code == 0
    assert WEIGHTS in files_of(hub, branch="v1") and WEIGHTS not in files_of(hub)
    assert writer("pull", "me/skill@v1", "--out", "a").code == 0
    empty = writer("pull", "me/skill", "--out", "c")
    assert empty.code == 2 and "holds no extension and no exported model" in empty.error
    missing = writer("pull", "me/skill@v9", "--out", "d")
    assert missing.code == 2 and "has no revision 'v9'" in missing.error
    ask = ("generate", "tiny", "--prompt", "anna lives in", "-e")
    assert writer(*ask, "me/skill@v1").code == 0
    assert writer(*ask, "me/skill").code == 2 and writer(*ask, "me/skill@v9").code == 2


def test_private_repositories(writer: User, hub: Hub) -> None:
    assert push(writer, "--private").code == 0
    assert hub.repositories["models", "me/skill"].private
    assert writer("pull", "me/skill", "--out", "a").code == 2, "without a token"
    assert writer("pull", "me/skill", "--out", "a", HF_TOKEN=WRITER).code == 0
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
        assert WRITER not in ended.text and "Traceback" not in ended.text


def test_an_upload_that_fails_leaves_nothing(writer: User, hub: Hub) -> None:
    hub.fail("POST .*/commit/", status=500)
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
