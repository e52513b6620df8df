"""A hub on 127.0.0.1 that speaks what huggingface_hub 1 and 2 ask for, and fails on demand.

Small files are redirected to `/api/resolve-cache/...` of the same host, large ones to a storage on another port, as the
hub and its CDN do: a token goes to the hub only. There is no Xet: no answer has an `X-Xet-Hash`.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from tests.hub.repositories import File, Kind, Repository
from tests.hub.uploads import Uploads, body_of, uploaded

PUBLIC = ("README.md", ".gitattributes")
"""Files of a gated repository that everybody may read."""
BLOCK = 1 << 13


@dataclass(frozen=True)
class Asked:
    """A request that was made."""

    method: str
    path: str
    range: str | None
    token: str | None
    on_hub: bool
    """Whether it was made to the hub, not to the storage of large files."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Fault:
    """What goes wrong with requests that match."""

    match: str
    """Regular expression, searched in "GET /path"."""
    times: int = 1_000_000
    """How many requests are affected."""
    status: int | None = None
    """Answered instead, with `headers`."""
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: int | None = None
    """Bytes of the body after which the connection is cut."""
    slow: float = 0.0
    """Seconds before the answer, and between two blocks of the body."""
    truncate: int | None = None
    """Bytes of the body that are sent, as if they were all."""
    hit: threading.Event = field(default_factory=threading.Event)
    """Set once a request is affected."""


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of an answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def refusal(status: int, code: str, message: str, **headers: str) -> Answer:
    """An error, as the hub states it in headers."""
    body = json.dumps({"error": message}).encode()
    return Answer(status, body, {"X-Error-Code": code, "X-Error-Message": message, **headers})


