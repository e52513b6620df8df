"""Published numbers: allowed and refused comparisons."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.references import KIND, Reference, find_reference, read_reference
from moextend.bench.report import How, render, tables
from moextend.bench.report.collect import collect
from moextend.bench.report.table import Table
from moextend.bench.run.rundir import RunDir
from moextend.bench.sequence import read_sequence
from moextend.bench.task import read_task
from moextend.errors import InputError, SpecError
from moextend.util import content
from moextend.util.spec import parse
from tests.bench.cells import cell_of
from tests.bench.conftest import TASKS, MakeRun

NOWHERE = Path("nowhere")
ROWS = [[20.0, 30.0], [80.0, 32.0], [60.0, 70.0]]
REFERENCE: dict[str, Any] = {
    "reference": "mini",
    "protocol": "mini",
    "source": "arXiv 0000.00000",
    "columns": {
        "acc": {"title": "ACC", "metric": "acc"},
        "bwt": {"title": "BWT", "metric": "bwt_t", "means": "divided by T"},
        "fact": {"title": "facts", "tasks": ["facts"]},
        "other": {"title": "MME"},
    },
    "rows": [
        {"method": "LoRA", "acc": 28.74, "bwt": -32.62},
        {"method": "EWC", "acc": 32.9, "other": 1710.1},
    ],
}


def reference(**changes: Any) -> Reference:
    return parse(Reference, {**REFERENCE, **changes}, where="mini.yaml")


def shown(runs: Sequence[RunDir], *references: Reference) -> Table:
    return tables(collect(runs, unfinished=True), how=How(references=references))[-1]


def test_measured_rows_stand_above_under_the_same_definitions(make_run: MakeRun) -> None:
    run = make_run("lora", rows=ROWS, text=(90.0, 88.0, 85.0), protocol="mini")
    table = shown([run], reference())
    measured, published = [[[value.text for value in row] for row in part] for part in table.sections]
    assert measured == [["lora*", "measured", "65.0", "-10.0", "85.0", "-"]], "BWT: (60 - 80) / 2 tasks"
    assert published == [
        ["LoRA", "published", "28.74", "-32.62", "-", "-"],
        ["EWC", "published", "32.9", "-", "-", "1710.1"],
    ]
    assert "protocol mini (arXiv 0000.00000)" in table.title
    assert "BWT: divided by T." in table.notes


@pytest.mark.parametrize("protocol", [None, "mini-too"])
def test_a_sequence_of_another_protocol_is_refused(make_run: MakeRun, protocol: str | None) -> None:
    run = make_run("lora", rows=ROWS, protocol=protocol)
    with pytest.raises(InputError, match="the published numbers follow 'mini'") as refused:
        shown([run], reference())
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"method": "LoRA", "ac": 1.0}], r"rows\[0\].ac is not a column"),
        ([{"acc": 1.0}], r"rows\[0\] names no method"),
        ([{"method": "LoRA", "acc": "many"}], r"rows\[0\] holds a word"),
    ],
)
def test_what_is_wrong_in_a_reference_is_reported(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        reference(rows=rows)


@pytest.mark.parametrize("name", content.names(KIND, NOWHERE))
def test_every_reference_of_the_package_has_a_source_and_known_tasks(name: str) -> None:
    path = content.names(KIND, NOWHERE)[name]
    found = read_reference(path)
    assert found.reference == name and found.source and found.rows
    tasks = content.names("tasks", NOWHERE)
    assert {task for column in found.columns.values() for task in column.tasks} <= set(tasks)
    assert set(found.scoring) | (set(found.unscored) - {"*"}) <= set(tasks)
    for task, scorer in found.scoring.items():
        assert read_task(tasks[task]).scorer == scorer, "the package scores as the paper does"
        assert task not in found.unscored
    assert all(any(key in row for row in found.rows) for key in found.columns)


@pytest.mark.parametrize("name", ["coin", "ucit", "trigap", "mllm-cl-dcl", "trace", "moextend-paper"])
def test_a_published_sequence_names_a_protocol_that_has_references(name: str) -> None:
    sequence = read_sequence(content.names("registry", NOWHERE)[name])
    found = [read_reference(path) for path in content.names(KIND, NOWHERE).values()]
    mine = [reference for reference in found if reference.protocol == sequence.protocol]
    assert mine
    scored = {*sequence.retention, *sequence.transfer}
    assert {t for r in mine for c in r.columns.values() for t in c.tasks} <= scored, "else never measured"
    if name != "moextend-paper":
        known = [{*r.scoring, *r.unscored} for r in mine]
        assert all(tasks >= {stage.task for stage in sequence.stages} or "*" in tasks for tasks in known), (
            "each task is given"
        )


FIRST, SECOND = TASKS
EXACT = {FIRST: "exact@1", SECOND: "exact@1"}


def measured(table: Table) -> list[str]:
    return [value.text for value in table.sections[0][0][2:]]


def refusals(table: Table) -> list[str]:
    return [note for note in table.notes if "refused" in note]


def test_a_column_of_a_task_scored_otherwise_is_refused_with_the_reason(make_run: MakeRun) -> None:
    run = make_run("lora", rows=ROWS, text=(90.0, 88.0, 85.0), protocol="mini")
    table = shown([run], reference(scoring={**EXACT, SECOND: "equal@1", "facts": "lm-eval"}))
    assert measured(table) == ["-", "-", "85.0", "-"], "the other columns stay"
    why = f"{SECOND} was scored by exact@1, the paper counts as equal@1 does."
    assert refusals(table) == [
        f"ACC is refused for measured runs: {why}", f"BWT is refused for measured runs: {why}"
    ]  # fmt: skip
    assert len(table.sections[1]) == 2, "and so do the published rows"


@pytest.mark.parametrize(
    ("unscored", "why"),
    [
        ({FIRST: "its metric needs Java"}, f"{FIRST}: its metric needs Java."),
        ({"*": "no code is published"}, "no code is published."),
        ({}, f"{FIRST} is not known to be scored as in the paper."),
    ],
)
def test_a_column_of_a_task_that_cannot_be_scored_is_refused(
    make_run: MakeRun, unscored: dict[str, Any], why: str
) -> None:
    run = make_run("lora", rows=ROWS, protocol="mini")
    table = shown([run], reference(scoring={SECOND: "exact@1"}, unscored=unscored))
    assert measured(table)[:2] == ["-", "-"]
    assert refusals(table)[0] == f"ACC is refused for measured runs: {why}"


def test_a_column_may_show_a_further_metric_of_several_tasks(make_run: MakeRun) -> None:
    columns = {"f1": {"title": "POPE", "tasks": [FIRST, SECOND], "reading": "f1"}}
    one = reference(columns=columns, rows=[{"method": "LLaVA", "f1": 85.9}])
    run = make_run("lora", rows=ROWS[:2], protocol="mini")
    run.append_cell(cell_of(2, FIRST, 60.0, scorer="pope@2", readings={"f1": 50.0}))
    assert measured(shown([run], one)) == ["-"], "the second is not scored yet"
    run.append_cell(cell_of(2, SECOND, 70.0, scorer="pope@2", readings={"f1": 60.0}))
    assert measured(shown([run], one)) == ["55.0"]


def test_the_sequence_of_the_paper_trains_as_published_and_says_where_it_differs() -> None:
    found = read_sequence(content.names("registry", NOWHERE)["moextend-paper"])
    (align,) = found.align
    assert found.train.balance == 0.001
    assert tuple(found.train.betas) == tuple(align.betas) == (0.9, 0.999)
    assert all("probe_steps=1000" in name for name in found.methods if name.startswith("moextend"))
    for name in ("moextend-text", "moextend-vision"):
        (table,) = tables([], how=How(references=[find_reference(name, NOWHERE)]))
        for form in ("table", "markdown", "latex"):
            words = " ".join(render([table], form).split())
            assert "512 held-out items choose the layers" in words and "over the new experts alone" in words
