"""Numbers of every view are the same to the digit in every format; CSV has them unrounded."""

import csv
import io
import re

import pytest
from rich.console import Console

from moextend.bench.report import VIEWS, How, render, tables
from moextend.bench.report.collect import collect
from moextend.bench.report.formats import latex
from moextend.bench.report.formats.latex import escape
from moextend.bench.report.formats.terminal import print_tables
from moextend.bench.report.style import find_style
from moextend.bench.report.table import Table
from moextend.bench.run.records import StageCost
from tests.bench import ledger

Views = dict[str, list[Table]]

COLUMNS = 400
"""A terminal in which every table is in one block, and every cell on one line."""


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Views:
    """View -> its tables, as they are and with another precision."""
    folder = tmp_path_factory.mktemp("agree")
    kinds = {
        "lora": ledger.Kind(run_sd=0.02),
        "lora:rank=2": ledger.Kind(learned=0.9, run_sd=0.02),
        "moextend": ledger.Kind(learned=0.95, keeps=1.0, text_lost=0.0),
    }
    runs = ledger.write_runs(folder / "runs", ledger.Shape(items=20, texts=2, transfers=1), kinds, (0, 1))
    for number, run in enumerate(runs, 1):
        run.write_facts(task_identity="given", text_untouched=number > 6)
        for stage, task in enumerate(run.config.stages, 1):
            run.write_cost(stage, task, StageCost(trained_parameters=1000 * number, tokens=5, flops=2e12))
        ledger.write_variants(run)
    (folder / "report.yaml").write_text("precision: 3\nmethods: {moextend: Ours}\n")
    style = find_style(None, folder)
    made: Views = {}
    for view in VIEWS:
        if view != "routing":  # these runs have none
            for name, how in {view: How("lora"), f"{view}, 3 decimals": How("lora", style=style)}.items():
                made[name] = tables(collect(runs), view, how)
    return made


def cells(table: Table) -> list[list[str]]:
    return [[value.text for value in row] for section in table.sections for row in section]


def test_markdown(views: Views) -> None:
    for found in views.values():
        for table in found:
            lines = [line for line in render([table], "markdown").splitlines() if line.startswith("| ")][2:]
            shown = [
                [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                for line in lines
            ]
            bare = [[re.sub(r"^\*\*(.*)\*\*$", r"\1", cell) for cell in row] for row in shown]
            assert bare == cells(table.narrow())


def test_terminal(views: Views) -> None:
    for found in views.values():
        for table in found:
            out = io.StringIO()
            print_tables([table], Console(file=out, color_system=None, width=COLUMNS), COLUMNS)
            shown = [" ".join(line.split()) for line in out.getvalue().splitlines()]
            above = ""
            for row in cells(table.narrow()):
                once = ["", *row[1:]] if row[0] == above else row
                above = row[0]
                if "\n" not in "".join(row) and len(row[0]) <= 20:
                    either = {" ".join(" ".join(one).split()) for one in (row, once)}
                    assert either & {*shown}, "a name that repeats is shown once"


def test_latex(views: Views) -> None:
    for found in views.values():
        for table in found:
            parts = [block for page in latex.pages(table) for block in latex.blocks(page)]
            text = render([table], "latex").replace("\\toprule\n", "\\toprule ")
            body = re.findall(r"^(?!\\toprule)(.*) \\\\$", text, re.MULTILINE)
            shown = [[printed(cell) for cell in row.split(" & ")[1:]] for row in body]
            assert shown == [
                [printed(escape(text)) for text in row[1:]] for part in parts for row in cells(part)
            ]


def printed(cell: str) -> str:
    """What a cell of a tabular prints."""
    cell = (
        re.sub(r"\\(bfseries|mdseries|tiny) ?", "", cell.strip())
        .replace(r"$\,\pm\,$", " ±")
        .replace(r"$\pm$", "±")
    )
    cell = cell.replace(r"$\ddagger$", "‡").replace(r"$\dagger$", "†").replace(r"$\neq$", "≠")
    cell = re.sub(r"\$([-+])\$", r"\1", cell).replace(r"\textless{}", "<")
    cell = re.sub(r"\\textbf\{(.*)\}", r"\1", cell).replace("{", "").replace("}", "")
    return re.sub(r"(?<=\d),(?=\d{3})", "", cell)


def test_csv_is_the_same_before_rounding(views: Views) -> None:
    for found in views.values():
        for table in found:
            lines = list(csv.DictReader(io.StringIO(render([table], "csv"))))
            for line, row in zip(lines, (row for section in table.sections for row in section), strict=True):
                for column, value in zip(table.columns, row, strict=True):
                    number = re.match(r"[-+]?\d+\.(\d+)(?![\dkMBT])", value.text)
                    if column.numeric and column.machines and number:
                        assert f"{float(line[column.key]):.{len(number[1])}f}".replace("-0.0", "0.0").lstrip(
                            "-"
                        ) == (number[0].lstrip("+-")), (table.key, column.key)
                    if column.numeric and column.machines and (value.number is not None and not value.form):
                        assert line[column.key] == str(value.number)
