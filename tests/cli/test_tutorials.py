"""The tutorials run as printed, one block after the other, and give the printed results."""

from __future__ import annotations

from csv import DictReader
from io import StringIO
from pathlib import Path

import pytest

from tests.cli.pages import TUTORIALS, Shell


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], forked_workers: str
) -> Shell:
    """Does what a page says in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return Shell(capfd, monkeypatch)


def read(page: str) -> str:
    return (TUTORIALS / page).read_text(encoding="utf-8")


@pytest.mark.slow  # two runs of two stages: some 10 seconds of CPU
def test_the_forgetting_table(shell: Shell) -> None:
    shell.follow(read("forgetting-table.md"))
    cells = shell.command("moextend bench report matrix --format csv")
    score = {
        (row["method"], int(row["stage"]), row["task"]): float(row["value"])
        for row in DictReader(StringIO(cells))
    }
    learned, final = (score["full-ft", stage, "colors"] for stage in (1, 2))
    assert final < learned - 20, "full fine-tuning forgets"
    learned, final = (score["moextend:scope=auto", stage, "colors"] for stage in (1, 2))
    assert learned > 80 and final > learned - 5, "MoExtend keeps"
    assert "toprule" in "".join(path.read_text() for path in Path("tables").iterdir())
