"""What no run needs is removed from the store, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moextend.bench.run.gc import DAY, Entry, collect, lines, size, summary
from moextend.bench.run.records import Status
from moextend.bench.run.rundir import RunDir
from moextend.bench.store import Kind, Node, Store, StoreFile
from moextend.errors import InputError
from moextend.util import files
from moextend.util.record import LaterVersion
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


def test_runs_elsewhere_count_too(
    store: Store, make: Make, run: RunDir, make_run: MakeRun, tmp_path: Path
) -> None:
    make("stages", "a")
    finish(run)
    assert gone(collect(store, tmp_path / "others", dry_run=True)) == ["a"]
    other = make_run(seed=1)
    elsewhere = tmp_path / "elsewhere" / "mini" / other.folder.name
    elsewhere.parent.mkdir(parents=True)
    other.folder.rename(elsewhere)
    assert gone(collect(store, tmp_path / "others", dry_run=True)) == ["a"], "nobody knows of it"
    Store(store.folder, str(elsewhere)).register()
    assert gone(collect(store, tmp_path / "others")) == []
    known = StoreFile.read(store.folder / "store.json")
    assert known and known.runs == [str(tmp_path / "runs"), str(tmp_path / "elsewhere")]


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


def test_a_projector_is_needed_by_a_run_that_was_moved(
    store: Store, make: Make, run: RunDir, tmp_path: Path
) -> None:
    make("aligned", "a").add_user()
    finish(run)
    run.folder.rename(run.folder.with_name("elsewhere"))
    (entry,) = collect(store, tmp_path / "runs")
    assert entry.kept == "1 run made with it"


def test_a_new_run_of_the_same_name_is_no_user(store: Store, make: Make, run: RunDir, tmp_path: Path) -> None:
    make("aligned", "a")
    Node(Store(store.folder, store.run, "a removed run"), "aligned", "a").add_user()
    finish(run)
    assert gone(collect(store, tmp_path / "runs", dry_run=True)) == ["a"]
    store.node("aligned", "a").add_user()
    assert gone(collect(store, tmp_path / "runs")) == []


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


def test_a_damaged_card_is_no_reason_to_remove_more_than_was_asked(
    store: Store, make: Make, run: RunDir, tmp_path: Path
) -> None:
    nodes = [make("stages", "a"), make("features", "b")]
    for node in nodes:
        (node.folder / "card.json").write_text("{")
    store.node("features", "b").mark("features of images")
    assert nodes[1].read_card() and (nodes[1].folder / "features.bin").exists(), (
        "features have digests of their own"
    )
    (nodes[1].folder / "card.json").write_text("{")
    finish(run)
    assert sorted(gone(collect(store, tmp_path / "runs", dry_run=True))) == ["a", "b"]
    assert all((node.folder / "card.json").exists() for node in nodes), "a dry run removes nothing"
    assert sorted(gone(collect(store, tmp_path / "runs"))) == ["a", "b"]


def test_a_store_of_a_later_release_is_refused(store: Store, make: Make, tmp_path: Path) -> None:
    node = make("stages", "a")
    files.write_json(store.folder / "store.json", {"schema_version": 99})
    with pytest.raises(LaterVersion):
        collect(store, tmp_path / "runs")
    with pytest.raises(LaterVersion):
        store.register()
    assert node.folder.exists()


def test_sizes_in_words() -> None:
    assert [size(n) for n in (0, 999, 1500, 2_500_000, 3 * 10**9)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3.0 GB",
    ]


def test_answers_are_listed_together(store: Store, make: Make, run: RunDir, tmp_path: Path) -> None:
    finish(run)
    for key in ("a", "b", "c"):
        make("predictions", key)
    make("stages", "d")
    with store.node("predictions", "c").lease():
        found = list(lines(collect(store, tmp_path / "runs", dry_run=True), dry_run=True))
    day = time.strftime("%Y-%m-%d")
    assert [line.replace(f", used {day}", "") for line in found] == [
        "stages/d  1.4 kB, stages d  (removable)",
        "predictions  2.8 kB, answers in 2 files  (removable)",
        "predictions  1.4 kB, answers in 1 file  (kept: in use)",
    ]


def test_a_wrong_switch_of_sharing_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, shares in (("", True), ("on", True), ("off", False)):
        monkeypatch.setenv("MOEXTEND_SHARING", value)
        assert store.shares_stages is shares
    monkeypatch.setenv("MOEXTEND_SHARING", "false")
    with pytest.raises(InputError, match="'false' is neither on nor off"):
        assert store.shares_stages
