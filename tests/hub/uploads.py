"""What the hub in tests answers to uploads: repositories, branches, upload modes, LFS and commits.

As the hub does, it takes large files into a storage of its own first (one PUT, or several parts), and a commit then
names them by their SHA-256; a commit whose files are not all there is refused, and changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tests.hub.repositories import LARGE, File, Repository

if TYPE_CHECKING:
    from tests.hub.server import Answer, Asked, Hub

ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@dataclass
class Uploads:
    """What was uploaded, and who may upload."""

    writers: dict[str, set[str]] = field(default_factory=dict)
    """Token -> owners that it may write to."""
    stored: dict[str, bytes] = field(default_factory=dict)
    """SHA-256 -> content of large files."""
    messages: list[str] = field(default_factory=list)
    """Messages of commits."""
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="moextend-hub-")))

    def file(self, name: str, content: bytes) -> File:
        """A file of a commit."""
        path = self.folder / hashlib.sha256(content).hexdigest()
        path.write_bytes(content)
        return File(path, name)


def body_of(request: BaseHTTPRequestHandler) -> bytes:
    """Body of a request, in one piece or in chunks."""
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    chunks = []
    while size := int(request.rfile.readline() or b"0", 16):
        chunks.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(chunks)


def uploaded(hub: Hub, asked: Asked, body: bytes) -> Answer | None:
    """The answer to a request of an upload; None for another one."""
    path = urlsplit(asked.path).path
    routes: list[tuple[str, str, Callable[..., Answer]]] = [
        ("POST", r"/api/repos/create", _create),
        ("POST", r"/api/validate-yaml", _validate),
        ("POST", r"/api/models/([^/]+/[^/]+)/branch/(.+)", _branch),
        ("POST", r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", _preupload),
        ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _batch),
        ("POST", r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", _commit),
    ]
    if asked.method == "PUT" and (put := re.fullmatch(r"/upload/([0-9a-f]{64})", path)):
        return _put(hub, body, *put.groups())
    for method, pattern, answer in routes:
        if asked.method == method and (found := re.fullmatch(pattern, path)):
            return answer(hub, asked, body, *map(unquote, found.groups()))
    return None


def _answer(status: int, value: Any = None, **headers: str) -> Answer:
    from tests.hub.server import Answer

    return Answer(status, json.dumps(value or {}).encode(), {"Content-Type": "application/json", **headers})


def _may_not(hub: Hub, asked: Asked, owner: str) -> Answer | None:
    """401 without a valid token, 403 for another owner's repositories."""
    if asked.token is None or asked.token not in hub.uploads.writers:
        return _answer(401, {"error": "Invalid username or password."})
    if owner not in hub.uploads.writers[asked.token]:
        message = "You don't have the rights to create a model under the namespace"
        return _answer(403, {"error": message}, **{"X-Error-Message": message})
    return None


def _repository(hub: Hub, asked: Asked, name: str) -> Repository | Answer:
    found = hub.repositories.get(("models", name))
    if found is None:
        message = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
        return _answer(404, {"error": "Repository not found"}, **message)
    return _may_not(hub, asked, name.partition("/")[0]) or found


def _create(hub: Hub, asked: Asked, body: bytes) -> Answer:
    given = json.loads(body)
    name = f"{given['organization']}/{given['name']}"
    url = {"url": f"{hub.address}/{name}", "name": name}
    if (refused := _may_not(hub, asked, given["organization"])) is not None:
        return refused
    if ("models", name) in hub.repositories:
        return _answer(409, {"error": "You already created this model repo", **url})
    made = hub.add("models", name, private=given.get("visibility") == "private")
    hub.tokens.setdefault(str(asked.token), set()).add(name)
    _add(hub, made, "main", {".gitattributes": hub.uploads.file(".gitattributes", ATTRIBUTES.encode())})
    return _answer(200, url)


def _validate(hub: Hub, asked: Asked, body: bytes) -> Answer:
    import yaml

    content = json.loads(body)["content"]
    try:
        yaml.safe_load(content.split("---")[1])
    except (IndexError, yaml.YAMLError) as error:
        return _answer(400, {"errors": [{"message": str(error)}]})
    return _answer(200, {"errors": [], "warnings": []})


def _branch(hub: Hub, asked: Asked, body: bytes, name: str, branch: str) -> Answer:
    found = _repository(hub, asked, name)
    if not isinstance(found, Repository):
        return found
    if branch in found.refs:
        return _answer(409, {"error": "Reference already exists"})
    found.refs[branch] = found.refs["main"]
    return _answer(200)


def _preupload(hub: Hub, asked: Asked, body: bytes, name: str, revision: str) -> Answer:
    found = _repository(hub, asked, name)
    if not isinstance(found, Repository):
        return found
    if found.resolve(revision) is None:
        headers = {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"}
        return _answer(404, {"error": "no revision"}, **headers)
    modes = [
        {
            "path": each["path"], "shouldIgnore": False,
            "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular",
        }
        for each in json.loads(body)["files"]
    ]  # fmt: skip
    return _answer(200, {"files": modes})


def _batch(hub: Hub, asked: Asked, body: bytes, name: str) -> Answer:
    found = _repository(hub, asked, name)
    if not isinstance(found, Repository):
        return found
    objects = []
    for each in json.loads(body)["objects"]:
        upload = {"actions": {"upload": {"href": f"{hub.storage}/upload/{each['oid']}"}}}
        objects.append(each if each["oid"] in hub.uploads.stored else {**each, **upload})
    return _answer(200, {"transfer": "basic", "objects": objects})


def _put(hub: Hub, body: bytes, oid: str) -> Answer:
    if hashlib.sha256(body).hexdigest() != oid:
        return _answer(400, {"error": "the content does not match"})
    hub.uploads.stored[oid] = body
    return _answer(200)


def _commit(hub: Hub, asked: Asked, body: bytes, name: str, revision: str) -> Answer:
    found = _repository(hub, asked, name)
    if not isinstance(found, Repository):
        return found
    if revision not in found.refs:
        headers = {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"}
        return _answer(404, {"error": "no revision"}, **headers)
    lines = [json.loads(line) for line in body.decode().splitlines()]
    files = dict(found.commits[found.refs[revision]])
    for line in lines:
        value = line["value"]
        if line["key"] == "header":
            hub.uploads.messages.append(value["summary"])
        elif line["key"] == "file":
            files[value["path"]] = hub.uploads.file(value["path"], base64.b64decode(value["content"]))
        elif line["key"] == "deletedFile":
            del files[value["path"]]
        elif value["oid"] not in hub.uploads.stored:
            return _answer(400, {"error": f"LFS pointer of {value['path']} without its file"})
        else:
            files[value["path"]] = hub.uploads.file(value["path"], hub.uploads.stored[value["oid"]])
    commit = _add(hub, found, revision, files)
    return _answer(
        200, {"commitUrl": f"{hub.address}/{name}/commit/{commit}", "commitOid": commit, "success": True}
    )


def _add(hub: Hub, repository: Repository, branch: str, files: dict[str, File]) -> str:
    """Adds a commit; returns its id."""
    commit = hashlib.sha1(f"{repository.name} {branch} {len(repository.commits)}".encode()).hexdigest()
    repository.commits[commit] = files
    repository.refs[branch] = commit
    return commit