class Hub:
    """The repositories, the faults that are set, and what was asked."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[Kind, str], Repository] = {}
        self.tokens: dict[str, set[str]] = {}
        """Valid token -> the gated and private repositories that it may read."""
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.uploads = Uploads()
        self.address = self.storage = ""
        self._lock = threading.Lock()

    def add(self, kind: Kind, name: str, *, gated: bool = False, private: bool = False) -> Repository:
        """A new repository without commits."""
        found = self.repositories[kind, name] = Repository(kind, name, gated, private)
        return found

    def push(self, model: str, folder: Path) -> str:
        """Adds a commit to a model, which is made if it is not there; returns its id."""
        return (self.repositories.get(("models", model)) or self.add("models", model)).push(folder)

    def fail(self, match: str, **how: Any) -> Fault:
        """Sets a fault."""
        self.faults.append(fault := Fault(match, **how))
        return fault

    def recover(self) -> None:
        """Removes all faults and forgets what was asked."""
        with self._lock:
            self.faults.clear()
            self.asked.clear()

    def note(self, asked: Asked) -> Fault | None:
        """Keeps a request; returns what goes wrong with it."""
        with self._lock:
            self.asked.append(asked)
            found = next(
                (each for each in self.faults if each.times and re.search(each.match, str(asked))), None
            )
            if found:
                found.times -= 1
                found.hit.set()
        return found

    def bodies(self) -> list[str]:
        """Names of the files that were downloaded, in order; without the API, and without parts such as headers."""
        with self._lock:
            whole = [each for each in self.asked if not re.fullmatch(r"bytes=\d+-\d+", each.range or "")]
            paths = [urlsplit(each.path).path for each in whole if each.method == "GET"]
        return [
            path.rpartition("/")[2] for path in paths if path.startswith(("/api/resolve-cache/", "/storage/"))
        ]

    def revisions(self) -> set[str]:
        """Revisions of the files that were asked for."""
        found = (re.search("/resolve/([^/]+)/", each.path) for each in self.asked)
        return {each[1] for each in found if each}

    def answer(self, asked: Asked, form: dict[str, list[str]], sent: bytes = b"") -> Answer:
        """The answer of a hub without faults."""
        if asked.method in ("POST", "PUT") and (found := uploaded(self, asked, sent)) is not None:
            return found
        url = urlsplit(asked.path)
        if stored := re.fullmatch(r"/storage/(models|datasets)/(.+)@([0-9a-f]{40})/(.+)", url.path):
            kind, name, commit, file = stored.groups()
            return self._content(self.repositories[kind, name].commits[commit][unquote(file)], commit)  # type: ignore[index]
        if cached := re.fullmatch(r"/api/resolve-cache/(models|datasets)/(.+)/([0-9a-f]{40})/(.+)", url.path):
            kind, name, commit, file = cached.groups()
            return self._content(self.repositories[kind, name].commits[commit][unquote(file)], commit)  # type: ignore[index]
        if file_of := re.fullmatch(r"/(datasets/)?([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)", url.path):
            data, name, revision, file = file_of.groups()
            return self._resolve(
                "datasets" if data else "models", name, unquote(revision), unquote(file), asked
            )
        if api := re.fullmatch(r"/api/(models|datasets)/([^/]+(?:/(?!revision/)[^/]+)?)(?:/(.*))?", url.path):
            kind, name, rest = api.groups()
            return self._api(kind, name, rest or "", parse_qs(url.query), form, asked)  # type: ignore[arg-type]
        return refusal(404, "NotFound", "Sorry, we can't find the page you are looking for.")

    def _found(self, kind: Kind, name: str, asked: Asked) -> Repository | Answer:
        """The repository; 401 or 404, as the hub answers, if it does not exist or is private."""
        if asked.token is not None and asked.token not in self.tokens:
            return Answer(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        found = self.repositories.get((kind, name))
        if found is None or (found.private and not self._may_read(found, asked)):
            return refusal(401 if asked.token is None else 404, "RepoNotFound", "Repository not found")
        return found

    def _may_read(self, repository: Repository, asked: Asked) -> bool:
        return repository.name in self.tokens.get(asked.token or "", set())

    def _gate(self, repository: Repository, asked: Asked) -> Answer | None:
        if not repository.gated or self._may_read(repository, asked):
            return None
        what = f"Access to {repository.kind.removesuffix('s')} {repository.name} is restricted"
        if asked.token is None:
            why = "You must have access to it and be authenticated to access it. Please log in."
            return refusal(401, "GatedRepo", f"{what}. {why}")
        why = "and you are not in the authorized list. Visit its page to ask for access."
        return refusal(403, "GatedRepo", f"{what} {why}")

    def _resolve(self, kind: Kind, name: str, revision: str, file: str, asked: Asked) -> Answer:
        repository = self._found(kind, name, asked)
        if isinstance(repository, Answer):
            return repository
        if file not in PUBLIC and (closed := self._gate(repository, asked)):
            return closed
        commit = repository.resolve(revision)
        if commit is None:
            return refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        found = repository.commits[commit].get(file)
        if found is None:
            return refusal(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", "ETag": f'"{found.etag}"'}
        if not found.large:
            return Answer(
                307, b"", {**headers, "Location": f"/api/resolve-cache/{kind}/{name}/{commit}/{quote(file)}"}
            )
        linked = {"X-Linked-Size": str(len(found.content)), "X-Linked-ETag": f'"{found.etag}"'}
        place = f"{self.storage}/storage/{kind}/{name}@{commit}/{quote(file)}?signed=1"
        return Answer(302, b"", {**headers, **linked, "Location": place})

    def _content(self, file: File, commit: str) -> Answer:
        name = file.name.rpartition("/")[2]
        shown = f"inline; filename*=UTF-8''{name}; filename=\"{name}\";"
        headers = {
            "X-Repo-Commit": commit, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes", "Content-Disposition": shown
        }  # fmt: skip
        return Answer(200, file.content, headers)

    def _api(
        self,
        kind: Kind,
        name: str,
        rest: str,
        query: dict[str, list[str]],
        form: dict[str, list[str]],
        asked: Asked,
    ) -> Answer:
        repository = self._found(kind, name, asked)
        if isinstance(repository, Answer):
            return repository
        what, _, rest = rest.partition("/")
        if what == "auth-check":
            return self._gate(repository, asked) or Answer(200, b"{}")
        if what == "refs":
            branches = [
                {"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repository.refs.items()
            ]
            return _json({"branches": branches, "tags": [], "converts": []})
        revision, _, below = rest.partition("/")
        revision = unquote(revision) or "main"
        commit = repository.resolve(revision)
        if commit is None:
            return refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if what in ("", "revision"):
            return _json(repository.info(commit, sizes=query.get("blobs", [""])[0].lower() in ("1", "true")))
        if what == "tree":
            recursive = query.get("recursive", [""])[0].lower() in ("1", "true")
            found = repository.tree(commit, unquote(below), recursive=recursive)
            if found is None:
                return refusal(404, "EntryNotFound", f"{below} does not exist on {revision}")
            return _json(found)
        if what == "paths-info":
            return _json(repository.paths(commit, form.get("paths", [])))
        return refusal(404, "NotFound", f"no such route: {what}")


def _json(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8"})


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    on_hub = True
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        sent = body_of(self)
        form = parse_qs(sent.decode()) if self.command == "POST" else {}
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        asked = Asked(self.command, self.path, self.headers.get("Range"), token, self.on_hub)
        fault = self.hub.note(asked) or Fault("", 0)
        time.sleep(fault.slow)
        if fault.status is not None:
            self._send(Answer(fault.status, b'{"error": "failing on demand"}', fault.headers), Fault("", 0))
        else:
            self._send(self._ranged(self.hub.answer(asked, form, sent), asked), fault)

    @staticmethod
    def _ranged(answer: Answer, asked: Asked) -> Answer:
        """The part of the body that `Range: bytes=FIRST-LAST` asks for."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.range or "")
        if answer.status != 200 or wanted is None:
            return answer
        size, first = len(answer.body), int(wanted[1])
        last = min(int(wanted[2] or size - 1), size - 1)
        if first >= size:
            return Answer(416, b"", {"Content-Range": f"bytes */{size}"})
        headers = {**answer.headers, "Content-Range": f"bytes {first}-{last}/{size}"}
        return Answer(206, answer.body[first : last + 1], headers)

    def _send(self, answer: Answer, fault: Fault) -> None:
        body = answer.body
        if answer.status in (200, 206) and fault.truncate is not None:
            body = body[: fault.truncate]
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(body) if fault.drop_after is None or answer.status >= 300 else fault.drop_after
        try:
            for place in range(0, min(end, len(body)), BLOCK):
                self.wfile.write(body[place : min(place + BLOCK, end)])
                time.sleep(fault.slow)
        except OSError:  # whoever asked is gone
            self.close_connection = True
        if end < len(body):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Prints nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that are gone."""


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that serves until the context ends; its address is `hub.address`."""
    hub = Hub()
    servers = []
    for on_hub in (True, False):
        handler = type("Handler", (_Handler,), {"hub": hub, "on_hub": on_hub})
        servers.append(_Server(("127.0.0.1", 0), handler))
    hub.address, hub.storage = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


@contextmanager
def connected(cache: Path, patch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that is the only one that libraries know in this process, with an empty cache."""
    from huggingface_hub import constants, hf_api
    from transformers.utils import hub as of_transformers

    with serving() as hub:
        for shared in (hf_api.api, of_transformers.hf_api()):  # made once for all
            patch.setattr(shared, "endpoint", hub.address)
        for name, value in {
            "ENDPOINT": hub.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
        }.items():  # fmt: skip
            patch.setattr(constants, name, value)
        yield hub
