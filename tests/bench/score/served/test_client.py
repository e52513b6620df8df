"""Requests to servers that fail in every way that servers do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from moextend.bench.score.served import client as room
from moextend.bench.score.served.answers import OtherWeights, ServedModel
from moextend.bench.score.served.client import Client, ServerFailed, check_reachable
from moextend.errors import InputError
from moextend.util.listening import free_port

Reply = tuple[int, dict[str, str], str]
Answer = Callable[[dict[str, Any], int], Reply]
"""(body, number of the request) -> status, headers and text."""


def ok(value: Any) -> Reply:
    return 200, {}, json.dumps(value)


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    lock, asked = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def do_GET(self) -> None:
            self._reply({})

        def _reply(self, body: dict[str, Any]) -> None:
            with lock:
                asked[0] += 1
                number = asked[0]
            status, headers, text = answer(
                {**body, "path": self.path, "key": self.headers["authorization"]}, number
            )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FIRST_PAUSE", 0.01)


def test_answers_come_in_the_order_of_the_requests_and_not_too_many_at_once() -> None:
    now, most, lock = [0], [0], threading.Lock()

    def answer(body: dict[str, Any], _: int) -> Reply:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02 * (body["n"] % 3))
        with lock:
            now[0] -= 1
        return ok({"n": body["n"]})

    heard: list[None] = []
    with serving(answer) as url:
        found = Client(url, concurrency=3).post(
            "completions", [{"n": n} for n in range(20)], lambda: heard.append(None)
        )
    assert [one["n"] for one in found] == list(range(20))
    assert 1 < most[0] <= 3
    assert len(heard) == 20


def test_a_server_that_never_recovers_ends_after_bounded_attempts() -> None:
    asked: list[int] = []

    def answer(_: dict[str, Any], number: int) -> Reply:
        asked.append(number)
        return 500, {}, json.dumps({"error": {"message": "CUDA error: out of memory"}})

    with serving(answer) as url, pytest.raises(ServerFailed, match=r"3 attempts.*CUDA error: out of memory"):
        Client(url, retries=2).post("completions", [{}])
    assert len(asked) == 3


@pytest.mark.parametrize(("status", "hint"), [(400, ""), (401, "OPENAI_API_KEY"), (404, "")])
def test_a_refusal_is_final_and_has_the_servers_words(status: int, hint: str) -> None:
    asked: list[int] = []

    def answer(_: dict[str, Any], number: int) -> Reply:
        asked.append(number)
        return status, {}, json.dumps({"error": {"message": "no such model"}})

    with serving(answer) as url, pytest.raises(ServerFailed, match="no such model") as caught:
        Client(url).post("completions", [{}])
    assert len(asked) == 1
    assert hint in (caught.value.hint or "")


def test_a_server_that_is_not_there_and_one_that_is_slow() -> None:
    gone = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(ServerFailed, match=r"2 attempts.*no connection"):
        Client(gone, retries=1).post("completions", [{}])
    assert not Client(gone).is_ready()
    with pytest.raises(InputError, match="does not answer") as caught:
        check_reachable(Client(gone, retries=0))
    assert caught.value.exit_code == 2 and caught.value.where == "--backend-option server"

    def answer(_: dict[str, Any], __: int) -> Reply:
        time.sleep(0.5)
        return ok({})

    with serving(answer) as url, pytest.raises(ServerFailed, match=r"no answer within 0.1 seconds"):
        Client(url, timeout=0.1, retries=1).post("completions", [{}])


@pytest.mark.parametrize("text", ["<html>", "[]"])
def test_an_answer_that_is_no_json_object_is_an_error(text: str) -> None:
    with serving(lambda *_: (200, {}, text)) as url, pytest.raises(ServerFailed, match="gives an answer"):
        Client(url).post("completions", [{}])


WRONG = [
    {},
    {"choices": []},
    {"choices": [{"text": None, "logprobs": None}]},
    {"choices": [{"logprobs": {"token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}]}}]},
    {
        "choices": [
            {"logprobs": {"token_logprobs": [None, "x", -1.0], "top_logprobs": [None, {"a": -1}, {"a": -1}]}}
        ]
    },
    {"choices": [{"logprobs": {"token_logprobs": [None, -1.0, -1.0], "top_logprobs": [None, None, None]}}]},
    {"choices": [{"logprobs": {"token_logprobs": [None] + [-1.0] * 5, "top_logprobs": [{"a": -1.0}] * 6}}]},
]


@pytest.mark.parametrize("answer", WRONG)
def test_malformed_log_probabilities_are_refused(answer: dict[str, Any]) -> None:
    with serving(lambda *_: ok(answer)) as url, pytest.raises(ServerFailed):
        ServedModel(Client(url), "m").rate([([1, 2], 1)])


def test_log_likelihoods_are_summed_from_the_start_of_the_end() -> None:
    tops = [None, {"a": -0.5}, {"b": -1.0, "c": -2.0}, {"d": -3.0}, {"e": 0.0}]
    answer = {
        "choices": [{"logprobs": {"token_logprobs": [None, -0.5, -2.0, -3.0, 0.0], "top_logprobs": tops}}]
    }
    with serving(lambda *_: ok(answer)) as url:
        model = ServedModel(Client(url), "m")
        (late,) = model.rate([([1, 2, 3, 4], 3)])
        (early,) = model.rate([([1, 2, 3, 4], 2)])
    assert late == (-3.0, True)
    assert early == (-5.0, False)


def test_an_answer_by_other_weights_is_refused_also_in_the_middle() -> None:
    def answer(_: dict[str, Any], number: int) -> Reply:
        return ok({"choices": [{"text": "a"}], "system_fingerprint": "mine" if number < 3 else "other"})

    with serving(answer) as url:
        model = ServedModel(Client(url, concurrency=1), "m", "mine")
        assert model.complete([[1], [2]], max_new_tokens=1) == ["a", "a"]
        with pytest.raises(OtherWeights, match="its fingerprint is other"):
            model.complete([[1]], max_new_tokens=1)
        choosing = ServedModel(Client(url), "auto", "mine", one=False)
        assert choosing.complete([[1]], max_new_tokens=1) == ["a"]
