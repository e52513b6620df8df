"""The measurement of speed: what it measures, and its table."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

import moextend
from moextend.bench import perf
from moextend.errors import UnknownName


@pytest.mark.slow  # four trainings
def test_steps_and_answers_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    size, measured = perf.Size(lambda: moextend.load("tiny"), 32, 2, 1), list[perf.Row]()
    measure = perf.measure

    def kept(*given: Any) -> perf.Row:
        measured.append(measure(*given))
        return measured[-1]

    monkeypatch.setitem(perf.SIZES, "tiny", size)
    monkeypatch.setattr("moextend.util.quiet.quiet_process", lambda: None)  # it is for good
    cached = f"{perf.EXACT}{perf.CACHED}"
    monkeypatch.setattr(perf, "METHODS", (perf.TRANSFORMERS, "full-ft", perf.EXACT, cached))
    monkeypatch.setattr(perf, "measure", kept)
    done = CliRunner().invoke(perf.app, ["--size", "tiny"])
    assert done.exit_code == 0 and "| full-ft |" in done.stdout, done.output
    plain, full, exact, late = measured
    weights = moextend.load("tiny").lm.num_parameters()
    assert plain.trained == full.trained == weights > 10 * exact.trained > 0
    assert full.operations == pytest.approx(plain.operations, rel=0.02)
    assert full.operations > exact.operations > late.operations > 0
    assert 3 < plain.peak_mb / (4e-6 * weights) < 6, "gradients, two moments, activations"
    assert exact.peak_mb < 0.5 * full.peak_mb
    assert all(min(row.seconds, row.prefill) > 0 for row in measured)


def test_an_unknown_size_is_refused() -> None:
    done = CliRunner().invoke(perf.app, ["--size", "mit"])
    assert isinstance(done.exception, UnknownName) and "Did you mean 'mid'" in str(done.exception)
