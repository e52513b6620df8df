"""`moextend serve --vllm`: images, task inference and scoring of runs, with tokens by vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.rundir import RunDir
from tests.bench.small import answers, finished

from . import small

pytest.importorskip("vllm", reason="vLLM is not here: run by make test-vllm")

SEQUENCE = """
sequence: small
version: 1
base: {{model: {base}, vision: tiny}}
align: {{task: tiny-captions, steps: 4, batch_size: 4, learning_rate: 3.0e-3}}
stages: [{{task: tiny-counting}}]
retention: [tiny-facts, tiny-agreement]
train: {{steps: 12, batch_size: 8, learning_rate: 1.0e-2}}
scoring: {{batch_size: 10, limit: 40}}
"""


def numbers(run: RunDir) -> dict[Any, Any]:
    """(stage, task) -> score and weights."""
    return {key: (cell.value, cell.weights) for key, cell in run.cells().items()}


@pytest.mark.parametrize(
    "family, method",
    [("mixtral", "moextend:scope=auto"), ("olmoe", "moextend:scope=all"), ("mixtral", "full-ft")],
)
def test_a_run_that_vllm_scores_has_the_numbers_of_one_in_process(
    family: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    small.made_base(family, tmp_path / "base")
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "small.yaml").write_text(SEQUENCE.format(base=tmp_path / "base"))
    plain = finished(tmp_path, method, "plain")
    served = finished(tmp_path, method, "served", backend={"backend": "vllm", "parity": 4})
    assert numbers(served) == numbers(plain) and answers(served) == answers(plain)
    by_vllm = {key for key, cell in served.cells().items() if cell.backend == "openai"}
    texts = {(stage, task) for stage in (0, 1) for task in ("tiny-facts", "tiny-agreement")}
    assert by_vllm == texts | ({(1, "tiny-counting")} if method != "full-ft" else set())
    learned = [one for one in served.parities().values() if one.stage == 1]
    assert all(one.weights.difference < 1e-5 for one in learned)
    if method == "moextend:scope=auto":
        assert {one.weights.by for one in learned} == {"fingerprint"}
