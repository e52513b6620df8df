"""What no run needs is removed from the store, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moextend.bench.run.gc import DAY, Entry, collect, summary
from moextend.bench.run.records import Status
from moextend.bench.run.rundir import RunDir
from moextend.bench.store import Kind, Node, Store
from moextend.util import files
from moextend.util.spec import LaterVersion
from tests.bench.conftest import MakeRun


def finish(run: RunDir) -> None:
    Status(state="done").write(run.folder / "status.json")


@pytest.fixture
def run(make_run: MakeRun) -> RunDir:
    return make_run()


@pytest.fixture
def store(tmp_path: Path, run: RunDir) -> Store:
    found = Store(tmp_path / ".cache", str(run.folder), run.id)
    found.register()
    return found


Make = Callable[..., Node]


@pytest.fixture
def make(store: Store, tmp_path: Path) -> Make:
    def made(kind: Kind, key: str, *, bytes: int = 1000, days: float = 0) -> Node:
        source, node = tmp_path / "content", store.node(kind, key)
        source.write_bytes(b"x" * bytes)
        node.put({"features.bin" if kind == "features" else "content.bin": source}, about=f"{kind} {key}")
        source.unlink()
        past = time.time() - days * DAY
        for path in node.folder.iterdir():
            os.utime(path, (past, past))
        return node

    return made


def gone(entries: list[Entry]) -> list[str]:
    return [entry.key for entry in entries if entry.kept is None]


def test_what_unfinished_runs_may_need_is_kept(store: Store, make: Make, run: RunDir, tmp_path: Path) -> None:
    nodes = [make("stages", "a"), make("predictions", "b"), make("features", "c")]
    assert [entry.kept for entry in collect(store, tmp_path / "runs")] == ["1 unfinished run may need it"] * 3
    finish(run)
    assert gone(collect(store, tmp_path / "runs", dry_run=True)) == ["a", "b", "c"]
    assert all(node.card() for node in nodes), "a dry run removes nothing"
    found = collect(store, tmp_path / "runs")
    assert gone(found) == ["a", "b", "c"] and not any(node.card() for node in nodes)
    assert summary(found, dry_run=False) == "3 results removed, 4.2 kB; 0 kept, 0 B."
    assert collect(store, tmp_path / "runs") == []


def test_a_projector_is_needed_by_the_runs_made_with_it(
    store: Store, make: Make, run: RunDir, tmp_path: Path
) -> None:
    node = make("aligned", "a")
    node.add_user()
    finish(run)
    (entry,) = collect(store, tmp_path / "runs")
    assert entry.kept == "1 run made with it"
    run.config_path.unlink()
    assert gone(collect(store, tmp_path / "runs")) == ["a"] and not node.folder.exists()


def test_what_is_in_use_is_kept(store: Store, make: Make, run: RunDir, tmp_path: Path) -> None:
    finish(run)
    for kind in ("stages", "predictions"):
        node = make(kind, "a")
        with node.lease():
            assert [entry.kept for entry in collect(store, tmp_path / "runs")] == ["in use"]
            assert node.card()
        assert gone(collect(store, tmp_path / "runs")) == ["a"]


def test_recent_ones_are_kept(store: Store, make: Make, run: RunDir, tmp_path: Path) -> None:
    finish(run)
    for key, days in (("a", 40), ("b", 20), ("c", 0)):
        make("stages", key, days=days)
    runs = tmp_path / "runs"
    assert gone(collect(store, runs, older_than=30, dry_run=True)) == ["a"]
    assert gone(collect(store, runs, older_than=10, dry_run=True)) == ["a", "b"]
    store.node("stages", "a").touch()  # it was used
    assert gone(collect(store, runs, older_than=10, dry_run=True)) == ["b"]
    assert gone(collect(store, runs)) == ["b", "c", "a"]


def test_files_of_runs_and_other_folders_are_not_touched(
    store: Store, make: Make, run: RunDir, tmp_path: Path
) -> None:
    finish(run)
    weights = run.stage_folder(1, "colour") / "extension.safetensors"
    weights.write_bytes(b"w" * 5000)
    store.node("stages", "a").put({weights.name: weights}, about="linked")
    (outside := tmp_path / "outside").mkdir()
    (outside / "precious").write_text("mine")
    (store.folder / "stages" / "link").symlink_to(outside)
    (store.folder / "world").mkdir()
    (store.folder / "world" / "data").write_text("made data")
    (entry,) = collect(store, tmp_path / "runs")
    assert entry.bytes < 500, (
        "only the card: the run has the file under another name: removing it frees nothing of it"
    )
    assert not store.node("stages", "a").folder.exists() and weights.read_bytes() == b"w" * 5000
    assert (outside / "precious").exists() and (store.folder / "world" / "data").exists()


def test_a_store_of_a_later_release_is_refused(store: Store, make: Make, tmp_path: Path) -> None:
    node = make("stages", "a")
    files.write_json(store.folder / "store.json", {"schema_version": 99})
    with pytest.raises(LaterVersion):
        collect(store, tmp_path / "runs")
    with pytest.raises(LaterVersion):
        store.register()
    assert node.folder.exists()
