"""Versions of a skill under names of their own, and what cannot be served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

import moextend
from moextend import MultimodalLM

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from tests.serving.conftest import loaded
from tests.serving.living import SKILLS, in_process, learn, living

TEXT, EXTENSIONS = "/v1/completions", "/v1/extensions"
PROMPTS = ["carl works as", "anna works as", "bob owns a"]
THREADS, SWITCHES = 4, 6


@pytest.fixture(scope="module")
def versions(skills: Path, alone: MultimodalLM) -> dict[str, tuple[str, list[str]]]:
    """Skill -> its fingerprint and its answers to the prompts."""
    found = {}
    for name in SKILLS:
        answers = in_process(alone, [name], PROMPTS, 6)
        found[name] = (moextend.active_fingerprint(alone), answers)
    assert len({tuple(answers) for _, answers in found.values()}) == len(SKILLS)
    return found


def put(client: httpx.Client, folder: Path, name: str | None = None, **more: Any) -> httpx.Response:
    named = {} if name is None else {"name": name}
    return client.post(EXTENSIONS, json={"path": str(folder), **named, **more})


def models(client: httpx.Client) -> dict[str, str]:
    """Model -> fingerprint."""
    return {each["id"]: each["system_fingerprint"] for each in client.get("/v1/models").json()["data"]}


def ask(client: httpx.Client, model: str) -> httpx.Response:
    return client.post(TEXT, json={"model": model, "prompt": PROMPTS, "max_tokens": 6})


def read(reply: httpx.Response) -> tuple[int, set[str], list[str]]:
    """The same of an answer in one piece."""
    if reply.status_code != 200:
        return reply.status_code, set(), [reply.text]
    body = reply.json()
    texts = [""] * len(body["choices"])
    for choice in body["choices"]:
        texts[choice["index"]] = choice["text"].strip()
    return 200, {body["system_fingerprint"]}, texts


def test_versions_side_by_side_and_names_that_are_taken(
    skills: Path, versions: dict[str, tuple[str, list[str]]]
) -> None:
    with living(loaded(skills, "work")) as server, server.client() as client:
        taken = put(client, skills / "work")
        assert taken.status_code == 400 and '"name": "work-2"' in taken.json()["error"]["message"]
        assert put(client, skills / "pets", "v2").json()["id"] == "v2"
        assert put(client, skills / "work", "v1", strength=0.5).json()["id"] == "v1:0.5"
        assert list(models(client)) == ["base", "work", "v2", "v1:0.5", "auto"]
        for name, skill in (("work", "work"), ("v2", "pets")):
            assert read(ask(client, name)) == (200, {versions[skill][0]}, versions[skill][1])


@pytest.fixture(scope="module")
def needing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of `work`, and of `home`, which needs it."""
    folder, model = tmp_path_factory.mktemp("needing"), moextend.load("tiny")
    for name in ("work", "home"):
        learn(model, name, folder / name, scope="all")
    return folder


def test_a_version_that_cannot_be_served_changes_nothing(skills: Path, needing: Path, tmp_path: Path) -> None:
    damaged, foreign = tmp_path / "damaged", tmp_path / "foreign"
    for folder in (damaged, foreign):
        shutil.copytree(skills / "pets", folder)
    weights = damaged / "extension.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    card = foreign / "extension.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "base": "0" * 16}))

    def refused(client: httpx.Client, folder: Path, name: str, says: str) -> None:
        before = models(client), client.get(EXTENSIONS).json(), read(ask(client, name))
        error = put(client, folder, f"{name}-2")
        assert error.status_code == 400 and says in error.json()["error"]["message"], error.text
        assert (models(client), client.get(EXTENSIONS).json(), read(ask(client, name))) == before

    with living(loaded(needing, "work")) as server, server.client() as client:
        for folder in (damaged, foreign, tmp_path / "nowhere", tmp_path):
            refused(client, folder, "work", folder.name)
        assert put(client, needing / "home").status_code == 200
        needed = client.delete(f"{EXTENSIONS}/work")
        assert needed.status_code == 400 and "home" in needed.json()["error"]["message"]
        for name in ("home", "work"):
            assert client.delete(f"{EXTENSIONS}/{name}").status_code == 200
