"""Runs as one file: unpacking gives the same files, or nothing."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard

from moextend.bench.report import How, render, tables
from moextend.bench.report.collect import collect
from moextend.bench.report.frame import frame
from moextend.bench.run.complete import lacks
from moextend.bench.run.pack import pack, unpack
from moextend.bench.run.rundir import RunDir, find_runs
from moextend.errors import InputError, RunConflict
from tests.bench.ledger import Kind, Shape, write_runs

SHAPE = Shape(stages=2, texts=1, items=20)


@pytest.fixture
def runs(tmp_path: Path) -> list[RunDir]:
    return write_runs(tmp_path / "a/runs", SHAPE, {"lora": Kind(), "full-ft": Kind(keeps=0.1)}, [0, 1])


def opened(path: Path) -> io.BytesIO:
    """The archive in a pack."""
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as content:
        return io.BytesIO(content.read())


def report(folder: Path) -> str:
    return render(tables(collect(find_runs(folder)), "comparison", How("lora")), "csv")


def test_an_unpacked_run_reports_the_same(runs: list[RunDir], tmp_path: Path) -> None:
    out, there = tmp_path / "r.tar.zst", tmp_path / "b/runs"
    manifest = pack(runs, out)
    assert len(manifest.runs) == 4 and not any(path.endswith(".safetensors") for path in manifest.files)
    found = unpack(out, there, tmp_path / "b")
    assert len(found.written) == 4 and found.known == []
    assert report(there) == report(tmp_path / "a/runs")
    assert lacks(RunDir(found.written[0])) == [] and RunDir(found.written[0]).left_out == ["weights"]
    again = unpack(out, there, tmp_path / "b")
    assert (len(again.written), len(again.known)) == (0, 4)
    assert sorted(path.name for path in there.iterdir()) == ["ledger"]


def test_a_pack_without_predictions_gives_the_same_tables(runs: list[RunDir], tmp_path: Path) -> None:
    manifest = pack(runs, tmp_path / "r.tar.zst", predictions=False)
    assert not manifest.predictions and not any("predictions/" in path for path in manifest.files)
    there = tmp_path / "b/runs"
    folders = unpack(tmp_path / "r.tar.zst", there, tmp_path / "b").written
    assert all(RunDir(folder).left_out == ["predictions", "weights"] for folder in folders)
    assert not any(lacks(RunDir(folder)) for folder in folders), "bench run leaves them as they are"
    with pytest.raises(InputError, match=r"is from a pack without predictions\. Add --no-predictions"):
        pack(find_runs(there), tmp_path / "again.tar.zst")
    order = [RunDir(folder) for folder in folders]
    pack(order, tmp_path / "again.tar.zst", predictions=False)
    assert (tmp_path / "again.tar.zst").read_bytes() == (tmp_path / "r.tar.zst").read_bytes()
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


def test_item_scores_that_are_missing_or_were_edited_are_not_tested(
    runs: list[RunDir], tmp_path: Path
) -> None:
    pack(runs, tmp_path / "r.tar.zst", predictions=False)
    folders = unpack(tmp_path / "r.tar.zst", tmp_path / "b", tmp_path).written
    for index, folder in enumerate(folders):
        path = folder / "items.json"
        text = path.read_text()
        # The mean stays: only the digest tells.
        path.write_text(text.replace("0,1", "1,0", 1) if index else text.replace('"scores"', '"points"'))
    assert not compared(tmp_path / "b")
    with pytest.raises(InputError, match="the file is damaged or was edited"):
        pack([RunDir(folders[-1])], tmp_path / "again.tar.zst", predictions=False)
    (found,) = collect(find_runs(tmp_path / "b"))
    shown = render(tables([found], "comparison", How("lora")), "markdown")
    assert "items not kept" in shown and "items.json (damaged: the file is damaged or was edited.)" in str(
        found.results[-1].lacks
    ), shown
    assert "unpacked again" in shown
    for folder in folders:
        (folder / "items.json").unlink()
    assert not compared(tmp_path / "b")


def compared(folder: Path, runs: list[RunDir] | None = None) -> list[dict[str, float]]:
    """The numbers of the tests of differences, of those that could be made."""
    (table,) = tables(collect(runs or find_runs(folder)), "comparison", How("lora"))
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
    pack(runs, tmp_path / "1.tar.zst", weights=True)
    for path in run.folder.rglob("*"):
        path.touch()
    pack(runs[::-1], tmp_path / "2.tar.zst", weights=True)
    assert (tmp_path / "1.tar.zst").read_bytes() == (tmp_path / "2.tar.zst").read_bytes()
    packed = opened(tmp_path / "1.tar.zst").getvalue()
    assert str(tmp_path).encode() not in packed and b"worker.log" not in packed
    with tarfile.open(fileobj=opened(tmp_path / "1.tar.zst")) as archive:
        assert {(member.uid, member.uname, member.mtime) for member in archive} == {(0, "", 0)}


def test_unfinished_runs_and_invalid_names_are_refused(runs: list[RunDir], tmp_path: Path) -> None:
    (runs[0].folder / "status.json").unlink()
    with pytest.raises(InputError, match="not done: ledger/lora-s0"):
        pack(runs, tmp_path / "r.tar.zst")
    assert not (tmp_path / "r.tar.zst").exists()
    with pytest.raises(InputError, match=r"--out: 'r\.zip'"):
        pack(runs[1:], tmp_path / "r.zip")
    with pytest.raises(InputError, match="two runs have the same name"):
        pack([runs[1], runs[1]], tmp_path / "r.tar.zst")
    with pytest.raises(InputError, match="no run to pack"):
        pack([], tmp_path / "r.tar.zst")


def test_another_run_in_the_same_place_is_left_alone(runs: list[RunDir], tmp_path: Path) -> None:
    pack(runs, tmp_path / "r.tar.zst")
    other = write_runs(tmp_path / "b", SHAPE, {"lora": Kind()}, [1])[0]
    before = (other.folder / "scores.jsonl").read_bytes()
    with pytest.raises(RunConflict, match="another run is in this folder"):
        unpack(tmp_path / "r.tar.zst", tmp_path / "b", tmp_path)
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


def extra(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.append((tarfile.TarInfo("ledger/lora-s0/more.json"), b"{}"))


def fewer(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.pop()


def no_manifest(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.pop(0)


def edited_config(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Another config, as its manifest says."""
    place = next(i for i, (info, _) in enumerate(members) if info.name.endswith("/config.json"))
    config, manifest = json.loads(members[place][1]), json.loads(members[0][1])
    config["identity"]["seed"] = 7
    content, info = json.dumps(config).encode(), members[place][0]
    manifest["files"][info.name] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    members[place] = (info, content)
    members[0] = (members[0][0], json.dumps(manifest).encode())


