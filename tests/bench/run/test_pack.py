"""Runs as one file: unpacking gives the same files, or nothing."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moextend.bench.report import render, tables
from moextend.bench.report.collect import collect
from moextend.bench.report.frame import frame
from moextend.bench.run.complete import lacks
from moextend.bench.run.pack import pack, unpack
from moextend.bench.run.pack_file import MANIFEST
from moextend.bench.run.rundir import RunDir, find_runs
from moextend.cli.main import app
from moextend.errors import InputError, RunConflict
from tests.bench.ledger import Kind, Shape, write_runs

SHAPE = Shape(stages=2, texts=1, items=20)


@pytest.fixture
def runs(tmp_path: Path) -> list[RunDir]:
    return write_runs(tmp_path / "a/runs", SHAPE, {"lora": Kind(), "full-ft": Kind(keeps=0.1)}, [0, 1])


def report(folder: Path) -> str:
    return render(tables(collect(find_runs(folder)), "comparison", baseline="lora"), "csv")


@pytest.mark.parametrize("name", ["runs.tar.zst", "runs.tar.gz", "runs.tar"])
def test_an_unpacked_run_reports_the_same(runs: list[RunDir], name: str, tmp_path: Path) -> None:
    out, there = tmp_path / name, tmp_path / "b/runs"
    manifest = pack(runs, out)
    assert len(manifest.runs) == 4 and not any(path.endswith(".safetensors") for path in manifest.files)
    found = unpack(out, there, tmp_path / "b")
    assert len(found.written) == 4 and found.known == []
    assert report(there) == report(tmp_path / "a/runs")
    assert lacks(RunDir(found.written[0])) == [] and RunDir(found.written[0]).left_out == ["weights"]
    again = unpack(out, there, tmp_path / "b")
    assert (len(again.written), len(again.known)) == (0, 4)
    assert sorted(path.name for path in there.iterdir()) == ["ledger"]


def test_what_a_killed_unpacking_left_is_removed_after_a_day(runs: list[RunDir], tmp_path: Path) -> None:
    there = tmp_path / "b/runs"
    old, new = there / ".unpack-old", there / ".unpack-new"
    for folder in (old, new):
        (folder / "ledger").mkdir(parents=True)
    os.utime(old, (time.time() - 90_000,) * 2)
    pack(runs[:1], tmp_path / "r.tar")
    unpack(tmp_path / "r.tar", there, tmp_path / "b")
    assert new.exists() and not old.exists()


def test_a_pack_with_weights_is_complete(runs: list[RunDir], tmp_path: Path) -> None:
    pack(runs, tmp_path / "r.tar", weights=True)
    found = unpack(tmp_path / "r.tar", tmp_path / "b", tmp_path)
    assert [lacks(RunDir(folder)) for folder in found.written] == [[]] * 4
    assert RunDir(found.written[0]).left_out == []
    next(found.written[0].glob("stages/*/extension.safetensors")).unlink()
    assert "extension.safetensors missing" in " ".join(lacks(RunDir(found.written[0])))


def test_a_pack_without_predictions_gives_the_same_tables(runs: list[RunDir], tmp_path: Path) -> None:
    manifest = pack(runs, tmp_path / "r.tar", predictions=False)
    assert not manifest.predictions and not any("predictions/" in path for path in manifest.files)
    there = tmp_path / "b/runs"
    folders = unpack(tmp_path / "r.tar", there, tmp_path / "b").written
    assert all(RunDir(folder).left_out == ["predictions", "weights"] for folder in folders)
    assert not any(lacks(RunDir(folder)) for folder in folders), "bench run leaves them as they are"
    with pytest.raises(InputError, match=r"is from a pack without predictions\. Add --no-predictions"):
        pack(find_runs(there), tmp_path / "again.tar")
    order = [RunDir(folder) for folder in folders]
    pack(order, tmp_path / "again.tar", predictions=False)
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "r.tar").read_bytes()
    full = render(tables(collect(find_runs(tmp_path / "a/runs"))), "markdown")
    without = render(tables(collect(find_runs(there))), "markdown")
    note = (
        "- Packed without predictions, so scores are not checked against answers "
        "(bench pack --predictions keeps them): all runs.\n"
    )
    assert note in without and without.replace(note, "") == full

    columns = ["run", "stage", "task", "item", "group", "score", "value"]
    kept, packed = (frame(collect(find_runs(path)))[columns] for path in (tmp_path / "a/runs", there))
    assert kept["item"].notna().all() and packed.astype(str).equals(kept.astype(str))

    assert compared(there) == [pytest.approx(row) for row in compared(tmp_path / "a/runs")]
    mixed = [*find_runs(tmp_path / "a/runs", ["full-ft-s0"]), *find_runs(there, ["full-ft-s1"])]
    assert "keeps them): full-ft-s1." in render(tables(collect(mixed)), "markdown")
    both = [
        *find_runs(tmp_path / "a/runs", ["full-ft-s0", "lora-s1"]),
        *find_runs(there, ["full-ft-s1", "lora-s0"]),
    ]
    assert compared(there, both) == [pytest.approx(row) for row in compared(there)], "by the same images"
    pack(runs, tmp_path / "full.tar")
    assert unpack(tmp_path / "full.tar", there, tmp_path / "b").bare == folders


def test_item_scores_that_are_missing_or_were_edited_are_not_tested(
    runs: list[RunDir], tmp_path: Path
) -> None:
    pack(runs, tmp_path / "r.tar", predictions=False)
    folders = unpack(tmp_path / "r.tar", tmp_path / "b", tmp_path).written
    for index, folder in enumerate(folders):
        path = folder / "items.json"
        text = path.read_text()
        # The mean stays: only the digest tells.
        path.write_text(text.replace("0,1", "1,0", 1) if index else text.replace('"scores"', '"points"'))
    assert not compared(tmp_path / "b")
    with pytest.raises(InputError, match="the file is damaged or was edited"):
        pack([RunDir(folders[-1])], tmp_path / "again.tar", predictions=False)
    (found,) = collect(find_runs(tmp_path / "b"))
    shown = render(tables([found], "comparison", baseline="lora"), "markdown")
    assert "items not kept" in shown and "items.json (damaged: the file is damaged or was edited.)" in str(
        found.results[-1].lacks
    ), shown
    assert "unpacked again" in shown
    for folder in folders:
        (folder / "items.json").unlink()
    assert not compared(tmp_path / "b")
    assert unpack(tmp_path / "r.tar", tmp_path / "b", tmp_path).bare == folders


def compared(folder: Path, runs: list[RunDir] | None = None) -> list[dict[str, float]]:
    """The numbers of the tests of differences, of those that could be made."""
    (table,) = tables(collect(runs or find_runs(folder)), "comparison", baseline="lora")
    keys = [column.key for column in table.columns]
    rows = [dict(zip(keys, row, strict=True)) for section in table.sections for row in section]
    return [
        {key: value.number for key, value in row.items() if value.number is not None}
        for row in rows
        if row["p"].number is not None
    ]


def test_equal_runs_make_equal_bytes_without_this_machine(runs: list[RunDir], tmp_path: Path) -> None:
    run = runs[0]
    (run.folder / "worker.log").write_text(str(tmp_path))
    pack(runs, tmp_path / "1.tar", weights=True)
    for path in run.folder.rglob("*"):
        path.touch()
    pack(runs[::-1], tmp_path / "2.tar", weights=True)
    packed = (tmp_path / "1.tar").read_bytes()
    assert packed == (tmp_path / "2.tar").read_bytes()
    assert str(tmp_path).encode() not in packed and b"worker.log" not in packed
    with tarfile.open(tmp_path / "1.tar") as archive:
        assert {(member.uid, member.uname, member.mtime) for member in archive} == {(0, "", 0)}


def test_the_error_of_a_failed_run_stays_here(runs: list[RunDir], tmp_path: Path) -> None:
    path = runs[0].folder / "status.json"
    error = {"what": "no room", "where": str(tmp_path), "hint": None}
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "failed", "error": error}))
    pack(runs, tmp_path / "r.tar", unfinished=True)
    assert str(tmp_path).encode() not in (tmp_path / "r.tar").read_bytes()


def test_unfinished_runs_and_invalid_names_are_refused(runs: list[RunDir], tmp_path: Path) -> None:
    (runs[0].folder / "status.json").unlink()
    with pytest.raises(InputError, match="not done: ledger/lora-s0"):
        pack(runs, tmp_path / "r.tar")
    assert not (tmp_path / "r.tar").exists()
    assert len(pack(runs, tmp_path / "r.tar", unfinished=True).runs) == 4
    with pytest.raises(InputError, match=r"--out: 'r\.zip'"):
        pack(runs[1:], tmp_path / "r.zip")
    with pytest.raises(InputError, match="two runs have the same name"):
        pack([runs[1], runs[1]], tmp_path / "r.tar")
    with pytest.raises(InputError, match="no run to pack"):
        pack([], tmp_path / "r.tar")
    with runs[0].lock(), pytest.raises(RunConflict):
        pack(runs, tmp_path / "r.tar", unfinished=True)


def test_another_run_in_the_same_place_is_left_alone(runs: list[RunDir], tmp_path: Path) -> None:
    pack(runs, tmp_path / "r.tar")
    other = write_runs(tmp_path / "b", SHAPE, {"lora": Kind()}, [1])[0]
    before = (other.folder / "scores.jsonl").read_bytes()
    with pytest.raises(RunConflict, match="another run is in this folder"):
        unpack(tmp_path / "r.tar", tmp_path / "b", tmp_path)
    assert (other.folder / "scores.jsonl").read_bytes() == before
    assert [path.name for path in (tmp_path / "b/ledger").iterdir()] == ["lora-s1"]


Change = Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]


def renamed(name: str) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        manifest = json.loads(members[0][1])
        old = members[1][0].name
        manifest["files"][name] = manifest["files"].pop(old)
        members[1][0].name = name
        members[0] = (members[0][0], json.dumps(manifest).encode())

    return change


def linked(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members[1][0].type, members[1][0].linkname = tarfile.SYMTYPE, "/etc/passwd"


def edited(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    info, content = members[1]
    members[1] = (info, bytes([content[0] ^ 1]) + content[1:])


def longer(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members[1] = (members[1][0], members[1][1] + b"x")


def extra(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.append((tarfile.TarInfo("ledger/lora-s0/more.json"), b"{}"))


def twice(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.append(members[1])


def fewer(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.pop()


def no_manifest(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.pop(0)


def resized(position: int, content: bytes) -> Change:
    """Another content of a file, as its manifest says."""

    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        info = members[position][0]
        manifest = json.loads(members[0][1])
        manifest["files"][info.name] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
        members[position] = (info, content)
        members[0] = (members[0][0], json.dumps(manifest).encode())

    return change


def configless(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    manifest = json.loads(members[0][1])
    info, _ = members.pop(
        next(i for i, (info, _) in enumerate(members) if info.name.endswith("/config.json"))
    )
    del manifest["files"][info.name]
    members[0] = (members[0][0], json.dumps(manifest).encode())


def edited_config(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    place = next(i for i, (info, _) in enumerate(members) if info.name.endswith("/config.json"))
    config = json.loads(members[place][1])
    config["identity"]["seed"] = 7
    resized(place, json.dumps(config).encode())(members)


def deep_manifest(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members[0] = (members[0][0], b"[" * 100_000)


BAD = {
    "up": renamed("ledger/lora-s0/../../../../x"), "absolute": renamed("/moextend-pack-test"),
    "hidden": renamed("ledger/lora-s0/.x"), "elsewhere": renamed("ledger/other/x"),
    "twice slashed": renamed("ledger/lora-s0//x"), "link": linked, "edited": edited, "longer": longer,
    "extra": extra, "twice": twice, "fewer": fewer, "no manifest": no_manifest,
    "no config": configless, "edited config": edited_config, "deep manifest": deep_manifest,
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_changed_pack_writes_nothing(what: str, runs: list[RunDir], tmp_path: Path) -> None:
    pack(runs, tmp_path / "r.tar")
    with tarfile.open(tmp_path / "r.tar") as archive:
        members = [(member, file.read()) for member in archive if (file := archive.extractfile(member))]
    BAD[what](members)
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(InputError, match=r"bad\.tar") as raised:
        unpack(tmp_path / "bad.tar", tmp_path / "inside/b", tmp_path)
    assert ".unpack-" not in str(raised.value)
    assert list((tmp_path / "inside").rglob("*")) == [tmp_path / "inside/b"]
    assert not Path("/moextend-pack-test").exists()


@pytest.mark.parametrize("suffix", [".tar.zst", ".tar.gz", ".tar"])
def test_damaged_bytes_are_one_clear_error(suffix: str, runs: list[RunDir], tmp_path: Path) -> None:
    source = tmp_path / f"r{suffix}"
    pack(runs[:1], source)
    good = source.read_bytes()
    draw, refused = random.Random(0), 0
    for number in range(60):
        bad = bytearray(good)
        if number % 2:
            bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        else:
            del bad[draw.randrange(len(bad)) :]
        source.write_bytes(bad)
        there = tmp_path / f"b{number}"
        try:
            unpack(source, there, tmp_path)
        except InputError:
            refused += 1
            assert list(there.iterdir()) == []
        else:  # padding, or a bit that no byte of a file depends on
            assert (there / "ledger/lora-s0/scores.jsonl").read_bytes() == (
                runs[0].folder / "scores.jsonl"
            ).read_bytes()
    assert refused > 40


def test_an_existing_file_is_replaced_by_equal_bytes_only(runs: list[RunDir], tmp_path: Path) -> None:
    out = tmp_path / "r.tar"
    pack(runs[:1], out)
    before = out.read_bytes()
    pack(runs[:1], out)
    with pytest.raises(InputError, match=r"--out .*r\.tar: already exists with other content"):
        pack(runs, out)
    assert out.read_bytes() == before and [path.name for path in tmp_path.glob("*r.tar*")] == ["r.tar"]


def test_a_pack_is_no_run(runs: list[RunDir], tmp_path: Path) -> None:
    pack(runs, tmp_path / "r.tar.zst")
    with pytest.raises(InputError, match=r"is a pack of runs.*moextend bench unpack .*r\.tar\.zst"):
        find_runs(tmp_path, [str(tmp_path / "r.tar.zst")])


def test_other_files_are_no_packs(tmp_path: Path) -> None:
    for name, content in {
        "a.tar": b"",
        "b.tar.gz": b"text",
        "c.tar.zst": b"\0" * 600,
        "d.tar": b"\0" * 10240,
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="not a pack of runs"):
            unpack(tmp_path / name, tmp_path / "b", tmp_path)
    with pytest.raises(InputError, match="no such file"):
        unpack(tmp_path / "none.tar", tmp_path / "b", tmp_path)
    assert MANIFEST == "manifest.json"


def test_the_commands(runs: list[RunDir], tmp_path: Path) -> None:
    run = str(runs[0].folder.parents[1] / "ledger/lora-s0")
    out = tmp_path / "r.tar.zst"
    packed = CliRunner().invoke(app, ["bench", "pack", run, "--out", str(out)])
    assert packed.exit_code == 0 and "1 run," in packed.stdout and packed.stdout.endswith(" kB unpacked)\n")
    assert CliRunner().invoke(app, ["bench", "unpack", str(out), "--out", str(tmp_path / "r")]).exit_code == 0
    whole = str(tmp_path / "whole.tar")
    CliRunner().invoke(app, ["bench", "pack", run, "--weights", "--out", whole])
    found = CliRunner().invoke(app, ["bench", "unpack", whole, "--out", str(tmp_path / "r")])
    assert "To get that, first remove " in found.stdout
    (tmp_path / "w").mkdir()
    for answer in ("wrote ledger/lora-s0", "ledger/lora-s0 is already here"):
        more = ["--workspace", str(tmp_path / "w")]
        found = CliRunner().invoke(app, ["bench", "unpack", str(out), whole, *more])
        assert found.exit_code == 0 and answer in found.stdout


def test_what_belongs_to_a_run_is_packed_and_what_belongs_to_a_machine_is_not(tmp_path: Path) -> None:
    """Whatever its tasks are called; a link is not packed as nothing."""
    (run,) = write_runs(tmp_path / "runs", SHAPE, {"lora": Kind()}, [0])
    (run.folder / "server.log").write_text("/home/me/model")
    stage = run.folder / "stages" / "1-birds-in-flight"
    (stage / "train-in-flight").mkdir(parents=True)
    (stage / "cost.json").write_text("{}")
    (stage / "train-in-flight" / "state.json").write_text("{}")
    manifest = pack([run], tmp_path / "r.tar", unfinished=True)
    names = {path.partition("/")[2].partition("/")[2] for path in manifest.files}
    assert "stages/1-birds-in-flight/cost.json" in names
    assert not any("train-in-flight" in name or name == "server.log" for name in names)
    predictions = run.folder / "predictions"
    predictions.rename(tmp_path / "disk")
    predictions.symlink_to(tmp_path / "disk")
    with pytest.raises(InputError, match="is a link to a folder"):
        pack([run], tmp_path / "other.tar", unfinished=True)
