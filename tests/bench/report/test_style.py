"""`report.yaml`: columns, precision, names and order of methods, captions, in every format."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moextend.bench.report import FORMATS, How, render, tables
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.page.data import parts
from moextend.bench.report.style import Styling, find_style
from moextend.bench.report.table import Table
from moextend.errors import InputError, SpecError
from tests.bench.conftest import MakeRun

MakeStyling = Callable[..., Styling]
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
"""


@pytest.fixture
def experiments(done: MakeRun) -> list[Experiment]:
    return collect(
        [
            done(method, seed, [[20.0, 30.0], [80.0, 32.0], [60.125 + seed, 70.0]])
            for method in ("ewc", "full-ft", "lora", "moextend:scope=all")
            for seed in (0, 1)
        ]
    )


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
    (table,) = tables(experiments, how=How(style=styling()))
    assert table.title.startswith("Ours: mini: 2 tasks")
    assert [column.title for column in table.columns] == ["method", "ACC", "LA"]
    assert names(table) == ["MoExtend", "LoRA & co", "ewc", "full-ft"]
    assert table.sections[-1][0][1].text == "65.31 ±0.35"
    (plain,) = tables(experiments)
    assert names(plain) == ["ewc", "full-ft", "lora", "moextend:scope=all"]
    assert plain.sections[-1][0][3].text == "65.3 ±0.4"
    (matrix, *_) = tables(experiments, "matrix", How(style=styling()))
    assert [column.title for column in matrix.columns[1:3]] == ["Colour of things", "count"]
    assert matrix.columns[1].key == "colour", "CSV has the key"
    assert [row[0].text for row in matrix.rows] == ["0 base", "1 Colour of things", "2 count"]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_the_style(experiments: list[Experiment], styling: MakeStyling, form: str) -> None:
    shown = render(tables(experiments, how=How(style=styling())), form)
    assert "MoExtend" in shown and "scope=all" not in shown.replace("moextend+scope-all", "")
    if form == "csv":
        row = next(row for row in csv.DictReader(io.StringIO(shown)) if row["method"] == "MoExtend")
        assert float(row["acc"]) == pytest.approx(65.3125)
        assert set(row) == {"table", "method", "acc", "acc_sd", "la", "la_sd", "notes"}
    else:
        assert shown.index("MoExtend") < shown.index("LoRA") < shown.index("full-ft")
        assert "65.31" in shown and "Ours: " in shown


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("precison: 2", r"style.yaml: precison: no such key\. Did you mean 'precision'\?"),
        ("precision: 9", r"style.yaml: precision: .* \(found 9\)"),
        ("tables: {forgeting: {}}", r"style.yaml: tables: there is no table 'forgeting', only forgetting, "),
        ("tables: {forgetting: {columns: []}}", r"forgetting.columns: names no column, or names one twice"),
        ("methods: [lora]", r"style.yaml: methods: "),
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
        ("methods: {lora: A, ewc: A}", r"style.yaml: 'lora' would be shown as 'A', the name of 'ewc'\."),
        ("methods: {lora: EWC}", r"'lora' would be shown as 'EWC', the name of 'ewc'\."),
        ("methods: {lora: majority answer}", r"the name of 'majority answer'\."),
        ("tasks: {colour: count}", r"would be shown as 'count'"),
        ("tasks: {tiny-colour: x}", r"style.yaml: tasks: no task 'tiny-colour'"),
        ("tables: {forgetting: {columns: [ac]}}", r"forgetting.columns: no column 'ac'\. Did you mean 'acc'"),
    ],
)
def test_a_wrong_name_is_one_clear_error(
    experiments: list[Experiment], styling: MakeStyling, text: str, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        tables(experiments, how=How(style=styling(text)))


def test_the_workspace_has_a_style_of_its_own(tmp_path: Path) -> None:
    assert find_style(None, tmp_path).style.precision is None
    (tmp_path / "report.yaml").write_text("precision: 3\n")
    assert find_style(None, tmp_path).style.precision == 3
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        find_style(Path("none.yaml"), tmp_path)


def test_the_page_has_the_names_the_order_and_the_decimals(
    experiments: list[Experiment], styling: MakeStyling
) -> None:
    made = parts(experiments, How(style=styling())).values["report"]["experiments"][0]
    assert [one["label"] for one in made["methods"]] == ["MoExtend", "LoRA & co", "ewc", "full-ft"]
    assert [one["method"] for one in made["methods"]][:2] == ["moextend:scope=all", "lora"]
    assert {(task["key"], task["name"]) for task in made["tasks"]} >= {("colour", "Colour of things")}
    summary = made["summary"]
    assert summary["title"].startswith("Ours: ") and len(summary["columns"]) > 6, "all columns"
    place = [column["key"] for column in summary["columns"]].index("acc")
    assert {row[0][0]: row for row in summary["sections"][-1]}["LoRA & co"][place][0] == "65.31 ±0.35"
    assert "LoRA & co" in json.dumps(made["verdict"])
    assert "moextend:scope=all" not in json.dumps([made["summary"], made["costs"], made["verdict"]])
