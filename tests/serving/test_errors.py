"""Wrong requests get errors of OpenAI's shape, and the server goes on."""

from __future__ import annotations

import base64
import io
import json
import socket
from typing import Any

import pytest
from PIL import Image

import moextend

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from moextend.serving import prompts
from tests.serving.living import Living, living

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "carl works as"}]


def shaped(reply: Any) -> dict[str, Any]:
    """The error, after a check of its shape."""
    body = reply.json()
    assert body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str) and body["error"]["message"]
    return {**body["error"], "status": reply.status_code}


RAW: list[tuple[bytes, str]] = [
    (b"{", "is not JSON"),
    (b"", "not JSON"),
    (b"[1, 2]", "messages"),
    (b"null", ""),
    (b"\xff\xfe", ""),
    (b'{"model": NaN}', ""),
    (b"[" * 100_000, ""),
]


@pytest.mark.parametrize("raw, message", RAW, ids=range(len(RAW)))
def test_a_body_that_is_no_object(served: Living, raw: bytes, message: str) -> None:
    with served.client() as client:
        error = shaped(client.post(CHAT, content=raw, headers={"Content-Type": "application/json"}))
        assert error["status"] == 400 and error["type"] == "invalid_request_error", error
        wrong = client.post(CHAT, content=b'{"model": "base"}', headers={"Content-Type": "text/plain"})
        assert shaped(wrong)["status"] == 400


WRONG: list[tuple[str, dict[str, Any], int, str | None, str]] = [
    (CHAT, {"model": "facts"}, 404, "model_not_found", "no model 'facts'"),
    (CHAT, {"model": "wrk"}, 404, "model_not_found", "Did you mean 'work'?"),
    (CHAT, {"model": "work+nothing"}, 404, "model_not_found", "work+nothing"),
    (CHAT, {"model": ""}, 400, "invalid_value", "model"),
    (CHAT, {"model": 3}, 400, "invalid_value", "model"),
    (CHAT, {"messages": []}, 400, "invalid_value", "messages"),
    (CHAT, {"messages": "hello"}, 400, "invalid_value", "messages"),
    (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, 400, "invalid_value", "role"),
    (CHAT, {"messages": [{"role": "assistant", "content": "x"}]}, 400, "invalid_input", "assistant"),
    (CHAT, {"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, 400, "invalid_input", "continue"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "video", "x": 1}]}]},
        400,
        "invalid_value",
        "video",
    ),
    (CHAT, {"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
    (CHAT, {"max_tokens": "3"}, 400, "invalid_value", "max_tokens"),
    (CHAT, {"max_tokens": True}, 400, "invalid_value", "max_tokens"),
    (CHAT, {"max_tokens": 65}, 400, None, "at most 64"),
    (CHAT, {"temperature": -1}, 400, "invalid_value", "temperature"),
    (CHAT, {"temperature": "hot"}, 400, "invalid_value", "temperature"),
    (CHAT, {"top_p": 0}, 400, "invalid_value", "top_p"),
    (CHAT, {"n": 2}, 400, "invalid_value", "n"),
    (CHAT, {"stop": ["x"] * 17}, 400, "invalid_value", "stop"),
    (CHAT, {"logprobs": True}, 400, "invalid_value", "logprobs"),
    (CHAT, {"frequency_penalty": 0.5}, 400, "invalid_value", "not supported"),
    (CHAT, {"tools": [{"type": "function"}]}, 400, "invalid_value", "tools"),
    (CHAT, {"response_format": {"type": "json_object"}}, 400, "invalid_value", "response_format"),
    (CHAT, {"speed": 3}, 400, "unknown_parameter", "speed"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": "w " * 300}]},
        400,
        "context_length_exceeded",
        "256 tokens",
    ),
    (TEXT, {"prompt": "w " * 300}, 400, "context_length_exceeded", "prompt"),
    (TEXT, {"prompt": [5] * 300}, 400, "context_length_exceeded", "prompt"),
    (TEXT, {"prompt": ["x", "w " * 300]}, 400, "context_length_exceeded", "256 tokens"),
    (TEXT, {"prompt": [5] * 255, "max_tokens": 2}, 400, "context_length_exceeded", "256 tokens"),
    (TEXT, {"prompt": []}, 400, None, "0 prompts"),
    (TEXT, {"prompt": ["x"] * 300}, 400, None, "300 prompts"),
    (TEXT, {"prompt": [[1, 2], []]}, 400, "invalid_input", "no token"),
    (TEXT, {"prompt": [[1, 100_000]]}, 400, "invalid_input", "100000 is not a token"),
    (TEXT, {"prompt": [-200, 1]}, 400, "invalid_input", "-200 is not a token"),
    (TEXT, {"prompt": ["x", 3]}, 400, "invalid_value", "prompt"),
    (TEXT, {"prompt": {"a": 1}}, 400, "invalid_value", "prompt"),
    (TEXT, {"prompt": "x", "logprobs": 21}, 400, "invalid_value", "logprobs"),
    (TEXT, {"prompt": "x", "echo": True, "stream": True}, 400, None, "echo"),
    (TEXT, {"prompt": "x", "best_of": 3}, 400, "invalid_value", "best_of"),
]


LONG: list[tuple[str, dict[str, Any]]] = [
    (TEXT, {"prompt": ["x", "a" * 4_000_000]}),
    (TEXT, {"prompt": [5] * 2_000_000}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 100_000}]}),
]


