"""Unknown paths say what is there."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")

from tests.serving.living import Living


def test_an_unknown_path_lists_the_routes(served: Living) -> None:
    with served.client() as client:
        for method, path in (("POST", "/v1/responses"), ("GET", "/v1"), ("PUT", "/nothing")):
            reply = client.request(method, path, content=json.dumps({"input": "a"}))
            error = reply.json()["error"]
            assert reply.status_code == 404 and error.keys() == {"message", "type", "param", "code"}
            assert f"{method} {path}" in error["message"], error
            assert "POST /v1/chat/completions" in error["message"], error
