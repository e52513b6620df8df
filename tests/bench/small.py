"""A small sequence on the tiny base in a workspace of its own, and its runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moextend.bench.run import runner
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.rundir import RunDir

SEQUENCE = """
sequence: small
version: 1
base: {{model: tiny, vision: tiny}}
align: {{task: tiny-captions, steps: 2, batch_size: 4, learning_rate: 3.0e-3}}
stages: [{stages}]
retention: [{retention}]
train: {{steps: {steps}, batch_size: {batch_size}, learning_rate: 5.0e-3}}
scoring: {{batch_size: {together}, limit: {limit}}}
"""


def small_workspace(
    folder: Path,
    stages: Sequence[str],
    retention: Sequence[str],
    *,
    limit: int,
    steps: int = 4,
    batch_size: int = 4,
    together: int = 10,
) -> Path:
    """Writes the sequence `small` into a folder.

    Args:
        limit: scored items of a task, of which `together` are answered at a time.
    """
    text = SEQUENCE.format(
        stages=", ".join(f"{{task: {name}}}" for name in stages), retention=", ".join(retention), limit=limit,
        steps=steps, batch_size=batch_size, together=together,
    )  # fmt: skip
    (folder / "registry").mkdir()
    (folder / "registry" / "small.yaml").write_text(text)
    return folder


def opened(workspace: Path, method: str, runs: str = "runs", **options: Any) -> RunDir:
    """The run of a method, which is still to be done; `options`: of the request."""
    (config,) = resolve(Request(workspace, sequence="small", methods=(method,), **options))
    return open_run(config, workspace / runs)


def finished(workspace: Path, method: str, runs: str = "runs", **options: Any) -> RunDir:
    """The finished run of a method."""
    run = opened(workspace, method, runs, **options)
    runner.run(run.folder)
    return run


def answers(run: RunDir) -> dict[Any, Any]:
    """(stage, task) -> what each item got, without numbers that a server rounds."""
    found = {}
    for key, cell in run.cells().items():
        lines = (run.folder / str(cell.predictions)).read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        found[key] = [(row.get("id"), row.get("prediction")) for row in rows]
    return found
