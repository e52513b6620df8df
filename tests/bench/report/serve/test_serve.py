"""The page over a workspace: what it answers, to whom, and that it follows the runs."""

import copy
import gzip
import json
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.report.page.data import Parts
from moextend.bench.run.progress import STATUS, _write, read_status
from moextend.bench.run.rundir import RunDir
from tests.bench import ledger

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from moextend.bench.report.serve import app, build, live, watcher
from tests.bench.report.serve.serving import Served, add, cut, report_of, served, until
from tests.bench.states import hold

METHODS = {"lora": ledger.Kind(keeps=0.3), "replay": ledger.Kind(keeps=0.9)}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks often, so that tests need not wait."""
    monkeypatch.setattr(watcher, "EVERY", 0.03)
    monkeypatch.setattr(watcher, "SHARE", 1.0)


@pytest.fixture
def made(tmp_path: Path) -> list[RunDir]:
    return ledger.write_runs(tmp_path / "runs", ledger.Shape(stages=2, items=12), METHODS, [0])


@pytest.fixture
def site(made: list[RunDir]) -> Iterator[Served]:
    with served(made[0].folder.parents[1]) as found:
        yield found


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of runs that do not change."""
    runs = tmp_path_factory.mktemp("still") / "runs"
    ledger.write_runs(runs, ledger.Shape(stages=2, items=12), METHODS, [0])
    with served(runs) as found:
        tab = found.events()
        until(tab, lambda message: message["version"])
        tab.close()  # type: ignore[attr-defined]
        yield found


def test_the_page_and_its_parts(site: Served) -> None:
    index = site.get()
    assert index.status == 200 and b'id="part-live"' in index.body and b"page.js" in index.body
    assert b"moextendPart" in site.get("/page.js").body and site.get("/page.css").status == 200
    message = until(site.events(), lambda message: message["version"])
    report = report_of(site, message["version"])
    assert len(report["experiments"][0]["runs"]) == 2
    assert site.get("/parts/e0.items0.json").status == 200
    assert site.get("/parts/report.json?v=another").status == 404


def test_answers_are_compressed_for_who_can_read_that(site: Served) -> None:
    until(site.events(), lambda message: message["version"])
    plain, zipped = site.get("/parts/report.json"), site.get("/parts/report.json", accept_encoding="gzip, br")
    assert "Content-Encoding" not in plain.headers and zipped.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(zipped.body) == plain.body and len(zipped.body) < len(plain.body) / 2


def test_cells_and_states_arrive_while_runs_work(made: list[RunDir], site: Served) -> None:
    lora, name = made[0], "ledger/lora-s0"
    rest = cut(lora, 3)
    status = read_status(lora.folder)
    running = {"state": "running", "phase": "train", "task": "task2", "step": 3, "steps": 4, "fraction": 0.4}
    _write(lora.folder, status.model_copy(update={**running, "host": "elsewhere", "heartbeat": time.time()}))
    hold(lora.folder)
    events = site.events()
    first = next(events)
    assert first["all"] and first["rows"][name]["state"] == "running"
    assert first["rows"][name]["now"] == "learning task2 3/4"
    assert first["rows"][name]["losses"] == [[1, 2.5], [2, 2.5]]
    version = until(events, lambda message: message["version"])["version"]
    cells = report_of(site, version)["experiments"][0]["cells"]["run"]
    assert cells.count(0) == 3

    add(lora, rest)
    _write(lora.folder, status)
    seen = dict[str, str]()

    def done(message: dict[str, dict[str, dict[str, str]]]) -> bool:
        seen.update({key: row["state"] for key, row in message["rows"].items()})
        if message["version"] == version or seen.get(name) != "done":
            return False
        cells = report_of(site, str(message["version"]))["experiments"][0]["cells"]["run"]
        return bool(cells.count(0) == 3 + len(rest))

    until(events, done)
    assert "ledger/replay-s0" not in seen, "only what changes is sent"


def test_reports_wait_only_while_runs_work(
    made: list[RunDir], site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "SHARE", 1e-6)
    status, rest = read_status(made[0].folder), cut(made[0], 3)
    running = {"state": "running", "host": "elsewhere", "heartbeat": time.time()}
    _write(made[0].folder, status.model_copy(update=running))
    hold(made[0].folder)
    events = site.events()
    version = until(events, lambda message: message["version"])["version"]
    builds = noted(monkeypatch, watcher, "build")
    add(made[0], rest)
    time.sleep(0.3)
    assert not builds
    _write(made[0].folder, status)
    assert until(events, lambda message: message["version"] != version)


