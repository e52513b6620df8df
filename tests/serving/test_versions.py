"""Versions of a skill: other names for one, and a name that moves to a new version while it is used."""

from __future__ import annotations

import json
import shutil
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import moextend
from moextend import MultimodalLM
from moextend.certificate.certify import certify
from moextend.errors import InputError

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from tests.serving.conftest import Held, loaded
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


def stream(client: httpx.Client, model: str) -> tuple[int, set[str], list[str]]:
    """Status, fingerprints and texts of an answer in parts."""
    texts, fingerprints = [""] * len(PROMPTS), set()
    body = {"model": model, "prompt": PROMPTS, "max_tokens": 6, "stream": True}
    with client.stream("POST", TEXT, json=body) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                part = json.loads(line[6:])
                fingerprints.add(part["system_fingerprint"])
                for choice in part["choices"]:
                    texts[choice["index"]] += choice["text"]
        return reply.status_code, fingerprints, [text.strip() for text in texts]


def read(reply: httpx.Response) -> tuple[int, set[str], list[str]]:
    """The same of an answer in one piece."""
    if reply.status_code != 200:
        return reply.status_code, set(), [reply.text]
    body = reply.json()
    texts = [""] * len(body["choices"])
    for choice in body["choices"]:
        texts[choice["index"]] = choice["text"].strip()
    return 200, {body["system_fingerprint"]}, texts


def test_a_name_moves_under_load_and_no_request_is_lost(
    skills: Path, versions: dict[str, tuple[str, list[str]]]
) -> None:
    right = dict(versions.values())
    with living(loaded(skills, "work", "home")) as server, server.client() as client:
        stop = threading.Event()

        def keep_asking(number: int) -> list[tuple[int, set[str], list[str]]]:
            found = []
            with server.client() as own:
                while not stop.is_set():
                    found.append(stream(own, "work") if number % 2 else read(ask(own, "work")))
            return found

        with ThreadPoolExecutor(THREADS) as threads:
            futures = [threads.submit(keep_asking, number) for number in range(THREADS)]
            try:
                for turn in range(SWITCHES):
                    version = ("pets", "work")[turn % 2]
                    moved = put(client, skills / version, "work")
                    assert moved.status_code == 200, moved.text
                    assert moved.json()["system_fingerprint"] == versions[version][0]
                    status, fingerprints, texts = read(ask(client, "work"))
                    assert (status, fingerprints, texts) == (
                        200,
                        {versions[version][0]},
                        versions[version][1],
                    ), "a request after the switch gets the new version"
            finally:
                stop.set()
        found = [each for future in futures for each in future.result()]
        assert {status for status, _, _ in found} == {200}
        for _, fingerprints, texts in found:
            (fingerprint,) = fingerprints
            assert texts == right[fingerprint]
        assert {next(iter(each)) for _, each, _ in found} <= {versions["work"][0], versions["pets"][0]}
        known = models(client)
        assert list(known)[:1] == ["base"] and sorted(known) == ["auto", "base", "home", "work"]
        assert known["work"] == versions["work"][0] and known["home"] == versions["home"][0]
        assert read(ask(client, "home")) == (200, {versions["home"][0]}, versions["home"][1])


def test_changes_are_made_in_the_order_of_requests(
    skills: Path, versions: dict[str, tuple[str, list[str]]], held: Held
) -> None:
    with (
        living(loaded(skills, "work"), max_batch=2) as server,
        server.client() as client,
        ThreadPoolExecutor(8) as threads,
    ):

        def late(call: Any, *more: Any) -> Future[httpx.Response]:
            """A call that waits behind those before it."""
            before = server.engine._worker._work_queue.qsize()
            future = threads.submit(call, *more)
            while server.engine._worker._work_queue.qsize() == before:
                time.sleep(0.01)
            return future

        early = [threads.submit(ask, client, "work") for _ in range(2)]
        while not held.batches or len(held.batches[0]) + server.waiting != 2 * len(PROMPTS):
            time.sleep(0.01)
        moved = late(put, client, skills / "pets", "work")
        waiting = late(ask, client, "work")  # some of it would fit into the batches before the change
        gone = late(client.delete, f"{EXTENSIONS}/work")
        lost = late(ask, client, "work")
        held.set()
        assert moved.result().status_code == gone.result().status_code == 200
        for future in early:
            assert read(future.result()) == (200, {versions["work"][0]}, versions["work"][1])
        assert read(waiting.result()) == (200, {versions["pets"][0]}, versions["pets"][1])
        assert lost.result().json()["error"]["code"] == "model_not_found" and list(models(client)) == ["base"]


