"""Batches, queue, time-outs, disconnects, and the end of a server."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from moextend.serving import batch, protocol
from moextend.serving.batch import Batch
from tests.serving.conftest import Held, loaded
from tests.serving.living import SKILLS, Living, living

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PROMPT = "anna lives in"


def ask(model: str = "base", tokens: int = 8, **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": PROMPT, "max_tokens": tokens, **more}


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


@contextmanager
def busy(server: Living, count: int, tokens: int = 8) -> Iterator[list[Any]]:
    """Context with requests that are on their way; the futures of their answers."""
    with server.client() as client, ThreadPoolExecutor(count) as threads:
        futures = [threads.submit(client.post, TEXT, json=ask(tokens=tokens)) for _ in range(count)]
        yield futures


def test_a_batch_has_the_prompts_that_reach_the_same_extensions(skills: Path, held: Held) -> None:
    order = ["base", "work", "base", "home", "auto", "base", "work", "work+home"]
    with (
        living(loaded(skills, *SKILLS), max_batch=2) as server,
        server.client() as client,
        ThreadPoolExecutor(len(order) + 1) as threads,
    ):
        first = threads.submit(client.post, TEXT, json=ask("pets"))
        until(lambda: len(held.batches) == 1)
        futures = []
        for place, model in enumerate(order, 1):
            futures.append(threads.submit(client.post, TEXT, json={**ask(model), "prompt": "anna lives in"}))
            until(lambda place=place: server.waiting == place)  # type: ignore[misc]
        held.set()
        assert [future.result().status_code for future in (first, *futures)] == [200] * (len(order) + 1)
        found = [[job.asked.model for job in jobs] for jobs in held.batches]
    assert found == [
        ["pets"], ["base", "base"], ["work", "work"], ["home", "auto"], ["base"], ["work+home"],
    ]  # fmt: skip


def test_the_queue_is_bounded(skills: Path, held: Held) -> None:
    with living(loaded(skills), max_batch=1, queue=3) as server, server.client() as client:
        with busy(server, 1) as first:
            until(lambda: len(held.batches) == 1)
            with busy(server, 3) as others:
                until(lambda: server.waiting == 3)
                refused = client.post(TEXT, json=ask())
                assert refused.status_code == 429 and refused.json()["error"]["type"] == "rate_limit_error"
                assert int(refused.headers["Retry-After"]) >= 1
                held.set()
        assert [future.result().status_code for future in (*first, *others)] == [200] * 4
        assert client.post(TEXT, json=ask()).status_code == 200


def test_a_late_answer_is_an_error_and_its_place_is_free(skills: Path, held: Held) -> None:
    with living(loaded(skills), max_batch=1, timeout=0.5) as server, server.client() as client:
        with busy(server, 2) as futures:
            for future in futures:
                assert future.result().status_code == 504
                assert future.result().json()["error"]["code"] == "timeout"
        held.set()
        assert client.post(TEXT, json=ask(tokens=1)).status_code == 200
        assert len(held.batches) == 2, "the prompt that waited was left out"


@pytest.mark.parametrize("stream", [True, False])
def test_a_closed_connection_frees_its_places(
    skills: Path, held: Held, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(batch, "stop_ids", lambda model: set())  # answers have all their tokens
    with living(loaded(skills), max_batch=1) as server, server.client() as client:
        host, port = server.url.removeprefix("http://").split(":")
        body = json.dumps(ask(tokens=60, stream=stream))
        head = f"POST {TEXT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port))) as gone:
            gone.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            until(lambda: len(held.batches) == 1)
            assert not stream or gone.recv(12) == b"HTTP/1.1 200"
        [[job]] = held.batches
        until(lambda: job.over)
        given: list[Any] = []
        job.deliver = given.append
        held.set()
        assert client.post(TEXT, json=ask(tokens=2)).status_code == 200
        assert not given, "it was not computed to its end"


def test_what_cannot_be_attached_or_detached(skills: Path, served: Living, tmp_path: Path) -> None:
    with served.client() as client:
        for body, message in (
            ({"path": str(tmp_path)}, ""),
            ({"path": str(skills / "work"), "name": "a+b"}, "'a+b': cannot be the name of an extension"),
            ({}, "path"),
        ):
            error = client.post("/v1/extensions", json=body)
            assert error.status_code == 400 and message in error.json()["error"]["message"], error.text
        assert client.delete("/v1/extensions/nothing").status_code == 404
        assert client.delete("/v1/extensions/base").status_code == 404
        assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["base", *SKILLS, "auto"]
    with living(loaded(skills, "work"), admin=False) as server, server.client() as client:
        for reply in (
            client.post("/v1/extensions", json={"path": str(skills / "home")}), client.delete("/v1/extensions/work")
        ):  # fmt: skip
            assert reply.status_code == 403 and "--admin" in reply.json()["error"]["message"]


def test_a_stop_waits_for_answers(skills: Path, held: Held) -> None:
    with living(loaded(skills), grace=60) as server, busy(server, 2) as futures:
        until(lambda: bool(held.batches) and len(held.batches[0]) + server.waiting == 2)
        server.stop()
        held.set()
        assert [future.result().status_code for future in futures] == [200, 200]
        server.thread.join(60)
        assert not server.thread.is_alive()


def test_after_the_grace_the_rest_gets_an_error(skills: Path, held: Held) -> None:
    with living(loaded(skills), grace=1) as server, server.client() as client:
        with ThreadPoolExecutor(1) as threads:
            with client.stream("POST", TEXT, json=ask(tokens=60, stream=True)) as reply:
                unstreamed = threads.submit(client.post, TEXT, json=ask(tokens=60))
                until(lambda: server.waiting == 1)
                server.stop()
                rest = [line for line in reply.iter_lines() if line]
            assert unstreamed.result().status_code == 503
            assert unstreamed.result().json()["error"]["code"] == "stopping"
        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "stopping"
        server.thread.join(30)
        assert not server.thread.is_alive()


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, list[str]]]:
    """While the event is not set, the first prompt is being read; the prompts that are or were."""
    go, read, asked = threading.Event(), protocol.of_completion, list[str]()

    def waiting(model: Any, prompt: str, *more: Any) -> Any:
        asked.append(prompt)
        go.wait(60)
        return read(model, prompt, *more)

    monkeypatch.setattr(protocol, "of_completion", waiting)
    yield go, asked
    go.set()


def test_a_stop_does_not_wait_for_a_prompt_that_is_read(
    skills: Path, reading: tuple[threading.Event, list[str]]
) -> None:
    with living(loaded(skills), grace=600) as server, busy(server, 1) as futures:
        until(lambda: len(reading[1]) == 1)
        for _ in range(2):
            server.stop()
        server.thread.join(20)
        assert not server.thread.is_alive()
        assert futures[0].result().status_code == 503
        reading[0].set()


def test_a_closed_connection_is_not_read(skills: Path, reading: tuple[threading.Event, list[str]]) -> None:
    go, asked = reading
    with living(loaded(skills)) as server, busy(server, 1) as futures:
        until(lambda: len(asked) == 1)
        with server.client() as client, pytest.raises(httpx.ReadTimeout):
            client.post(TEXT, json={**ask(), "prompt": ["late"] * 3}, timeout=0.3)
        time.sleep(0.3)  # until the server knows
        go.set()
        assert futures[0].result().status_code == 200
        assert asked == [PROMPT], "what nobody waits for is left out"


def test_a_failure_of_one_request_leaves_the_others(skills: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Batch.start

    def failing(self: Batch, *more: Any) -> None:
        if any(answer.job.asked.seed == 13 for answer in self._answers):
            raise RuntimeError("a bad row")
        start(self, *more)

    monkeypatch.setattr(Batch, "start", failing)
    with living(loaded(skills)) as server, server.client() as client, ThreadPoolExecutor(8) as threads:
        post = lambda seed: client.post(TEXT, json=ask(seed=seed))  # noqa: E731
        found = [reply.status_code for reply in threads.map(post, [1, 13, 2, 3, 13, 4, 5])]
        assert found == [200, 500, 200, 200, 500, 200, 200]
        monkeypatch.setattr(Batch, "step", lambda self: 1 / 0)
        broken = client.post(TEXT, json=ask())
        assert broken.status_code == 500 and broken.json()["error"]["type"] == "server_error"
        monkeypatch.undo()
        assert client.post(TEXT, json=ask()).status_code == 200