@pytest.mark.parametrize("path, more", LONG, ids=range(len(LONG)))
def test_what_cannot_fit_is_not_read(
    served: Living, monkeypatch: pytest.MonkeyPatch, path: str, more: dict[str, Any]
) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("it was read")

    for name in ("message_ids", "piece_ids"):
        monkeypatch.setattr(prompts, name, refused if "x" not in more.get("prompt", "") else lambda *_: [1])
    valid = {"model": "base", "messages": HELLO} if path == CHAT else {"model": "base"}
    with served.client() as client:
        error = shaped(client.post(path, json={**valid, **more}))
    parameter = "prompt" if path == TEXT else "messages"
    assert (error["status"], error["code"], error["param"]) == (400, "context_length_exceeded", parameter)


SURROGATE = "\ud800"
TORN: list[tuple[str, dict[str, Any], str | None]] = [
    (TEXT, {"prompt": SURROGATE}, "prompt"),
    (TEXT, {"prompt": "x", "stop": ["y", SURROGATE]}, "stop"),
    (TEXT, {"prompt": "x", "model": SURROGATE}, "model"),
    (TEXT, {"prompt": "x", SURROGATE: 1}, None),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": SURROGATE}]}]}, "messages"),
    (CHAT, {"messages": [{"role": SURROGATE, "content": "x"}]}, "messages"),
]


@pytest.mark.parametrize("path, more, parameter", TORN, ids=range(len(TORN)))
def test_half_a_character_is_refused(
    served: Living, path: str, more: dict[str, Any], parameter: str | None
) -> None:
    body = json.dumps({"model": "base", **({"messages": HELLO} if path == CHAT else {}), **more})
    with served.client(headers={"Content-Type": "application/json"}) as client:
        error = shaped(client.post(path, content=body))
        assert (error["status"], error["param"]) == (400, parameter), error
        assert client.get("/health").status_code == 200


def test_wrong_requests(served: Living) -> None:
    failed = []
    with served.client() as client:
        for path, more, status, code, message in WRONG:
            valid = {"model": "base", "messages": HELLO} if path == CHAT else {"model": "base"}
            error = shaped(client.post(path, json={**valid, **more}))
            if (error["status"], error["code"]) != (
                status,
                code,
            ) or message not in f"{error['message']} {error['param']}":
                failed.append((more, error))
        assert not failed
        streamed = client.post(CHAT, json={"model": "nothing", "messages": HELLO, "stream": True})
        assert shaped(streamed)["status"] == 404
        for path, status in (
            ("/v1/nothing", 404),
            ("/", 404),
            ("/v1/models/nothing", 404),
            ("/v1/models/a%2Fb", 404),
        ):
            assert shaped(client.get(path))["status"] == status
        assert shaped(client.get(CHAT))["status"] == 405
        good = client.post(
            CHAT, json={"model": "work", "messages": HELLO, "max_tokens": 4, "tools": [], "user": "me"}
        )
        assert good.status_code == 200


def test_an_image_for_a_model_without_an_encoder_and_a_huge_one(served: Living) -> None:
    def body(data: bytes) -> dict[str, Any]:
        url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        part = {"type": "image_url", "image_url": {"url": url}}
        return {"model": "base", "messages": [{"role": "user", "content": [part]}]}

    def png(*size: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("1", size).save(buffer, "PNG")  # type: ignore[arg-type]
        return buffer.getvalue()

    with served.client() as client:
        error = shaped(client.post(CHAT, json=body(png(8, 8))))
        assert error["status"] == 400 and "no image encoder" in error["message"]
        assert "moextend.load" not in error["message"], "no word on what only the server's owner can do"
        huge = png(8000, 8000)
        assert len(huge) < 1 << 20
        error = shaped(client.post(CHAT, json=body(huge)))
        assert error["status"] == 400 and "64,000,000" in error["message"].replace(
            "8,000 x 8,000", "64,000,000"
        )


def test_bodies_are_bounded_and_a_key_is_needed() -> None:
    with living(moextend.load("tiny"), key="secret", most=10_000) as server:
        right = {"Authorization": "Bearer secret"}
        with server.client() as client:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
                error = shaped(client.get("/v1/models", headers=headers))
                assert (error["status"], error["type"]) == (401, "authentication_error")
            assert client.get("/health").status_code == 200
            assert client.get("/v1/models", headers=right).status_code == 200
            long = json.dumps({"model": "base", "messages": [{"role": "user", "content": "w" * 20_000}]})
            error = shaped(client.post(CHAT, content=long, headers=right))
            assert (error["status"], error["code"]) == (413, "body_too_large")

            def parts() -> Any:
                yield from [b"x" * 1000] * 20  # without a stated length

            error = shaped(
                client.post(CHAT, content=parts(), headers={**right, "Content-Type": "application/json"})
            )
            assert (error["status"], error["code"]) == (413, "body_too_large")
            body = {"model": "base", "messages": HELLO, "max_tokens": 2}
            assert client.post(CHAT, json=body, headers=right).status_code == 200


def test_a_foreign_name_and_half_a_request(served: Living) -> None:
    with served.client() as client:
        assert shaped(client.get("/v1/models", headers={"Host": "evil.example"}))["status"] == 403
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        with socket.create_connection((host, int(port))) as noise:
            noise.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert client.get("/health").json() == {"status": "ok"}
