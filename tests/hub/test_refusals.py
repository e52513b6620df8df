"""What the hub refuses is one line and exit code 2, before a run folder is made."""

from __future__ import annotations

import pytest

from tests.hub.commands import Ended, User
from tests.hub.server import Hub

TOKEN = "hf_aTokenThatNobodyMaySee"


def refused(user: User, ended: Ended) -> str:
    """The error of a command that was refused: one line, and nothing was begun."""
    assert ended.code == 2 and "Traceback" not in ended.text, ended.text
    assert not list(user.workspace.glob("runs/*/*")) and not user.blobs("models--*")
    assert TOKEN not in ended.text
    return ended.error


@pytest.mark.parametrize(
    ("base", "place", "what", "hint"),
    [
        (
            "model: org/gated",
            "base.model",
            "'org/gated' is gated",
            "Ask for access at {page}, then log in with hf auth",
        ),
        (
            "model: org/nothing",
            "base.model",
            "no file or folder 'org/nothing', and the hub has no such model, or it is private",
            "log in with hf auth login",
        ),
        (
            "model: org/olmoe, revision: v9",
            "base.revision",
            "has no revision 'v9'",
            "a commit of {page}/commits",
        ),
    ],
)
def test_a_model_that_is_refused(user: User, hub: Hub, base: str, place: str, what: str, hint: str) -> None:
    user.sequence(base=base)
    error = refused(user, user.run())
    name = base.removeprefix("model: ").partition(",")[0]
    assert f"shop.yaml: {place}: " in error and what in error
    assert hint.format(page=f"{hub.address}/{name}") in error
    dry = user("bench", "run", "shop", "--dry-run")
    assert dry.code == 0 and what in dry.text, dry.text


@pytest.mark.parametrize(
    ("data", "what", "hint"),
    [
        (
            "org/gated-vqa",
            "'org/gated-vqa' is gated",
            "Ask for access at {page}, then log in with hf auth login",
        ),
        (
            "org/nothing",
            "no file or folder 'org/nothing', and the hub has no such data set, or it is private",
            "log in with hf auth login",
        ),
    ],
)
def test_a_data_set_that_is_refused(user: User, hub: Hub, data: str, what: str, hint: str) -> None:
    user.sequence()
    task = user.workspace / "tasks/signs.yaml"
    task.write_text(task.read_text().replace("lmms-lab-encoder/textvqa", data))
    added = refused(user, user("bench", "add-task", "vqa", "--data", data, "--name", "more", "-s", "shop"))
    assert not (user.workspace / "tasks/more.yaml").exists()
    ran = user.run()
    assert ran.code == 2, ran.text
    for error in (added, ran.error):
        assert what in error and hint.format(page=f"{hub.address}/datasets/{data}") in error


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