def test_runs_come_and_go(tmp_path: Path) -> None:
    with served(tmp_path / "runs") as site:
        events = site.events()
        assert next(events)["rows"] == {}
        assert until(events, lambda message: message["version"])["notes"] == []
        (run,) = ledger.write_runs(tmp_path / "runs", ledger.Shape(items=6), {"ewc": ledger.Kind()}, [0])
        row = until(events, lambda message: message["rows"].get("ledger/ewc-s0", {}).get("state") == "done")
        assert row["rows"]["ledger/ewc-s0"]["method"] == "ewc"

        def is_reported(message: dict[str, Any]) -> bool:
            return "ewc-s0" in json.dumps(report_of(site, message["version"]))

        # Before, the report may write scores of items into the folder, and it would not be empty.
        assert is_reported(row) or until(events, is_reported)
        shutil.rmtree(run.folder)
        assert until(
            events,
            lambda message: "ledger/ewc-s0" in message["rows"] and not message["rows"]["ledger/ewc-s0"],
        )


@pytest.mark.parametrize("name", ["config.json", "scores.jsonl", STATUS, "facts.json"])
def test_a_damaged_run_hides_no_other(made: list[RunDir], site: Served, name: str) -> None:
    (made[0].folder / name).write_bytes(b'{"a": \xff\n[]\n')
    events = site.events()
    message = until(events, lambda message: message["version"])
    report = report_of(site, message["version"])
    names = [run["name"] for run in report["experiments"][0]["runs"]]
    assert "replay-s0" in names
    if name != STATUS:
        assert names == ["replay-s0"] and "lora-s0 (damaged" in json.dumps(report["experiments"][0]["limits"])


