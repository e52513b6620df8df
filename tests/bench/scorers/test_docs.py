"""The scorers in the docs are those of the code, and their tasks those of the catalogue."""

import re
from collections import defaultdict
from pathlib import Path

from moextend.bench.scorers.table import ALL, BY_NAME
from moextend.bench.task import read_task

DOCS = Path(__file__).parents[3] / "docs"
OWN = {"my-rule@1", "my-rule@2"}
"""Examples of plug-ins."""


def tasks_by_scorer() -> dict[str, str]:
    """Scorer -> its tasks; more than three with the same first word are counted."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for task in map(read_task, sorted((DOCS.parent / "tasks").glob("*.yaml"), key=lambda path: path.stem)):
        if task.kind != "text" and task.needs is None:
            found[task.scorer][task.task.partition("-")[0]].append(task.task)
    return {
        scorer: ", ".join(
            f"{family}-\\* ({len(tasks)})" if len(tasks) > 3 else ", ".join(tasks)
            for family, tasks in families.items()
        )
        for scorer, families in found.items()
    }


def test_the_table_of_scorers_equals_the_code_and_the_tasks() -> None:
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in (DOCS / "scorers.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    tasks = tasks_by_scorer()
    assert tasks.keys() <= BY_NAME.keys(), "the tasks of the package use known scorers"
    assert rows == [(f"`{s.name}`", s.rule, s.source, tasks.get(s.name, ""), s.comparable_with) for s in ALL]


def test_the_docs_name_scorers_that_exist() -> None:
    for page in sorted(DOCS.rglob("*.md")):
        if page.name != "log.md":
            named = re.findall(r"`([a-z][a-z0-9-]*@\d+)`", page.read_text(encoding="utf-8"))
            assert set(named) <= BY_NAME.keys() | OWN, page
