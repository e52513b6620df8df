"""The whole path as a user types it: new processes, the package's own tasks, large shards, a hub that stalls."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moextend.bench.run.progress import read_status
from tests.hub import contents
from tests.hub.commands import SETTINGS, User
from tests.hub.server import Hub
from tests.robustness.test_damages import results
from tests.robustness.test_kills import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
LOAD = "import sys, moextend; moextend.load(sys.argv[1])"


def environment(user: User, *, offline: bool = False, **more: str) -> dict[str, str]:
    modules = os.pathsep.join(filter(None, sys.path))
    own = {"HF_HOME": str(user.cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": modules}
    return {**os.environ, **SETTINGS, **user.settings(offline=offline), **own, **more}


def moextend(user: User, *arguments: str, offline: bool = False) -> subprocess.Popen[str]:
    """Starts the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "moextend", *arguments], text=True, cwd=user.workspace,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=environment(user, offline=offline),
    )  # fmt: skip


def output_of(user: User, *arguments: str, offline: bool = False) -> str:
    """What a command prints that ends well."""
    process = moextend(user, *arguments, offline=offline)
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and "Traceback" not in text, text
    return text


def test_the_tasks_of_the_package_killed_and_continued_and_offline(user: User, hub: Hub) -> None:
    user.sequence()
    for name in ("registry/shop.yaml", "tasks/signs.yaml"):
        (user.workspace / name).unlink()
    output_of(user, "bench", "add-task", "textvqa", "--base", "org/olmoe", "--vision", "tiny", "-s", "shop")
    file = user.workspace / "registry/shop.yaml"
    text = file.read_text().replace("retention: []", "retention: [arc-easy]")
    text = text.replace("steps: 200, batch_size: 16", "steps: 4, batch_size: 2, checkpoint_steps: 1")
    file.write_text(text)
    dry = output_of(user, "bench", "run", "shop", "--dry-run", "--limit", "4")
    assert "model org/olmoe from the hub (0.2 MB)" in dry and "data of lm-eval's arc_easy" in dry
    assert not [name for name in hub.bodies() if name.endswith(".safetensors")]
    command = ("bench", "run", "shop", "-m", "lora", "--limit", "4")
    slow = hub.fail("GET /storage/models/", slow=0.5)
    process = moextend(user, *command)
    assert slow.hit.wait(300)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.recover()
    process = moextend(user, *command)
    until(lambda: list(user.folder_of().glob("stages/*/*-in-flight/*")) or process.poll() is not None, 300)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: read_status(user.folder_of()).state == "interrupted", 60)  # its worker saves the state
    table = output_of(user, *command)
    assert "lora" in table and "Traceback" not in table
    found = results(user.folder_of())
    hub.recover()
    hub.fail(".", status=503)
    assert "lora" in output_of(user, "bench", "report", "shop", offline=True)
    file.with_name("second.yaml").write_text(text.replace("sequence: shop", "sequence: second"))
    output_of(user, "bench", "run", "second", *command[3:], offline=True)
    assert results(user.folder_of("second")) == found
    assert hub.asked == []


@pytest.fixture
def large(hub: Hub, tmp_path: Path) -> Path:
    """A model whose shards are larger than what huggingface_hub reads at once (10 MiB)."""
    folder = contents.olmoe(tmp_path / "large", hidden=1024, shard="25MB")
    hub.add("models", "org/large").push(folder)
    return folder


def test_a_large_shard_is_continued_where_it_broke_off(user: User, hub: Hub, large: Path) -> None:
    shard = max(large.glob("model-*.safetensors"), key=lambda path: path.stat().st_size)
    assert shard.stat().st_size > 22_000_000
    hub.fail(f"GET /storage/.*{shard.name}", times=1, drop_after=21_500_000)
    done = subprocess.run([sys.executable, "-c", LOAD, "org/large"], env=environment(user), timeout=600)
    assert done.returncode == 0
    asked = [each.range for each in hub.asked if each.method == "GET" and shard.name in each.path]
    assert asked == [None, f"bytes={20 * 2**20}-"], "it goes on after two blocks"
    (kept,) = [
        blob
        for blob in user.blobs("models--org--large")
        if blob.name == hashlib.sha256(shard.read_bytes()).hexdigest()
    ]
    assert kept.read_bytes() == shard.read_bytes()


def test_a_hub_that_stalls(user: User, hub: Hub) -> None:
    user.sequence()
    hub.fail("GET /storage/models/.*model-00002", slow=5)
    began = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-P", "-m", "moextend", "bench", "run", "shop"], cwd=user.workspace,
        env=environment(user, HF_HUB_DOWNLOAD_TIMEOUT="1"), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert process.returncode == 1 and "Traceback" not in process.stderr, process.stderr
    assert "the hub cannot be reached or breaks connections" in process.stderr
    assert "Check the network, the proxy and HF_ENDPOINT. Run the same command again" in process.stderr
    assert time.monotonic() - began < 300
    hub.recover()
    output_of(user, "bench", "run", "shop")
