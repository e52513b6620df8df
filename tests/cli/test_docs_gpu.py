"""The estimate on the GPU page equals the output of its command, and the conclusions follow from it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- (\S+) -->\n```\w+\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))


@pytest.mark.slow
def test_the_page_quotes_what_the_dry_run_says(tmp_path: Path) -> None:
    """In a process of its own: the data sets of this one may be made smaller for other tests."""
    (tmp_path / "olmoe").mkdir()
    for name in ("olmoe/config.json", "olmoe.yaml"):
        (tmp_path / name).write_text(FILES[name])
    assert "`moextend bench run olmoe.yaml --dry-run`" in PAGE
    command = [sys.executable, "-P", "-m", "moextend.cli.main", "bench", "run", "olmoe.yaml", "--dry-run"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    begin = done.stdout.index("Estimated from shapes")
    assert done.stdout[begin:] == FILES["estimate"]
    peaks = re.findall(r"^  (\S+)-s0: .*\n    memory: training ([\d.]+) GB", done.stdout, flags=re.MULTILINE)
    peak = {text: float(gb) for text, gb in peaks}
    assert peak["full-ft"] > 85, "does not fit 80 GiB"
    assert peak["lora"] < 40 and peak["moextend+scope-own"] < 40
    assert "not measured" in FILES["estimate"]
