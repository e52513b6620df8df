"""The code of docs/library.md runs in order and prints the printed output."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "library.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_page_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 5
    names: dict[str, object] = {}
    for block in BLOCKS:
        capsys.readouterr()
        exec(compile(block, str(PAGE), "exec"), names)
        output = re.findall(r"print\(.*\)  # (.*)$|^ +# (.*)$", block, re.MULTILINE)
        assert capsys.readouterr().out.splitlines() == [after or below for after, below in output]
