"""The scorers that the docs and the tasks name are those of the code."""

import json
import re
from pathlib import Path

from moextend.bench.scorers.table import BY_NAME
from moextend.bench.task import read_task

ROOT = Path(__file__).parents[3]
OWN = {"my-rule@1", "my-rule@2"}
"""Examples of plug-ins."""


def test_the_tasks_of_the_package_use_known_scorers() -> None:
    tasks = [read_task(path) for path in (ROOT / "tasks").glob("*.yaml")]
    assert len(tasks) > 50
    assert {task.scorer for task in tasks if task.kind != "text" and task.needs is None} <= BY_NAME.keys()


def test_the_docs_name_scorers_that_exist() -> None:
    sequences = json.loads((ROOT / "tests" / "fixtures" / "versions.json").read_text(encoding="utf-8"))
    for page in sorted((ROOT / "docs").rglob("*.md")):
        if page.name != "log.md":
            named = re.findall(r"`([a-z][a-z0-9-]*@\d+)`", page.read_text(encoding="utf-8"))
            assert set(named) <= BY_NAME.keys() | OWN | sequences.keys(), page