def test_versions_side_by_side_and_the_strength_of_a_name(
    skills: Path, versions: dict[str, tuple[str, list[str]]]
) -> None:
    with living(loaded(skills, "work")) as server, server.client() as client:
        assert put(client, skills / "work").json()["id"] == "work", "by its own name it replaces itself"
        assert put(client, skills / "pets", "v2").json()["id"] == "v2"
        assert put(client, skills / "work", "v1", strength=0.5).json()["id"] == "v1:0.5"
        assert list(models(client)) == ["base", "work", "v2", "v1:0.5", "auto"]
        for name, skill in (("work", "work"), ("v2", "pets")):
            assert read(ask(client, name)) == (200, {versions[skill][0]}, versions[skill][1])
        # The strength of the name stays, unless another one is given.
        assert put(client, skills / "pets", "v1").json()["id"] == "v1:0.5"
        assert put(client, skills / "pets", "v1", strength=1).json()["id"] == "v1"
        assert models(client)["v1"] == versions["pets"][0]


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
        error = put(client, folder, name)
        assert error.status_code == 400 and says in error.json()["error"]["message"], error.text
        assert (models(client), client.get(EXTENSIONS).json(), read(ask(client, name))) == before

    with living(loaded(needing, "work")) as server, server.client() as client:
        for folder in (damaged, foreign, tmp_path / "nowhere", tmp_path):
            refused(client, folder, "work", folder.name)
        refused(client, needing / "home", "work", "needs")
        assert put(client, needing / "home").status_code == 200
        refused(client, skills / "pets", "work", "needs")
        assert client.delete(f"{EXTENSIONS}/home").status_code == 200
        assert put(client, skills / "pets", "work").status_code == 200


def test_a_name_is_no_part_of_a_fingerprint_nor_of_what_others_need(needing: Path) -> None:
    found = []
    for names in ((None, None), ("v1", "v2")):
        model = moextend.load("tiny")
        made = [
            moextend.load_extension(model, needing / folder, name=name).name
            for folder, name in zip(("work", "home"), names, strict=True)
        ]
        assert made == [name or folder for folder, name in zip(("work", "home"), names, strict=True)]
        moextend.activate(model, made)
        answers = moextend.generate(
            model, [moextend.Prompt(each) for each in PROMPTS], max_new_tokens=6, batch_size=3
        )
        found.append((moextend.active_fingerprint(model), answers))
    assert found[0] == found[1]


def test_a_certificate_tells_a_server_of_these_weights_from_another(skills: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(skills / "work", tmp_path / "work")
    statuses = []
    for served in ("work", "home"):
        model = moextend.load("tiny")
        with living(model) as server, server.client() as client:
            asked = {"path": str(skills / served), "name": "work"}
            assert client.post("/v1/extensions", json=asked).status_code == 200
            found = certify(moextend.load("tiny"), folder, items=4, server=f"{server.url}/v1")
        (claim,) = (one for one in found.claims if one.name == "server")
        statuses.append(claim.status)
        assert claim.items == 8 and claim.evidence["server"] == f"{server.url}/v1"
    assert statuses == ["proved", "failed"]
    with pytest.raises(InputError, match="does not answer for its model 'base'"):
        certify(moextend.load("tiny"), folder, items=4, server=f"{server.url}/v1")
