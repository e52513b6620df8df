"""`bench report --against`: runs of packs beside those of the workspace."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from moextend.bench.report import packs
from moextend.bench.run.pack import pack
from moextend.bench.run.rundir import find_runs
from tests.bench import ledger
from tests.cli.conftest import Cli

SHAPE = ledger.Shape(items=10, stages=2)


@pytest.fixture(autouse=True)
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with packs of two sequences, which are the published ones; own runs are of the first."""
    folder = tmp_path / "published"
    folder.mkdir()
    for name in ("ledger", "other"):
        monkeypatch.setattr(ledger, "config", partial(_config, name=name))
        methods = {"lora": ledger.Kind(), "full-ft": ledger.Kind(keeps=0.1)}
        made = ledger.write_runs(tmp_path / f"theirs-{name}", SHAPE, methods, (0, 1))
        pack(made, folder / f"{name}.tar.zst", predictions=False)
    monkeypatch.setattr(ledger, "config", _config)
    ledger.write_runs(tmp_path / "runs", SHAPE, {"ewc": ledger.Kind(learned=0.9)}, (0, 1))
    monkeypatch.setattr(packs, "published", lambda: sorted(folder.glob("*.tar.zst")))
    return folder


_config = ledger.config


def rows(out: str) -> set[str]:
    return {line.split(",")[1] for line in out.splitlines()}


def test_own_runs_stand_between_those_of_packs(cli: Cli, tmp_path: Path) -> None:
    done = cli("bench", "report", "--against", "published")
    assert done.code == 0, done.err
    assert all(f" {name} " in done.out for name in ("ewc", "lora", "full-ft"))
    assert "other:" not in done.out, "only the sequences of own runs"
    assert "Of this workspace: ewc. Other runs are of packs." in done.out
    tested = cli("bench", "report", "--baseline", "lora", "--against", "published", "-f", "csv")
    assert tested.code == 0 and {"ewc", "full-ft"} <= rows(tested.out), tested.err
    for view in ("matrix", "tasks", "text", "costs"):
        shown = cli("bench", "report", view, "--against", "published", "-f", "csv")
        assert shown.code == 0 and "full-ft" in shown.out and "ewc" in shown.out, f"{view}: {shown.err}"
    assert cli("bench", "report", "--against", "published", "-f", "html", "-o", "page.html").code == 0
    assert "full-ft" in Path("page.html").read_text("utf-8")
    items = cli("bench", "report", "items", "--against", "published", "-f", "csv")
    assert items.code == 0 and ",full-ft," in items.out and ",ewc," in items.out
    assert {run.folder.name for run in find_runs(tmp_path / "runs")} == {"ewc-s0", "ewc-s1"}


def test_a_run_that_is_here_and_in_a_pack_counts_once(cli: Cli, tmp_path: Path, published: Path) -> None:
    ledger.write_runs(tmp_path / "runs", SHAPE, {"lora": ledger.Kind()}, (1, 2))
    done = cli("bench", "report", "-f", "markdown", "--against", str(published / "ledger.tar.zst"))
    assert "lora: 0, 1, 2" in done.out and "the same run as" not in done.out, done.out
    assert "Of this workspace: ewc; lora (seed 1, 2). Other" in done.out


def test_a_sequence_that_only_packs_have(cli: Cli, published: Path) -> None:
    done = cli("bench", "report", "other", "--against", str(published))
    assert done.code == 0 and done.out.startswith("other:") and "Of this workspace: none." in done.out
    done = cli("bench", "report", "third", "--against", str(published))
    assert done.code == 2 and "no run 'third'" in done.err


def test_without_published_packs_one_line_says_where_they_are(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(packs, "published", list[Path])
    done = cli("bench", "report", "--against", "published")
    assert done.code == 2 and done.err == (
        "error: --against: the published packs are not part of an installed wheel. Name docs/results/packs of a clone "
        "or of the source distribution: --against FOLDER.\n"
    )
    (tmp_path / "empty").mkdir()
    assert "holds no pack" in cli("bench", "report", "--against", "empty").err
    assert "no such file" in cli("bench", "report", "--against", "nowhere.tar.zst").err
    assert "does not have the suffix of a pack" in cli("bench", "report", "--against", "nowhere").err
