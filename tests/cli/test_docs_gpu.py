"""The estimate on the GPU page equals the output of its command, and the conclusions follow from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import preloaded

PAGE = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- (\S+) -->\n```\w+\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))


@pytest.mark.long
def test_the_page_quotes_what_the_dry_run_says(fork_server: str, tmp_path: Path) -> None:
    """In another process: the data sets of this one may be made smaller for other tests."""
    (tmp_path / "olmoe").mkdir()
    for name in ("olmoe/config.json", "olmoe.yaml"):
        (tmp_path / name).write_text(FILES[name])
    assert "`moextend bench run olmoe.yaml --dry-run`" in PAGE
    words = ("bench", "run", "olmoe.yaml", "--dry-run")
    code = preloaded.run(fork_server, str(tmp_path), str(tmp_path / "output"), *words, COLUMNS="100")
    printed = (tmp_path / "output").read_text()
    assert code == 0, printed
    assert printed[printed.index("Estimated from shapes") :] == FILES["estimate"]
    peaks = re.findall(r"^  (\S+)-s0: .*\n    memory: training ([\d.]+) GB", printed, flags=re.MULTILINE)
    peak = {text: float(gb) for text, gb in peaks}
    assert peak["full-ft"] > 85, "does not fit 80 GiB"
    assert peak["lora"] < 40 and peak["moextend+scope-own"] < 40
    assert "not measured" in FILES["estimate"]
