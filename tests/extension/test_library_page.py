"""The code of docs/library.md and docs/modalities.md runs in order and prints the printed output."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from moextend.data import modalities

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("page", "count"), [("library", 5), pytest.param("modalities", 5, marks=pytest.mark.long)]
)
def test_the_page_runs_as_it_stands(
    page: str,
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(modalities, "_TYPES", dict(modalities._TYPES))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == count
    names: dict[str, object] = {"__name__": page}
    for block in blocks:
        capsys.readouterr()
        exec(compile(block, page, "exec"), names)
        output = re.findall(r"print\(.*\)  # (.*)$|^ +# (.*)$", block, re.MULTILINE)
        assert capsys.readouterr().out.splitlines() == [after or below for after, below in output]
