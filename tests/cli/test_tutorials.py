"""The tutorials run as printed, one block after the other, and give the printed results."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Callable
from csv import DictReader
from io import StringIO
from pathlib import Path

import pytest

from moextend.cli import main

PAGES = Path(__file__).parents[2] / "docs" / "tutorials"
BLOCK = re.compile(r'^```(\w+)(?: title="(\S+)")?\n(.*?)^```$', flags=re.DOTALL | re.MULTILINE)

Follow = Callable[[str], list[tuple[str, str]]]
"""Does what a page says: name of the page -> [(line, what it printed)]."""


def run_line(line: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a line of a shell prints; `moextend` and `python` are run in this process, which saves their imports."""
    program, *words = shlex.split(line)
    capfd.readouterr()
    if program == "python":
        runpy.run_path(words[0], run_name="__main__")
    else:
        assert program == "moextend", line
        monkeypatch.setattr(sys, "argv", [program, *words])
        with pytest.raises(SystemExit) as end:
            main.run()
            sys.exit(0)
        assert end.value.code in (0, None), f"{line}\n{capfd.readouterr().err}"
    return capfd.readouterr().out


@pytest.fixture
def follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], forked_workers: str
) -> Follow:
    """Does what a page says in an empty folder: name of the page -> [(line, what it printed)]."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def followed(page: str) -> list[tuple[str, str]]:
        done = []
        for language, title, text in BLOCK.findall((PAGES / page).read_text(encoding="utf-8")):
            if title:
                Path(title).parent.mkdir(parents=True, exist_ok=True)
                Path(title).write_text(text, encoding="utf-8")
            elif language == "sh":
                done += [
                    (line, run_line(line, capfd, monkeypatch))
                    for line in text.replace("\\\n", "").splitlines()
                ]
            else:
                assert language == "text", "a block is a file with a title, commands (sh), or output (text)"
        return done

    return followed


@pytest.mark.slow  # two runs of two stages: some 10 seconds of CPU
def test_the_forgetting_table(
    follow: Follow, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    follow("forgetting-table.md")
    cells = run_line("moextend bench report --matrix --format csv", capfd, monkeypatch)
    score = {
        (row["method"], int(row["stage"]), row["task"]): float(row["value"])
        for row in DictReader(StringIO(cells))
    }
    learned, final = (score["full-ft", stage, "colors"] for stage in (1, 2))
    assert final < learned - 20, "full fine-tuning forgets"
    learned, final = (score["moextend:scope=auto", stage, "colors"] for stage in (1, 2))
    assert learned > 80 and final > learned - 5, "MoExtend keeps"
    assert "toprule" in "".join(path.read_text() for path in Path("tables").iterdir())


@pytest.mark.slow  # a training and four loaded models: some 10 seconds of CPU
def test_the_skill(follow: Follow) -> None:
    done = follow("skill.md")
    before, after = (out.strip() for line, out in done if line.startswith("moextend generate"))
    assert before != "E" and after == "E"
    output = dict(line.split(": ") for line in done[-1][1].splitlines())
    assert output["base"] == output["switched off"] == "0"
    assert int(output["with the extension"]) >= 95 and int(output["chosen by the input"]) >= 90
    assert output["base untouched"] == "True []"
