"""Queue, time-outs, disconnects, extensions that come and go, and the end of a server."""

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

from moextend.serving import prompts
from moextend.serving import server as server_module
from moextend.serving.app import Options
from moextend.serving.batch import Batch
from moextend.serving.engine import Limits
from tests.serving.conftest import loaded
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


@contextmanager
def busy_after(server: Living, first: list[Any], count: int) -> Iterator[list[Any]]:
    """`busy`, once the first request is computed; all of `count` wait."""
    until(lambda: server.rows == len(first))
    with busy(server, count) as futures:
        until(lambda: server.waiting == count)
        yield futures


def test_the_queue_is_bounded(skills: Path, held: threading.Event) -> None:
    with living(loaded(skills), limits=Limits(max_batch=1, queue=3)) as server, server.client() as client:
        with busy(server, 1) as first, busy_after(server, first, 3) as others:
            refused = client.post(TEXT, json=ask())
            assert refused.status_code == 429 and refused.json()["error"]["type"] == "rate_limit_error"
            assert int(refused.headers["Retry-After"]) >= 1
            held.set()
        assert [future.result().status_code for future in (*first, *others)] == [200] * 4
        assert client.post(TEXT, json=ask()).status_code == 200


def test_a_late_answer_is_an_error_and_its_place_is_free(skills: Path, held: threading.Event) -> None:
    options = Options(timeout=0.5, max_new_tokens=64)
    with (
        living(loaded(skills), limits=Limits(max_batch=1), options=options) as server,
        server.client() as client,
    ):
        with busy(server, 2) as futures:
            until(lambda: server.rows == 1 and server.waiting == 1)
            time.sleep(0.6)
            held.set()
        for future in futures:
            assert future.result().status_code == 504
            assert future.result().json()["error"]["code"] == "timeout"
        until(lambda: server.rows == server.waiting == 0)
        assert client.get("/health").status_code == 200


def test_a_closed_connection_frees_its_places(skills: Path, held: threading.Event) -> None:
    limits = Limits(max_batch=1)
    with living(loaded(skills), limits=limits) as server, server.client() as client:
        server.engine._stop.clear()  # answers have all their tokens
        host, port = server.url.removeprefix("http://").split(":")
        body = json.dumps(ask(tokens=60, stream=True))
        head = f"POST {TEXT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port))) as gone:
            gone.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            until(lambda: server.rows == 1)
            (row,) = server.engine._batch.rows
            assert gone.recv(12) == b"HTTP/1.1 200"
        with busy(server, 1, tokens=2) as futures:
            until(lambda: server.waiting == 1)
            held.set()
            assert futures[0].result().status_code == 200
        assert client.get("/health").status_code == 200
        assert row.job.cancelled and len(row.answer.ids) < 60, "it was not computed to its end"


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
    with living(loaded(skills, "work"), options=Options(admin=False)) as server, server.client() as client:
        for reply in (
            client.post("/v1/extensions", json={"path": str(skills / "home")}), client.delete("/v1/extensions/work")
        ):  # fmt: skip
            assert reply.status_code == 403 and "--admin" in reply.json()["error"]["message"]


def test_a_stop_waits_for_answers_and_ends_late_ones_with_an_error(
    skills: Path, held: threading.Event
) -> None:
    with living(loaded(skills), grace=60) as server, busy(server, 2) as futures:
        until(lambda: server.rows + server.waiting == 2)
        server.server.stop()
        held.set()
        assert [future.result().status_code for future in futures] == [200, 200]
        server.thread.join(60)
        assert not server.thread.is_alive()


def test_after_the_grace_the_rest_gets_an_error(skills: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Batch.step

    def slow(self: Batch) -> list[int]:
        time.sleep(0.3)
        return step(self)

    monkeypatch.setattr(Batch, "step", slow)
    with living(loaded(skills), grace=0.2) as server, server.client() as client:
        server.engine._stop.clear()
        with ThreadPoolExecutor(2) as threads:
            unstreamed = threads.submit(client.post, TEXT, json=ask(tokens=60))
            until(lambda: server.rows == 1)
            with client.stream("POST", TEXT, json=ask(tokens=60, stream=True)) as reply:
                lines = reply.iter_lines()
                next(lines)
                server.server.stop()
                rest = [line for line in lines if line]
            assert unstreamed.result().status_code == 503
            assert unstreamed.result().json()["error"]["code"] == "stopping"
        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "stopping"
        server.thread.join(30)
        assert not server.thread.is_alive()


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, list[str]]]:
    """While the event is not set, the first prompt is being read; the prompts that are or were."""
    go, read, asked = threading.Event(), prompts.of_completion, list[str]()

    def waiting(model: Any, prompt: str, *more: Any) -> Any:
        asked.append(prompt)
        go.wait(60)
        return read(model, prompt, *more)

    monkeypatch.setattr(prompts, "of_completion", waiting)
    yield go, asked
    go.set()


def test_a_stop_does_not_wait_for_a_prompt_that_is_read(
    skills: Path, reading: tuple[threading.Event, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MARGIN", 60)
    with living(loaded(skills), grace=0) as server, busy(server, 1) as futures:
        until(lambda: len(reading[1]) == 1)
        for _ in range(2):
            server.server.stop()
        server.thread.join(20)
        assert not server.thread.is_alive()
        with pytest.raises(httpx.TransportError):
            futures[0].result()
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

    def failing(self: Batch, rows: Any) -> list[int]:
        if any(row.job.settings.seed == 13 for row in rows):
            raise RuntimeError("a bad row")
        return start(self, rows)

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
