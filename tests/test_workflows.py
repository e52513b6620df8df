"""The workflow that checks submitted packs takes what a pull request adds, and nothing else of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOW = Path(__file__).parents[1] / ".github" / "workflows" / "submission.yml"
PACKS = Path("docs", "results", "packs")


@pytest.fixture
def workflow() -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    return found


def git(folder: Path, *words: str) -> str:
    named = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    done = subprocess.run(["git", *named, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def written(folder: Path, **files: str) -> str:
    """The commit of these files, added or changed."""
    for name, text in files.items():
        path = folder / (PACKS / f"{name}.tar.zst" if name != "code" else Path("code.py"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x")
    return git(folder, "rev-parse", "HEAD")


def taken(workflow: dict[Any, Any], tmp_path: Path, **files: str) -> subprocess.CompletedProcess[str]:
    """The step that takes packs, in a clone of the base, for a pull request with these files."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    git(origin, "init", "-q", "-b", "main")
    base = written(origin, old="1", code="1")
    git(origin, "checkout", "-qb", "theirs")
    head = written(origin, **files)
    git(origin, "update-ref", "refs/pull/7/head", head)
    git(origin, "checkout", "-q", "main")
    written(origin, later="1")
    git(origin, "branch", "-qD", "theirs")
    git(tmp_path, "clone", "-q", str(origin), str(clone))
    git(clone, "checkout", "-q", base)
    (step,) = (one for one in workflow["jobs"]["check"]["steps"] if "added packs" in one.get("name", ""))
    environment = {**os.environ, "BASE": base, "HEAD": head, "NUMBER": "7"}
    command = ["bash", "-e", "-c", step["run"]]  # as the runner does
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)


def test_added_packs_are_taken(workflow: dict[Any, Any], tmp_path: Path) -> None:
    done = taken(workflow, tmp_path, new="2", other="3", code="steal()")
    assert done.returncode == 0, done.stderr
    found = {path.name: path.read_text() for path in (tmp_path / "clone" / "submitted").iterdir()}
    assert found == {"new.tar.zst": "2", "other.tar.zst": "3"}
    assert (tmp_path / "clone" / "code.py").read_text() == "1", "the code of the base"


def test_a_published_pack_is_not_changed(workflow: dict[Any, Any], tmp_path: Path) -> None:
    done = taken(workflow, tmp_path, old="2", new="2")
    assert done.returncode == 1 and f"changes published ones: {PACKS}/old.tar.zst" in done.stdout


def test_it_can_read_only_and_has_no_secrets(workflow: dict[Any, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert list(workflow[True]) == ["pull_request"], "`on`, which YAML reads as true"
    assert "secrets" not in WORKFLOW.read_text(encoding="utf-8")
