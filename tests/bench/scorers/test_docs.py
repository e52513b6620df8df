"""The table of scorers in the docs equals the code."""

from pathlib import Path

from moextend.bench.scorers.table import ALL

PAGE = Path(__file__).parents[3] / "docs" / "scorers.md"


def test_the_table_of_scorers_equals_the_code() -> None:
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    assert rows == [(f"`{s.name}`", s.rule, s.source, s.used_by, s.comparable_with) for s in ALL]


def test_the_tasks_of_the_package_use_known_scorers() -> None:
    from moextend.bench.task import read_task

    known = {scorer.name for scorer in ALL}
    for path in (PAGE.parents[1] / "tasks").glob("*.yaml"):
        assert read_task(path).scorer in known, path
