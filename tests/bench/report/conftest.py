"""Runs that are done, with matrices that are known."""

from collections.abc import Sequence
from typing import Any

import pytest

from moextend.bench.run.progress import _write
from moextend.bench.run.records import State, Status
from moextend.bench.run.rundir import RunDir
from moextend.util.files import write_json
from tests.bench.conftest import MakeRun

ROWS = [[20.0, 30.0], [80.0, 32.0], [60.0, 70.0]]
"""The matrix of two tasks, unless others are given."""


@pytest.fixture
def done(make_run: MakeRun) -> MakeRun:
    """Makes a run that is done (or in another `state`), with these facts."""

    def make(
        method: str = "lora",
        seed: int = 0,
        rows: Sequence[Sequence[float]] = ROWS,
        text: Sequence[float] = (90.0, 88.0, 85.0),
        state: State = "done",
        facts: dict[str, Any] | None = None,
        **changes: Any,
    ) -> RunDir:
        run = make_run(method, seed, rows, text, **changes)
        _write(run.folder, Status(state=state))
        write_json(run.folder / "facts.json", facts or {"task_identity": "none"})
        return run

    return make
