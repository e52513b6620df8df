"""Load on a server of its own process, small here and of the stated size in the long test."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")

from tests.cli.conftest import typed
from tests.serving import load


@pytest.mark.timeout(900)
@pytest.mark.long
def test_a_process_under_load(skills: Path) -> None:
    every = load.jobs_of(40)
    wanted, _ = load.offline(skills, every, 8, 8)
    jobs = every[:24]
    with load.process(skills, "--max-batch", "8") as server:
        assert load.wrong(load.load(server.url, jobs, 8, 24), jobs, wanted) == 0
        assert load.wrong(load.load(server.url, jobs, 8, 24, stream=True), jobs, wanted) == 0
        soak = load.soaked(server, 80, wanted, parts=2)
        assert soak["lost"] == 0 and soak["MiB"][-1] < soak["MiB"][0] + 20


@pytest.mark.long
def test_a_process_that_is_killed_under_load_and_one_that_is_ended(skills: Path) -> None:
    jobs = load.jobs_of(24)
    wanted, _ = load.offline(skills, jobs, 8, 8)
    with load.process(skills, "--max-batch", "8") as server:
        assert load.restarted(server, skills, jobs, 8, wanted) == {"connections broke": True, "wrong": 0}
    with load.process(skills) as server:
        server.process.send_signal(signal.SIGINT)
        out, err = server.process.communicate(timeout=120)
        assert (server.process.returncode, out, err.splitlines()[-1]) == (0, "", "stopped.")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health")


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_the_stated_load(skills: Path) -> None:
    found = load.measured(skills, requests=200, tokens=32, batch=16, soak=20_000)
    assert found["wrong or lost"] == found["wrong or lost, streamed"] == found["soak"]["lost"] == 0
    assert found["throughput by cpu"] >= 0.8
    memory = found["soak"]["MiB"]
    assert max(memory[2:]) < memory[1] + 20, "flat after the first parts"
    assert found["killed and started again"] == {"connections broke": True, "wrong": 0}


def test_what_keeps_a_server_from_starting(
    skills: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: str) -> str:
        done = typed(["moextend", "serve", *arguments], capfd, monkeypatch)
        assert done.code == 2 and "Traceback" not in done.err, done
        return done.err

    assert "everyone on the network" in refused("tiny", "--host", "0.0.0.0", "--port", "0")
    assert "--extension" in refused("tiny", "-e", str(skills))
    assert "not an address of this machine" in refused("tiny", "--host", "192.0.2.7")
