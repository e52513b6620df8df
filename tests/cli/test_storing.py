"""`moextend bench gc`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from moextend.bench.store import Store
from moextend.util import files
from tests.cli.conftest import Cli


def test_what_no_run_needs_is_listed_and_removed(cli: Cli, tmp_path: Path) -> None:
    here = tmp_path / "workspace"  # the tests of a process share the cache of tmp_path
    source, node = tmp_path / "weights", Store(here / ".cache").node("stages", "0123456789abcdef")
    source.write_bytes(b"x" * 2_000_000)
    node.put({"weights": source}, about="lora, seed 0: colour as stage 1 of small/lora-s0")
    source.unlink()
    gc = partial(cli, "bench", "gc", "--workspace", str(here))
    listed = gc("--dry-run")
    assert listed.code == 0 and node.card()
    lines = listed.out.splitlines()
    assert lines[0].startswith("stages/0123456789abcdef  2.0 MB, used ")
    assert lines[0].endswith("lora, seed 0: colour as stage 1 of small/lora-s0  (removable)")
    assert lines[1:] == ["1 result would be removed, 2.0 MB; 0 kept, 0 B."]
    assert "(kept: used in the last 1 days)" in gc("--older-than", "1").out
    assert node.card() and gc().out.endswith("\n1 result removed, 2.0 MB; 0 kept, 0 B.\n")
    assert node.card() is None
    assert gc().out == "0 results removed, 0 B; 0 kept, 0 B.\n"


def test_a_later_store_is_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / ".cache" / "store.json"
    files.write_json(path, {"schema_version": 2})
    try:
        found = cli("bench", "gc")
    finally:
        path.unlink()
    assert found.code == 2 and "has schema_version 2" in found.err and "Update moextend" in found.err
