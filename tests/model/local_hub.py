"""A small hub on 127.0.0.1: models with commits, and a default branch that moves."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


class LocalHub:
    """Serves the files of models as the hub does: `commits[repository]` are folders, the last one is the newest."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, Path]] = {}
        self.asked: list[str] = []
        """Repository, revision and file of every request."""

    def push(self, repository: str, folder: Path) -> str:
        """Adds a commit, to which the default branch moves; returns its id."""
        known = self.commits.setdefault(repository, {})
        commit = hashlib.sha1(f"{repository} {len(known)}".encode()).hexdigest()
        known[commit] = folder
        return commit

    def file(self, path: str) -> tuple[str, Path] | None:
        """Commit and file of `/<owner>/<name>/resolve/<revision>/<file>`; None if there is no such file."""
        repository, marked, rest = path.strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        known = self.commits.get(repository, {})
        commit = list(known)[-1] if revision == "main" and known else revision
        if not marked or commit not in known or not (known[commit] / name).is_file():
            return None
        self.asked.append(f"{repository} {revision} {name}")
        return commit, known[commit] / name


@contextmanager
def serving(cache: Path, patch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """The hub as the only one that libraries know in this process, with an empty cache."""
    hub = LocalHub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            if (
                path.startswith("/api/models/") and "/tree/" not in path
            ):  # of a folder that is not there: below
                self.describe(path.removeprefix("/api/models/"))
                return
            found = hub.file(path)
            content = json.dumps({"error": "none"}).encode() if found is None else found[1].read_bytes()
            self.send_response(404 if found is None else 200)
            if found is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            else:
                self.send_header("X-Repo-Commit", found[0])
                self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def describe(self, repository: str) -> None:
            repository, _, _ = repository.partition("/revision/")
            known = repository in hub.commits
            content = json.dumps({"id": repository} if known else {"error": "none"}).encode()
            self.send_response(200 if known else 404)
            if not known:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Prints nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        _connect(f"http://127.0.0.1:{server.server_port}", cache, patch)
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _connect(address: str, cache: Path, patch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants, hf_api
    from transformers.utils import hub as of_transformers

    patch.setattr(constants, "ENDPOINT", address)
    for shared in (hf_api.api, of_transformers.hf_api()):  # made once for all
        patch.setattr(shared, "endpoint", address)
    patch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
