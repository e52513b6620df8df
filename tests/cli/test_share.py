"""`bench pack`, `unpack` and `export`, called as a user does."""

import io
import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Mapping
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


def _repacked(files: dict[str, bytes], out: str, sizes: Mapping[str, int] | None = None) -> None:
    """Writes a pack with these contents, and a manifest that fits them; `sizes` are stated instead of the real ones."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {
        name: {"bytes": (sizes or {}).get(name, len(content)), "sha256": sha256(content).hexdigest()}
        for name, content in files.items()
        if name != "manifest.json"
    }
    files = {**files, "manifest.json": json.dumps(manifest).encode()}
    with (
        Path(out).open("wb") as file,
        zstandard.ZstdCompressor().stream_writer(file) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


PAGE, PACKS = DOCS / "howto" / "share.md", DOCS / "results" / "packs"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a sequence `tiny`, in the workspace."""
    monkeypatch.setattr(ledger, "config", partial(ledger.config, name="tiny"))
    ledger.write_runs(tmp_path / "runs", ledger.Shape(items=10, stages=2), {"lora": ledger.Kind()}, (0, 1))


@pytest.mark.slow  # runs every command of the page; a report and a leaderboard are among them
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
        # Random answers are no submission.
        assert done.code == (words[:2] == ["bench", "verify"]), f"{line}\n{done.err}"
    results = sorted(path.parent.name for path in (tmp_path / "results").rglob("results_*.json"))
    assert results == [f"tiny__lora-s{seed}__stage-{stage}" for seed in (0, 1) for stage in (0, 1, 2)]


def test_damaged_runs_are_left_out_with_a_note(cli: Cli, runs: None, tmp_path: Path) -> None:
    (tmp_path / "runs/tiny/lora-s0/scores.jsonl").write_text("no\n")
    done = cli("bench", "report", "--format", "lm-eval", "--out", "x")
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
    first = list(files)[1]
    files[first] = bytes(written)
    _repacked(files, "bomb.tar.zst", {first: stated})
    Path("there").mkdir()
    done = cli("bench", "unpack", "bomb.tar.zst", "-w", "there")
    assert done.code == 2 and message in done.err
    assert not any(path.is_file() for path in Path("there").rglob("*"))


def test_a_leaderboard_is_made_of_files_and_folders_of_packs(cli: Cli, runs: None, tmp_path: Path) -> None:
    (tmp_path / "packs/deeper").mkdir(parents=True)
    assert cli("bench", "pack", "lora-s0", "-o", "packs/deeper/a.tar.zst").code == 0
    assert cli("bench", "pack", "lora-s1", "-o", "b.tar.zst").code == 0
    done = cli("bench", "leaderboard", "packs", "b.tar.zst", "packs/deeper/a.tar.zst", "--out", "site")
    assert done.code == 0, done.err
    assert re.fullmatch(r"wrote site/index.html: 1 sequence, 2 runs of 2 packs, \d\.\d MB\n", done.out)
    assert (tmp_path / "site/index.html").stat().st_mode & 0o444 == 0o444
    again = cli("bench", "leaderboard", "packs", "--out", "site")
    assert again.code == 2 and "site: already exists. Name a new folder" in again.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.tar.zst", "cut.tar.zst: not a pack of runs, or a damaged one"),
        ("text.tar.zst", "text.tar.zst: not a pack of runs, or a damaged one"),
        ("notes.txt", "'notes.txt' does not have the suffix of a pack"),
        ("gone.tar.zst", "gone.tar.zst: no such file"),
        ("empty", "empty: holds no pack"),
        ("runs", "runs: holds no pack"),
    ],
)
def test_what_is_no_pack_makes_no_leaderboard(
    cli: Cli, runs: None, tmp_path: Path, name: str, message: str
) -> None:
    assert cli("bench", "pack", "lora-s0", "-o", "x.tar.zst").code == 0
    Path("cut.tar.zst").write_bytes(Path("x.tar.zst").read_bytes()[:900])
    for text in ("text.tar.zst", "notes.txt"):
        Path(text).write_text("no pack")
    Path("empty").mkdir()
    done = cli("bench", "leaderboard", "x.tar.zst", name, "--out", "site")
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1
    assert not Path("site").exists()


def test_a_run_that_no_report_takes_makes_no_leaderboard(cli: Cli, runs: None, tmp_path: Path) -> None:
    assert cli("bench", "pack", "tiny", "-o", "x.tar.zst").code == 0
    with tarfile.open(fileobj=opened("x.tar.zst")) as archive:
        files = {member.name: file.read() for member in archive if (file := archive.extractfile(member))}
    scores = "tiny/lora-s0/scores.jsonl"
    files[scores] = files[scores].replace(b'"value": ', b'"value": 1', 1)
    _repacked(files, "edited.tar.zst")
    done = cli("bench", "leaderboard", "edited.tar.zst", "--out", "site")
    assert done.code == 2 and "edited.tar.zst: no report takes lora-s0 (damaged" in done.err
    assert not Path("site").exists()
