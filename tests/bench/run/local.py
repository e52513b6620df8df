"""Executes runs in worker processes, as `moextend bench run` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moextend.bench.executors.executor import Options
from moextend.bench.executors.local import LocalExecutor
from moextend.bench.executors.submitting import follow, submit
from moextend.bench.run.launch import Outcome, View


class Silent:
    def update(self) -> None:
        pass


def launch(runs: Sequence[Path], *, jobs: int = 1, view: View | None = None) -> dict[Path, Outcome]:
    executor = LocalExecutor()
    return follow(executor, submit(executor, runs, Options(jobs=jobs)), view or Silent())
