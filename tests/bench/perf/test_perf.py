"""The measurement of speed: what it measures, its tables, and its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import moextend
from moextend.bench.perf import __main__ as command
from moextend.bench.perf import steps
from moextend.errors import InputError, UnknownName

PAGE = "# Speed\n\n<!-- perf -->\nold\n<!-- /perf -->\nmore\n"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    size = steps.Size("small", lambda: moextend.load("tiny"), rows=2, length=32, new_tokens=2, repeats=1)
    monkeypatch.setitem(steps.SIZES, "tiny", size)
    monkeypatch.setattr("moextend.util.quiet.quiet_process", lambda: None)  # it is for good
    cached = f"{steps.EXACT}{steps.CACHED}"
    monkeypatch.setattr(command, "METHODS", (steps.TRANSFORMERS, "full-ft", steps.EXACT, cached))


@pytest.mark.slow  # four trainings
def test_steps_and_answers_are_measured_and_put_into_a_page(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    out, page = str(tmp_path / "out.json"), str(tmp_path / "page.md")
    done = CliRunner().invoke(command.app, ["--size", "tiny", "--out", out, "--write", page])
    assert done.exit_code == 0, done.output
    plain, full, exact, cached = json.loads((tmp_path / "out.json").read_text())["tiny"]
    weights = moextend.load("tiny").lm.num_parameters()
    assert plain["trained"] == full["trained"] == weights > 10 * exact["trained"] > 0
    assert full["operations"] == pytest.approx(plain["operations"], rel=0.02)
    assert full["operations"] > exact["operations"] > cached["operations"] > 0
    assert 3 < plain["peak_mb"] / (4e-6 * weights) < 6, "gradients, two moments, activations"
    assert exact["peak_mb"] < 0.5 * full["peak_mb"]
    assert all(min(row["seconds"], row["prefill"]) > 0 for row in (plain, full, exact, cached))
    written = (tmp_path / "page.md").read_text()
    assert written.startswith("# Speed\n\n<!-- perf -->\n\n`python -m moextend.bench.perf")
    assert written.endswith("<!-- /perf -->\nmore\n") and "| full-ft |" in written and "old" not in written


def test_what_cannot_be_measured_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(steps, "find_spec", lambda name: None)
    done = CliRunner().invoke(command.app, ["--size", "smollm2"])
    assert done.exit_code == 0 and "smollm2: SKIPPED, it needs: pip install gguf" in done.output
    for words, message in (("--size mit", "Did you mean 'mid'"), ("--dtype float8", "no dtype 'float8'")):
        done = CliRunner().invoke(command.app, words.split())
        assert isinstance(done.exception, UnknownName) and message in str(done.exception)
    (tmp_path / "page.md").write_text("no marks")
    with pytest.raises(InputError, match="<!-- /perf --> behind it"):
        command._write(tmp_path / "page.md", [])
