"""Settings of the backend that scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.plan import Request, resolve
from moextend.bench.scoring import Backend, Scoring, filled
from moextend.cli.executing import backend
from moextend.errors import SpecError
from moextend.util import spec

URL = "http://127.0.0.1:8000/v1"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"backend": "sglang"}, "'transformers', 'openai' or 'vllm'"),
    ({"backend": "vllm", "server": URL}, "either server .* or serve"),
    ({"backend": "openai"}, "either server .* or serve"),
    ({"backend": "openai", "server": URL, "serve": "x {port}"}, "either server .* or serve"),
    ({"server": URL}, "server is for backend: openai"),
    ({"concurrency": 4}, "concurrency is for backend: openai"),
    ({"backend": "openai", "server": "localhost:8000"}, "is not an address"),
    ({"backend": "openai", "server": "http://h:99999/v1"}, "is not an address"),
    ({"backend": "openai", "server": "http://me:pw@h/v1"}, "has a password"),
    ({"backend": "openai", "server": "http://h/v1?key=3"}, "or a query"),
    ({"backend": "openai", "serve": "vllm serve {folder}"}, r"has no \{port\}"),
    ({"backend": "openai", "serve": "vllm serve {dir} {port}"}, r"\{dir\} is not a placeholder"),
    ({"backend": "openai", "serve": "vllm {port} {"}, "is not a template"),
    ({"backend": "openai", "serve": "vllm '{port}"}, "No closing quotation"),
    ({"backend": "openai", "server": URL, "model": "{folder}"}, r"\{folder\} is not a placeholder"),
    ({"backend": "openai", "server": URL, "tolerance": 0}, "greater than 0"),
    ({"backend": "openai", "server": URL, "parity": 0}, "greater than or equal to 1"),
]


@pytest.mark.parametrize(("values", "says"), WRONG)
def test_wrong_settings_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        spec.parse(Scoring, values, where="scoring")
    assert caught.value.exit_code == 2
    assert "pw" not in str(caught.value)


def test_an_address_without_a_path_gets_that_of_the_protocol() -> None:
    for given in ("http://h:8000", "http://h:8000/", "http://h:8000/v1/"):
        assert Backend(backend="openai", server=given).server == "http://h:8000/v1"


def test_vllm_is_a_server_that_the_run_starts() -> None:
    found = Backend(backend="vllm", concurrency=16)
    assert found.record() == {
        "backend": "openai", "serve": "moextend serve {folder} --vllm start --port {port}", "export": "vllm",
        "concurrency": 16,
    }  # fmt: skip


def test_vllm_named_by_a_command_takes_no_server_of_the_sequence() -> None:
    of_sequence = Scoring(backend="openai", serve="other {folder} {port}", export="moextend", limit=9)
    found = spec.parse(
        Scoring, of_sequence.model_dump() | backend("vllm", ["concurrency=16"]), where="--backend"
    )
    assert found.record() == Backend(backend="vllm", concurrency=16).record() and found.limit == 9


def test_the_backend_is_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    plain, other = (
        resolve(Request(tmp_path, sequence="tiny", methods=("lora",), backend=backend))[0]
        for backend in (None, {"backend": "openai", "server": URL, "parity": "3"})
    )
    assert plain.digest == other.digest and plain.backend == {}
    assert other.backend == {"backend": "openai", "server": URL, "parity": 3}
    assert other.backend_settings().parity == 3
    assert Scoring().model_dump() == {"batch_size": 64, "limit": None}


def test_templates_are_filled_once() -> None:
    assert filled("a {x} {{b}} {y}", x="{y}", y="2") == "a {y} {b} 2"