BAD = {
    "up": renamed("ledger/lora-s0/../../../../x"), "absolute": renamed("/moextend-pack-test"),
    "hidden": renamed("ledger/lora-s0/.x"), "elsewhere": renamed("ledger/other/x"), "link": linked, "edited": edited,
    "extra": extra, "fewer": fewer, "no manifest": no_manifest, "edited config": edited_config,
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_changed_pack_writes_nothing(what: str, runs: list[RunDir], tmp_path: Path) -> None:
    pack(runs, tmp_path / "r.tar.zst")
    with tarfile.open(fileobj=opened(tmp_path / "r.tar.zst")) as archive:
        members = [(member, file.read()) for member in archive if (file := archive.extractfile(member))]
    BAD[what](members)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (tmp_path / "bad.tar.zst").write_bytes(zstandard.compress(made.getvalue()))
    with pytest.raises(InputError, match=r"bad\.tar.zst") as raised:
        unpack(tmp_path / "bad.tar.zst", tmp_path / "inside/b", tmp_path)
    assert ".unpack-" not in str(raised.value)
    assert list((tmp_path / "inside").rglob("*")) == [tmp_path / "inside/b"]
    assert not Path("/moextend-pack-test").exists()


def test_damaged_bytes_are_one_clear_error(runs: list[RunDir], tmp_path: Path) -> None:
    source = tmp_path / "r.tar.zst"
    pack(runs[:1], source)
    good = source.read_bytes()
    draw, refused = random.Random(0), 0
    for number in range(40):
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
    assert refused > 30


def test_what_belongs_to_a_run_is_packed_and_what_belongs_to_a_machine_is_not(tmp_path: Path) -> None:
    """A link is not packed as nothing."""
    (run,) = write_runs(tmp_path / "runs", SHAPE, {"lora": Kind()}, [0])
    (run.folder / "server.log").write_text("/home/me/model")
    names = {path.partition("/")[2].partition("/")[2] for path in pack([run], tmp_path / "r.tar.zst").files}
    assert "scores.jsonl" in names and "server.log" not in names
    predictions = run.folder / "predictions"
    predictions.rename(tmp_path / "disk")
    predictions.symlink_to(tmp_path / "disk")
    with pytest.raises(InputError, match="is a link to a folder"):
        pack([run], tmp_path / "other.tar.zst")
