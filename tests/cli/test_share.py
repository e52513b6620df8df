"""`bench pack`, `unpack` and `export`, called as a user does."""

import io
import json
import re
import shlex
import shutil
import tarfile
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard

from moextend.bench.run.rundir import signed
from tests.bench import ledger
from tests.cli.conftest import Cli

DOCS = Path(__file__).parents[2] / "docs"


def opened(path: str) -> io.BytesIO:
    """The archive in a pack."""
    with Path(path).open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as content:
        return io.BytesIO(content.read())


PAGE, PACKS = DOCS / "howto" / "share.md", DOCS / "results" / "packs"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a sequence `tiny`, in the workspace."""
    monkeypatch.setattr(ledger, "config", partial(ledger.config, name="tiny"))
    ledger.write_runs(tmp_path / "runs", ledger.Shape(items=10, stages=2), {"lora": ledger.Kind()}, (0, 1))


def test_the_page_does_what_it_says(cli: Cli, runs: None, tmp_path: Path) -> None:
    text = PAGE.read_text("utf-8")
    shutil.copytree(PACKS, tmp_path / "docs/results/packs")
    for line in "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)).splitlines():
        program, *words = shlex.split(line, comments=True)
        if program == "mkdir":
            Path(*words).mkdir()
            continue
        words = [path for word in words for path in sorted(map(str, Path().glob(word))) or [word]]
        # The published runs are not trained again.
        done = cli(*words, *(["--dry-run"] if words[:2] == ["bench", "run"] else []))
        assert done.code == 0, f"{line}\n{done.err}"
    results = sorted(path.parent.name for path in (tmp_path / "results").rglob("results_*.json"))
    assert results == [f"tiny__lora-s{seed}__stage-{stage}" for seed in (0, 1) for stage in (0, 1, 2)]


def test_damaged_runs_are_left_out_with_a_note(cli: Cli, runs: None, tmp_path: Path) -> None:
    (tmp_path / "runs/tiny/lora-s0/scores.jsonl").write_text("no\n")
    done = cli("bench", "export", "--out", "x")
    assert done.code == 0 and "left out: lora-s0 (damaged" in done.err
    assert done.out == "wrote 3 files of 1 run to x\n"


def _scored_by_a_server(lines: str) -> str:
    first, *others = lines.splitlines(keepends=True)
    return json.dumps(signed({**json.loads(first), "backend": "openai"})) + "\n" + "".join(others)


def test_what_no_report_takes_is_not_packed(cli: Cli, runs: None, tmp_path: Path) -> None:
    path = tmp_path / "runs/tiny/lora-s0/scores.jsonl"
    whole = path.read_text()
    for text, message in (
        ("nonsense\n" + whole, "not valid JSON"),
        (_scored_by_a_server(whole), "without a parity check"),
    ):
        path.write_text(text)
        for options in ((), ("--no-predictions",)):
            done = cli("bench", "pack", "tiny", "-o", "x.tar.zst", *options)
            assert done.code == 2 and message in done.err and not Path("x.tar.zst").exists()
        assert cli("bench", "report", "lora-s0").code == 2
        assert cli("bench", "pack", "lora-s1", "-o", "y.tar.zst").code == 0
    path.write_text(whole)
    done = cli("bench", "pack", "tiny", "-o", "x.tar.zst")
    with tarfile.open(fileobj=opened("x.tar.zst")) as archive:
        size = sum(member.size for member in archive.getmembers()[1:])
    assert done.code == 0 and f"({size / 1e6:,.1f} MB unpacked)" in done.out


@pytest.mark.parametrize(
    ("stated", "written", "message"),
    [
        (80_000_000, 80_000_000, "runs become at most 67,108,864"),
        (1 << 50, 1, "runs become at most 67,108,864"),
        (1_000, 80_000_000, "does not match its manifest"),
    ],
)
def test_a_pack_that_would_become_much_more_is_refused(
    cli: Cli, runs: None, tmp_path: Path, stated: int, written: int, message: str
) -> None:
    assert cli("bench", "pack", "tiny", "-o", "x.tar.zst").code == 0
    with tarfile.open(fileobj=opened("x.tar.zst")) as archive:
        files = {member.name: file.read() for member in archive if (file := archive.extractfile(member))}
    name, *others = files
    manifest = json.loads(files[name])
    files[others[0]] = bytes(written)
    manifest["files"][others[0]] = {"bytes": stated, "sha256": sha256(files[others[0]]).hexdigest()}
    files[name] = json.dumps(manifest).encode()
    with (
        Path("bomb.tar.zst").open("wb") as out,
        zstandard.ZstdCompressor().stream_writer(out) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    Path("there").mkdir()
    done = cli("bench", "unpack", "bomb.tar.zst", "-w", "there")
    assert done.code == 2 and message in done.err
    assert not any(path.is_file() for path in Path("there").rglob("*"))
