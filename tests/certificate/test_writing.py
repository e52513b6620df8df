"""Certificates on disk: the hash, the page, and the check."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from moextend.certificate.certify import certify
from moextend.certificate.record import check_record, digest_of
from moextend.errors import InputError
from tests.certificate.conftest import made


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certified")
    model = made(folder / "skill")
    made_with = "moextend certify skill"
    certify(model, folder / "skill", items=2, base="toy", command=made_with).write_to(folder / "skill")
    return folder / "skill"


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "skill"))


def test_it_is_read_back_and_matches(folder: Path) -> None:
    found, problems = check_record(folder / "certificate-own.json")
    assert problems == [] and found.folder == "."
    assert set(found.files) == {"extension.json", "extension.safetensors"}
    page = (folder / "certificate-own.md").read_text()
    assert found.sha256 in page and "9 claims: 7 proved, 0 failed, 2 not checked." in page
    assert all(one.statement in page for one in found.claims)


def test_every_edit_is_found(folder: Path) -> None:
    path = folder / "certificate-own.json"
    values = json.loads(path.read_text())
    for key, value in values.items():
        if isinstance(value, str) and key not in ("kind", "sha256"):
            path.write_text(json.dumps({**values, key: f"{value}x"}))
            assert "SHA-256" in check_record(path)[1][0], key
    values["claims"][0]["items"] += 1
    path.write_text(json.dumps(values))
    assert "SHA-256" in check_record(path)[1][0]


def test_files_that_changed_are_found(folder: Path, tmp_path: Path) -> None:
    (folder / "extension.safetensors").write_bytes(b"other")
    (folder / "task_statistics.safetensors").write_bytes(b"new")
    (folder / "extension.json").unlink()
    (folder / "notes.txt").write_text("no file of an extension")
    problems = check_record(folder / "certificate-own.json")[1]
    assert [one.rpartition("/")[2] for one in problems] == [
        "extension.json is missing.", "extension.safetensors is not the file that was certified.",
        "task_statistics.safetensors was added.",
    ]  # fmt: skip


def _rewritten(path: Path, values: dict[str, Any]) -> list[str]:
    """Problems of an edited record whose hash was computed again."""
    path.write_text(json.dumps({**values, "sha256": digest_of(values)}))
    return check_record(path)[1]


def test_keys_that_a_certificate_does_not_have_are_refused(folder: Path) -> None:
    path = folder / "certificate-own.json"
    text = path.read_text()
    assert _rewritten(path, json.loads(text)) == []
    for place in ("", "claims"):
        values = json.loads(text)
        (values[place][0] if place else values)["note"] = "better than all others"
        with pytest.raises(InputError, match="note"):
            _rewritten(path, values)
    values = json.loads(text)
    del values["claims"][0]["reason"]
    path.write_text(json.dumps(values))
    assert "SHA-256" in check_record(path)[1][0], "the hash is that of the file, not of what is read from it"


def test_a_certificate_without_a_claim_is_not_right(folder: Path) -> None:
    path = folder / "certificate-own.json"
    values = json.loads(path.read_text())
    made: list[Any] = values["claims"]
    for claims in (made[:0], made[:-2], made + made[:1]):
        problems = _rewritten(path, {**values, "claims": claims})
        assert len(problems) == 1 and "files, base, attach, base tensors" in problems[0]
    for scope in ("all", "none"):
        assert "its claims are not those" in _rewritten(path, {**values, "scope": scope})[0]


def test_a_file_that_can_hold_code_was_added(folder: Path) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "fast.so").write_text("import os")
    assert check_record(folder / "certificate-own.json")[1] == [
        f"{folder}/lib/fast.so was added, and can hold code."
    ]


def test_what_is_no_certificate(tmp_path: Path) -> None:
    path = tmp_path / "certificate-own.json"
    for text, says in (
        ("{", "not valid JSON"),
        ('{"kind": "other"}', "Field required"),
        ("[]", "not a mapping"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=says):
            check_record(path)
    with pytest.raises(InputError, match="no such certificate"):
        check_record(tmp_path / "nothing.json")
