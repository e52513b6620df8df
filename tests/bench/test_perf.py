"""The measurement of speed: what it measures, and its table."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import moextend
from moextend.bench.perf import __main__ as main
from moextend.bench.perf import gpu
from moextend.bench.perf import measure as perf
from moextend.errors import InputError, UnknownName


@pytest.mark.slow  # four trainings
def test_steps_and_answers_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    size, measured = perf.Size(lambda: moextend.load("tiny"), 32, 2, 1), list[perf.Row]()
    measure = perf.measure

    def kept(*given: Any) -> perf.Row:
        measured.append(measure(*given))
        return measured[-1]

    monkeypatch.setitem(perf.SIZES, "tiny", size)
    monkeypatch.setattr(main, "quiet_process", lambda: None)  # it is for good
    cached = f"{main.EXACT}{perf.CACHED}"
    monkeypatch.setattr(main, "METHODS", (perf.TRANSFORMERS, "full-ft", main.EXACT, cached))
    monkeypatch.setattr(main, "measure", kept)
    done = CliRunner().invoke(main.app, ["--size", "tiny"])
    assert done.exit_code == 0 and "| full-ft |" in done.stdout, done.output
    plain, full, exact, late = measured
    weights = moextend.load("tiny").lm.num_parameters()
    assert plain.trained == full.trained == weights > 10 * exact.trained > 0
    assert full.operations == pytest.approx(plain.operations, rel=0.02)
    assert full.operations > exact.operations > late.operations > 0
    assert 3 < plain.peak_mb / (4e-6 * weights) < 6, "gradients, two moments, activations"
    assert exact.peak_mb < 0.5 * full.peak_mb
    assert all(min(row.seconds, row.prefill) > 0 for row in measured)
    assert all(0.9 < row.estimated_mb / row.peak_mb < 1.3 for row in (plain, full)), "docs/gpu.md"


@pytest.mark.slow  # six trainings
def test_a_device_is_measured_and_compared_with_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(perf.SIZES, "tiny", perf.Size(lambda: moextend.load("tiny"), 64, 1, 1))
    monkeypatch.setattr(gpu, "CHECKED", ((False, "lora:rank=8"), (True, "moextend:scope=own,layers=last")))
    monkeypatch.setattr(gpu, "ROUTINGS", gpu.ROUTINGS[1:2])
    lines = "\n".join(gpu.check("cpu", ["tiny"])).splitlines()
    assert lines[0] == "### cpu" and f"torch {torch.__version__}" in lines[2]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| tiny | ")
    ]
    assert [row[:3] for row in rows] == [
        ["tiny", "float32", "lora:rank=8"], ["tiny", "bfloat16", "moextend:scope=own,layers=last"],
    ]  # fmt: skip
    assert all(float(row[3]) > 0 and 0.5 < float(row[7]) / float(row[6]) < 2 for row in rows)
    assert "| moextend:scope=own,routing=slot | 0.0e+00 | 0.0e+00 | 8 of 8 | equal |" in lines


def test_what_differs_from_the_cpu_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = perf.opened

    def other(size: perf.Size, device: perf.Device) -> Any:
        model, ids = opened(size, device)
        if device is not perf.CPU:
            model.lm.get_output_embeddings().weight.data.mul_(-1.01)
        return model, ids

    monkeypatch.setattr(gpu, "opened", other)
    monkeypatch.setitem(perf.SIZES, "tiny", perf.Size(lambda: moextend.load("tiny"), 8, 1, 1))
    logits, loss, answers, off = gpu.compared(gpu.ROUTINGS[0], perf.Device("cpu", bf16=False))
    assert float(logits) > 1 and float(loss) > 0 and answers != "8 of 8" and off == "equal"


def test_without_a_gpu_the_check_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(main, "quiet_process", lambda: None)
    done = CliRunner().invoke(main.app, ["--gpu-check"])
    assert isinstance(done.exception, InputError) and "no CUDA device" in str(done.exception)


def test_an_unknown_size_is_refused() -> None:
    done = CliRunner().invoke(main.app, ["--size", "mit"])
    assert isinstance(done.exception, UnknownName) and "Did you mean 'mid'" in str(done.exception)
