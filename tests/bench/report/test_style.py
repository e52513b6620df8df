"""`report.yaml`: columns, precision, names and order of methods, captions, in every format."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moextend.bench.report import FORMATS, render, tables
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.page.data import parts
from moextend.bench.report.style import Styling, find_style
from moextend.bench.report.table import Table
from moextend.bench.run.progress import _write
from moextend.bench.run.records import Status
from moextend.errors import InputError, SpecError
from tests.bench.conftest import MakeRun

MakeStyling = Callable[..., Styling]
ROWS = [[20.0, 30.0], [80.0, 32.0], [60.125, 70.0]]
STYLE = """
methods:
  "moextend:scope=all": MoExtend
  lora: LoRA & co
  ewc:
precision: 2
tasks: {colour: Colour of things}
tables:
  forgetting:
    columns: [acc, la]
    caption: "Ours: {title}"
  matrix: {precision: 0}
"""


@pytest.fixture
def experiments(make_run: MakeRun) -> list[Experiment]:
    for method in ("full-ft", "lora", "moextend:scope=all", "ewc"):
        for seed in (0, 1):
            rows = [*ROWS[:2], [60.125 + seed, 70.0]]
            run = make_run(method, seed, rows, text=(90.0, 88.0, 85.0))
            _write(run.folder, Status(state="done"))
            run.write_facts(task_identity="none")
    return collect([type(run)(path) for path in sorted(run.folder.parent.iterdir())])


@pytest.fixture
def styling(tmp_path: Path) -> MakeStyling:
    def make(text: str = STYLE) -> Styling:
        path = tmp_path / "style.yaml"
        path.write_text(text)
        return find_style(path, tmp_path)

    return make


def names(table: Table) -> list[str]:
    return [row[0].text for row in table.sections[-1]]


def test_columns_order_names_precision_and_caption(
    experiments: list[Experiment], styling: MakeStyling
) -> None:
    (table,) = tables(experiments, style=styling())
    assert table.title.startswith("Ours: mini: 2 tasks")
    assert [column.title for column in table.columns] == ["method", "ACC", "LA"]
    assert names(table) == ["MoExtend", "LoRA & co", "ewc", "full-ft"]
    assert table.sections[-1][0][1].text == "65.31 ±0.35"
    (plain,) = tables(experiments)
    assert names(plain) == ["ewc", "full-ft", "lora", "moextend:scope=all"]
    assert plain.sections[-1][0][3].text == "65.3 ±0.4"


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_the_style(experiments: list[Experiment], styling: MakeStyling, form: str) -> None:
    shown = render(tables(experiments, style=styling()), form)
    assert "MoExtend" in shown and "scope=all" not in shown.replace("moextend+scope-all", "")
    if form != "csv":  # there the notes of a table stand in its first row
        assert shown.index("MoExtend") < shown.index("LoRA") < shown.index("full-ft")
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(shown)))
        row = next(row for row in rows if row["method"] == "MoExtend")
        assert float(row["acc"]) == pytest.approx(65.3125) and set(row) == {
            "table", "method", "acc", "acc_sd", "la", "la_sd", "notes",
        }  # fmt: skip
    else:
        assert "65.31" in shown and "Ours: " in shown


def test_tasks_have_their_names_where_they_are_shown(
    experiments: list[Experiment], styling: MakeStyling
) -> None:
    shown = tables(experiments, "matrix", style=styling())
    assert [column.title for column in shown[0].columns[1:3]] == ["Colour of things", "count"]
    assert shown[0].columns[1].key == "colour", "CSV has the key"
    assert [row[0].text for row in shown[0].sections[0]] == ["0 base", "1 Colour of things", "2 count"]
    assert shown[0].sections[0][2][2].text == "70 ±2", "a precision of its own"


def test_methods_that_are_not_named_can_be_left_out(
    experiments: list[Experiment], styling: MakeStyling
) -> None:
    (table,) = tables(experiments, style=styling("others: false\nmethods: {lora: , ewc: }\n"))
    assert names(table) == ["lora", "ewc"]
    assert table.notes[-1] == "Left out: full-ft, moextend:scope=all (not in style.yaml)."
    with pytest.raises(InputError, match="methods: none of its methods has run"):
        tables(experiments, style=styling("others: false\nmethods: {lwf: }\n"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("precison: 2", r"style.yaml: precison: no such key\. Did you mean 'precision'\?"),
        ("precision: 9", r"style.yaml: precision: .* \(found 9\)"),
        ("precision: true", r"style.yaml: precision: must be a number, not true or false"),
        ("tables: {forgeting: {}}", r"style.yaml: tables: there is no table 'forgeting', only forgetting, "),
        (
            "tables: {forgetting: {captoin: x}}",
            r"tables.forgetting.captoin: no such key\. Did you mean 'caption'",
        ),
        (
            "tables: {forgetting: {columns: []}}",
            r"tables.forgetting.columns: names no column, or names one twice",
        ),
        ("methods: [lora]", r"style.yaml: methods: "),
        ("- lora", r"style.yaml: holds list, not a mapping of keys"),
        ("methods: {lora: a\n", r"style.yaml:2:1: not valid YAML"),
    ],
)
def test_a_wrong_key_or_value_is_one_clear_error(styling: MakeStyling, text: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem) as error:
        styling(text)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("methods: {lorra: }", r"style.yaml: methods: no method 'lorra'\. Did you mean 'lora'\?"),
        ("methods: {'lora:rnak=2': }", r"methods.*rnak"),
        ("tasks: {tiny-colour: x}", r"style.yaml: tasks: no task 'tiny-colour'"),
        (
            "tables: {forgetting: {columns: [ac]}}",
            r"tables.forgetting.columns: no column 'ac'\. Did you mean 'acc'",
        ),
    ],
)
def test_a_wrong_name_is_one_clear_error(
    experiments: list[Experiment], styling: MakeStyling, text: str, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        tables(experiments, style=styling(text))


def test_the_workspace_has_a_style_of_its_own(tmp_path: Path) -> None:
    assert find_style(None, tmp_path).style.precision is None
    (tmp_path / "report.yaml").write_text("precision: 3\n")
    assert find_style(None, tmp_path).style.precision == 3
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        find_style(Path("none.yaml"), tmp_path)


def test_the_page_has_the_names_the_order_and_the_decimals(
    experiments: list[Experiment], styling: MakeStyling
) -> None:
    made = parts(experiments, style=styling()).values["report"]["experiments"][0]
    assert [one["label"] for one in made["methods"]] == ["MoExtend", "LoRA & co", "ewc", "full-ft"]
    assert [one["method"] for one in made["methods"]][:2] == ["moextend:scope=all", "lora"]
    assert {(task["key"], task["name"]) for task in made["tasks"]} >= {("colour", "Colour of things")}
    summary = made["summary"]
    assert summary["title"].startswith("Ours: ")
    assert [column["key"] for column in summary["columns"] if not column["wide"]] == ["method", "acc", "la"]
    assert len(summary["columns"]) > 6, "the others are there for those who look for them"
    rows = {row[0][0]: row for row in summary["sections"][-1]}
    assert rows["LoRA & co"][1][0] == "65.31 ±0.35"
    assert "LoRA & co" in json.dumps(made["verdict"])
    assert "moextend:scope=all" not in json.dumps([made["summary"], made["costs"], made["verdict"]])
