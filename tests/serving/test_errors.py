"""Wrong requests get errors of OpenAI's shape, and the server goes on."""

from __future__ import annotations

import base64
import io
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import moextend

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from tests.serving.living import Living, living

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "carl works as"}]


def shaped(reply: Any) -> dict[str, Any]:
    """The error, after a check of its shape."""
    body = reply.json()
    assert body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str) and body["error"]["message"]
    return {**body["error"], "status": reply.status_code}


def test_a_body_that_is_no_object(served: Living) -> None:
    json_type, text = {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}
    raw = [
        (each, json_type) for each in (b"{", b"", b"[1]", b"null", b"\xff", b'{"model": NaN}', b"[" * 100_000)
    ]
    with served.client() as client:
        for content, headers in [*raw, (b'{"model": "base"}', text)]:
            error = shaped(client.post(CHAT, content=content, headers=headers))
            assert error["status"] == 400 and error["type"] == "invalid_request_error", (content, error)


LARGE = {"WORDS": "w " * 300, "IDS 300": [5] * 300, "IDS 255": [5] * 255, "TEXTS": ["x"] * 300}
"""What the table of wrong requests names instead of writing it."""


def large(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: large(each) for key, each in value.items()}
    if isinstance(value, list):
        return [large(each) for each in value]
    return LARGE.get(value, value) if isinstance(value, str) else value


SURROGATE = "\ud800"
TORN: list[tuple[str, dict[str, Any]]] = [
    (TEXT, {"prompt": SURROGATE}),
    (TEXT, {"prompt": "x", SURROGATE: 1}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": SURROGATE}]}]}),
]


def test_half_a_character_is_refused(served: Living) -> None:
    with served.client(headers={"Content-Type": "application/json"}) as client:
        for path, more in TORN:
            error = shaped(client.post(path, content=json.dumps({"model": "base", **more})))
            assert error["status"] == 400, error


def test_wrong_requests(served: Living) -> None:
    table = yaml.safe_load(Path(__file__).with_name("wrong_requests.yaml").read_text())
    with served.client() as client:
        for route, more, status, code, says in table:
            messages = {"messages": HELLO} if route == "chat" else {}
            body = {"model": "base", **messages, **large(more)}
            error = shaped(client.post(CHAT if route == "chat" else TEXT, json=body))
            found = (error["status"], error["code"])
            assert found == (status, code) and says in f"{error['message']} {error['param']}", (more, error)
        streamed = client.post(CHAT, json={"model": "nothing", "messages": HELLO, "stream": True})
        assert shaped(streamed)["status"] == 404
        for path, status in (("/v1/responses", 404), ("/", 404), ("/v1/models/nothing", 404), (CHAT, 405)):
            assert shaped(client.get(path))["status"] == status
        good = client.post(
            CHAT,
            json={"model": "work", "messages": HELLO, "max_tokens": 4, "n": 1, "user": "me", "top_p": None},
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
    with living(moextend.load("tiny"), key="secret", body=10_000) as server:
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


def test_a_foreign_name_and_noise(served: Living) -> None:
    with served.client() as client:
        assert shaped(client.get("/v1/models", headers={"Host": "evil.example"}))["status"] == 403
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as noise:
            noise.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert client.get("/health").json() == {"status": "ok"}
