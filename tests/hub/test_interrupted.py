"""Downloads that break off, are killed or find no room: one error, and the same command goes on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import preloaded
from tests.hub.commands import Ended, User
from tests.hub.server import Hub
from tests.robustness.hosts import until
from tests.robustness.test_damages import results
from tests.robustness.test_kills import alive

pytestmark = pytest.mark.long  # 20 s; test_hub.py has the way that is not interrupted

SHARD = "GET /storage/models/org/olmoe@.*/model-00003-of-00004.safetensors"


@pytest.fixture(scope="module")
def _undisturbed() -> dict[str, Any]:
    return {}


@pytest.fixture
def undisturbed(user: User, _undisturbed: dict[str, Any], tmp_path: Path, hub: Hub) -> dict[str, Any]:
    """The results of a run that nothing disturbs."""
    if not _undisturbed:
        user.sequence("calm")
        ran = user.run("calm")
        assert ran.code == 0, ran.text
        _undisturbed.update(results(user.folder_of("calm")))
        for path in (*user.cache.glob("hub/models--*"), user.workspace / ".cache"):
            remove(path)  # else the next run takes its stages from the store
        hub.recover()
    return _undisturbed


def remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


def complete(user: User) -> dict[str, Any]:
    """The results of the run after the same command, without faults; every file in the cache is right."""
    user.hub.recover()
    ran = user.run()
    assert ran.code == 0 and "Traceback" not in ran.text, ran.text
    for blob in user.blobs():
        left = ".incomplete" in blob.name
        empty = (
            blob.name.startswith("tmp_") and not blob.stat().st_size
        )  # huggingface_hub's probe of the umask
        assert left or empty or blob.name == digest(blob), blob
    return results(user.folder_of())


def digest(blob: Path) -> str:
    content = blob.read_bytes()
    if len(blob.name) == 64:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def failed(ended: Ended) -> str:
    """The one line about a run that failed."""
    assert ended.code == 1 and "Traceback" not in ended.text, ended.text
    (line,) = [line for line in ended.text.splitlines() if line.startswith("lora-s0 failed: ")]
    return line


def test_a_shard_that_is_cut_short_is_not_kept(user: User, hub: Hub, undisturbed: dict[str, Any]) -> None:
    user.sequence()
    hub.fail(SHARD, truncate=30_000)
    error = failed(user.run())
    assert re.search(r"model-00003-of-00004.safetensors ended after 30,000 of [\d,]+ bytes", error)
    assert "un the same command again" in error, error
    hub.recover()
    dry = user("bench", "run", "shop", "--dry-run")
    assert "model org/olmoe from the hub (0.1 MB)" in dry.text, "what is missing, not all"
    assert hub.bodies() == []
    assert complete(user) == undisturbed
    names = [name for name in hub.bodies() if name.startswith("model-")]
    assert names == ["model-00003-of-00004.safetensors"], "what was right is kept"


def test_killed_in_a_download_and_in_training(user: User, hub: Hub, undisturbed: dict[str, Any]) -> None:
    user.sequence()
    slow = hub.fail(SHARD, slow=0.3, drop_after=60_000)
    client = user.start("bench", "run", "shop")
    preloaded.pid_of(client)
    assert slow.hit.wait(60)
    kill_worker(user)
    ended = user.end(client)
    assert "was killed by SIGKILL" in failed(ended)
    partial = [blob for blob in user.blobs("models--*") if blob.name.endswith(".incomplete")]
    assert partial, "huggingface_hub leaves what it has of a shard"
    assert not list(user.folder_of().glob("stages/*/*"))
    hub.recover()
    client = user.start("bench", "run", "shop", KILL_WHEN=str(user.folder_of() / "stages/*/*-in-flight/*"))
    preloaded.pid_of(client)
    assert "was killed by SIGKILL" in failed(user.end(client))
    assert not [each for each in hub.asked if "/org/olmoe/resolve/main/" in each.path], (
        "only the recorded commit"
    )
    assert complete(user) == undisturbed


def kill_worker(user: User) -> None:
    status = json.loads((user.folder_of() / "status.json").read_text())
    os.kill(status["pid"], signal.SIGKILL)
    until(lambda: not alive(status["pid"]))


@pytest.mark.long
def test_a_hub_that_fails(user: User, hub: Hub, undisturbed: dict[str, Any]) -> None:
    user.sequence()
    hub.fail(SHARD, status=500)
    error = failed(user.run())
    assert (
        "model 'org/olmoe': the hub answers 500 (server error)." in error and "Run the same command" in error
    )
    assert complete(user) == undisturbed
