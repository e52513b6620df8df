"""`bench serve`: the page of a folder of runs while they work."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.rundir import RunDir
from tests.bench import ledger
from tests.bench.report.page.conftest import until

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

import httpx

from moextend.bench.report import page as live
from moextend.util import http
from moextend.util.listening import listen, url_of

SHAPE = ledger.Shape(stages=2, items=8)


@contextmanager
def served(runs: Path, folder: Path) -> Iterator[str]:
    """The address of a server of the runs."""
    with listen(live.HOST, 0) as socket:
        app = live.application(live.Live(runs, [], runs.parent, folder))
        server = http.Server(http.config_of(app, grace=2))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        try:
            yield url_of(live.HOST, socket.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FRESH", 0.0)


def cut(run: RunDir, cells: int) -> str:
    """Takes all but the first cells from a run, as if they were not scored yet; the text that was taken."""
    path = run.folder / "scores.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:cells]))
    return "".join(lines[cells:])


def test_states_and_results_follow_the_runs(tmp_path: Path) -> None:
    (run, broken) = ledger.write_runs(tmp_path / "runs", SHAPE, {"<b>lora</b>": ledger.Kind()}, [0, 1])
    rest = cut(run, 4)
    (broken.folder / "config.json").write_text("[]")
    with served(tmp_path / "runs", tmp_path / "page") as url, httpx.Client(base_url=url) as client:
        before = client.get("/live.json").json()
        assert [row["state"] for row in before["runs"]] == ["done", "damaged"]
        shown = client.get("/")
        assert shown.status_code == 200 and json.dumps(before["version"]) in shown.text
        assert client.get("/live.json").json() == before
        with (run.folder / "scores.jsonl").open("a") as file:
            file.write(rest)
        after = client.get("/live.json").json()
        assert after["version"] != before["version"]
        assert json.dumps(after["version"]) in client.get("/").text
        (run.folder / "scores.jsonl").write_text("[]\n")
        damaged = client.get("/live.json").json()
        assert damaged["notes"] and "scores.jsonl" in damaged["notes"][0]
        assert client.get("/").status_code == 200


def test_nothing_but_the_page_is_answered_and_only_under_names_of_this_machine(tmp_path: Path) -> None:
    ledger.write_runs(tmp_path / "runs", SHAPE, {"lora": ledger.Kind()}, [0])
    (tmp_path / "secret.js").write_text("secret")
    with served(tmp_path / "runs", tmp_path / "page") as url, httpx.Client(base_url=url) as client:
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
        assert client.post("/live.json").status_code == 405
        for path in ("/../secret.js", "/%2e%2e/secret.js", "/parts", "/runs/lora-s0/config.json"):
            assert client.get(path).status_code == 404, path


def test_a_page_shows_runs_and_offers_new_results(browser: Any, tmp_path: Path) -> None:
    context, messages = browser.new_context(viewport={"width": 390, "height": 844}), list[str]()
    tab = context.new_page()
    tab.on("console", lambda message: messages.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: messages.append(str(error)))
    with served(tmp_path / "runs", tmp_path / "page") as url:
        tab.goto(url)
        until(tab, "document.querySelector('main').textContent.includes('There is no run yet')")
        (run,) = ledger.write_runs(tmp_path / "runs", SHAPE, {"ewc": ledger.Kind()}, [0])
        rest = cut(run, 4)
        until(tab, "document.querySelector('.runs td.done') !== null")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        tab.click(".connection button")
        until(tab, "document.querySelector('section[aria-labelledby=methods]')?.textContent.includes('ewc')")
        with (run.folder / "scores.jsonl").open("a") as file:
            file.write(rest)
        tab.evaluate("location.hash = '#/matrix?run=each'")
        until(tab, "document.querySelector('.connection button') !== null")
        tab.click(".connection button")
        until(tab, f"document.querySelectorAll('.matrix td a').length === {4 + rest.count(chr(10))}")
        tab.goto("about:blank")
    context.close()
    assert messages == []