def test_images_have_addresses_of_their_content(
    made: list[RunDir], site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = {"media/a.webp": b"RIFF1", "media/b.svg": b"<svg>"}
    media = [{"kind": "image", "src": path} for path in image]
    values = {"report": {}, "e0.items0.media": {"at": [0, 1], "media": media}}
    monkeypatch.setattr(build, "parts", lambda *_, **__: Parts(copy.deepcopy(values), dict(image)))
    version = until(site.events(), lambda message: message["version"])["version"]
    part = json.loads(site.get(f"/parts/e0.items0.media.json?v={version}").body)
    urls = [one["src"] for one in part["media"]]
    shown = site.get(f"/{urls[0]}")
    assert shown.body == b"RIFF1" and shown.headers["Content-Type"] == "image/webp"
    assert site.get(f"/{urls[1]}").status == 404, "nothing that a browser would execute"
    image["media/a.webp"] = b"RIFF2"
    add(made[0], cut(made[0], 2))
    version = until(site.events(), lambda message: message["version"] not in ("", version))["version"]
    part = json.loads(site.get(f"/parts/e0.items0.media.json?v={version}").body)
    assert part["media"][0]["src"] != urls[0]


def test_only_damaged_runs_are_a_note(made: list[RunDir], site: Served) -> None:
    for run in made:
        (run.folder / "config.json").write_text("[]")
    events = site.events()
    rows = next(events)["rows"]
    assert {row["state"] for row in rows.values()} == {"damaged"}
    notes = until(events, lambda message: message["notes"])["notes"]
    assert len(notes) == 2 and "lora-s0 (damaged" in notes[0]


def test_a_wrong_style_is_a_note_and_the_report_stays(made: list[RunDir], site: Served) -> None:
    events = site.events()
    version = until(events, lambda message: message["version"])["version"]
    (made[0].folder.parents[2] / "report.yaml").write_text("precision: many\n")
    add(made[0], cut(made[0], 2))  # another time of change
    message = until(events, lambda message: message["notes"])
    assert "report.yaml: precision" in message["notes"][0] and message["version"] == version
    assert site.get(f"/parts/report.json?v={version}").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_nothing_is_written(still: Served, method: str) -> None:
    for path in ("/", "/events", "/parts/report.json"):
        answer = still.get(path, method)
        assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD"


def test_head_has_no_body_and_ends(still: Served) -> None:
    for path in ("/", "/events"):
        answer = still.get(path, "HEAD")
        assert answer.status == 200 and answer.body == b""


@pytest.mark.parametrize(
    "path",
    [
        "/../runs/ledger/lora-s0/config.json", "/ledger/lora-s0/config.json", "/..%2f..%2fetc%2fpasswd", "//etc/passwd",
        "/parts/../../scores.jsonl", "/parts/%2e%2e/%2e%2e/x.json", "/images/..%5c..%5cx", "/%00", "/parts/",
        "/page.js/", "/favicon.ico", "/\\..\\", "/parts/report.json/..",
    ],
)  # fmt: skip
def test_no_path_leaves_the_page(still: Served, path: str) -> None:
    answer = still.get(path)
    assert answer.status == 404 and answer.body == b"This file does not exist.\n"


def test_headers_allow_no_other_site(still: Served) -> None:
    for path in ("/", "/page.js", "/nothing", "/parts/report.json"):
        headers = still.get(path, Origin="http://evil.example").headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "http" not in policy and "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers and "Server" not in headers


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8899", "", "a@localhost", "[::1"]
)
def test_another_host_is_refused(still: Served, host: str) -> None:
    assert still.get("/", Host=host).status == 403
    assert still.get("/events", Host=host).status == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8899", "[::1]:80"])
def test_this_machine_has_several_names(still: Served, host: str) -> None:
    assert still.get("/", Host=host).status == 200


def test_another_address_needs_the_token(made: list[RunDir], capfd: pytest.CaptureFixture[str]) -> None:
    with served(made[0].folder.parents[1], host="0.0.0.0") as site:
        token = site.address.token
        assert token and len(token) >= 40 and site.address.url.endswith(f"/?token={token}")
        assert token not in repr(site.address)
        for path in (
            "/",
            "/events",
            "/page.js",
            "/parts/report.json",
            "/?token=",
            "/?token=x",
            "/?token=%ff",
        ):
            answer = site.get(path)
            assert answer.status == 401 and token.encode() not in answer.body
        assert site.get("/page.js", Cookie=f"moextend-{site.address.port}=x").status == 401

        login = site.get(f"/?token={token}", Host="box.example")
        assert login.status == 303 and login.headers["Location"] == "/"
        cookie = login.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower()
        given = cookie.partition(";")[0]
        assert site.get("/", Cookie=given, Host="box.example").status == 200
        assert site.get("/page.js", Authorization=f"Bearer {token}").status == 200
        assert next(site.events(Cookie=given))["all"]
    output = capfd.readouterr()
    assert token not in output.out + output.err


def test_a_token_can_be_asked_for_on_this_machine(made: list[RunDir]) -> None:
    with served(made[0].folder.parents[1], token=True) as site:
        bearer = f"Bearer {site.address.token}"
        assert site.get().status == 401 and site.get(Authorization=bearer).status == 200
        assert site.get(Authorization=bearer, Host="evil.example").status == 403


def noted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[float]:
    """Times at which a function returned from now on."""
    times, function = list[float](), getattr(owner, name)

    def call(*arguments: Any) -> Any:
        result = function(*arguments)
        times.append(time.monotonic())
        return result

    monkeypatch.setattr(owner, name, call)
    return times


def test_tabs_share_one_look(made: list[RunDir], site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "EVERY", 0.2)
    looks, builds = noted(monkeypatch, live.Runs, "look"), noted(monkeypatch, watcher, "build")
    tabs = [site.events() for _ in range(8)]
    for tab in tabs:
        until(tab, lambda message: message["version"])
    time.sleep(0.5)
    assert len(builds) == 1
    pauses = [later - first for first, later in pairwise(looks)]
    assert min(pauses) >= 0.19, pauses
    for tab in tabs:
        tab.close()  # type: ignore[attr-defined]


def test_nobody_looks_where_nobody_reads(
    made: list[RunDir], site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = site.events()
    next(tab)
    tab.close()  # type: ignore[attr-defined]
    monkeypatch.setattr(watcher, "SILENCE", 0.01)
    looks = noted(monkeypatch, live.Runs, "look")
    time.sleep(0.5)
    known = len(looks)
    time.sleep(0.3)
    assert len(looks) == known


def test_too_many_tabs_are_refused(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "READERS", 1)
    tab = site.events()
    next(tab)
    assert site.get("/events").status == 503
    tab.close()  # type: ignore[attr-defined]
