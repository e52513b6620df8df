"""Small data of two tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.stage import stage_data
from moextend.bench.task import find_task
from tests.bench.methods.short import TASKS, World


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> dict[str, Any]:
    workspace = tmp_path_factory.mktemp("world")
    return {name: stage_data([find_task(name, workspace)], workspace, 0) for name in TASKS}


@pytest.fixture
def world(data: dict[str, Any], tmp_path: Path, shared: Path) -> World:
    (shared / "learned").mkdir(exist_ok=True)
    return World(data, tmp_path / "stages", shared / "learned")
