"""Tables of the rewind dial and of the interference map."""

from __future__ import annotations

from pathlib import Path

import pytest

from moextend.bench.report import paper, tables
from moextend.bench.report.collect import collect
from moextend.bench.report.page.data import REPORT, parts
from moextend.bench.report.style import Styling
from moextend.bench.report.table import Table
from moextend.bench.report.views.forgetting import forgetting_table
from moextend.bench.run import variants
from moextend.bench.run.rundir import RunDir
from tests.bench.ledger import Kind, Shape, write_run, write_runs, write_variants

SHAPE = Shape(stages=3, texts=2, items=80)


def rows(table: Table) -> list[dict[str, float | str | None]]:
    keys = [column.key for column in table.columns]
    return [
        {
            key: value.text if value.number is None else value.number
            for key, value in zip(keys, row, strict=True)
        }
        for section in table.sections
        for row in section
    ]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return write_run(tmp_path / "runs", SHAPE, "moextend:scope=all", 0, Kind(keeps=0.4, text_lost=0.2))


def test_the_dial_goes_from_row_zero_to_the_forgetting_table(run: RunDir) -> None:
    write_variants(run, variants.rewound(run.config))
    (experiment,) = collect([run])
    (table,) = tables([experiment], "rewind")
    found = rows(table)
    assert [row["strength"] for row in found] == [0.0, 0.25, 0.5, 0.75, 1.0]
    (usual,) = (row for row in rows(forgetting_table(experiment)) if row["method"] == "moextend:scope=all")
    assert {key: found[-1][key] for key in ("acc", "bwt", "fm")} == {
        key: usual[key] for key in ("acc", "bwt", "fm")
    }
    cells = run.cells()
    base = [cells[0, task].value for task in SHAPE.tasks]
    assert found[0]["acc"] == pytest.approx(sum(base) / 3) and found[0]["text_change"] == 0
    before, after = ([cells[stage, task].value for task in SHAPE.text] for stage in (0, 3))
    assert found[-1]["text_change"] == pytest.approx((sum(after) - sum(before)) / 2)


def test_the_page_and_the_paper_have_both(run: RunDir, tmp_path: Path) -> None:
    write_variants(run, [*variants.rewound(run.config), *variants.subsets(run.config)])
    (experiment,) = collect([run])
    wanted = [*tables([experiment], "rewind"), *tables([experiment], "subsets")]
    shown = parts([experiment]).values[REPORT]["experiments"][0]["further"]
    assert [table["key"] for table in shown] == [table.key for table in wanted]
    assert [row[1][0] for row in shown[0]["sections"][0]] == ["0", "0.25", "0.5", "0.75", "1"]
    paper.write(experiment, Styling(), tmp_path / "paper", lambda *_: [])
    main = (tmp_path / "paper" / "main.tex").read_text()
    for name, table in zip(("rewind", "subsets"), wanted, strict=True):
        assert f"\\input{{tables/{name}}}" in main
        assert (tmp_path / "paper" / "tables" / f"{name}.tex").read_text().count(r"\label") == 1, table.title
    (run.folder / "variants.jsonl").write_text("no\n")
    assert not parts(collect([run])).values[REPORT]["experiments"][0]["further"], (
        "what is damaged hides no other table"
    )


def test_the_map_has_differences_with_intervals(run: RunDir) -> None:
    write_variants(run, variants.subsets(run.config))
    (table,) = tables(collect([run]), "subsets")
    cells, found = run.cells(), rows(table)
    assert [row["without"] for row in found] == SHAPE.tasks
    for row in found:
        for task in (*SHAPE.tasks, *SHAPE.text):
            assert row[task] == pytest.approx(cells[2, task].value - cells[3, task].value)
    cell = table.sections[0][0][3]
    assert " to " in cell.text and cell.number is not None
    low, high = (float(word) for word in cell.text.partition("(")[2].rstrip(")").split(" to "))
    assert low < cell.number < high
    assert cell.style == ("bold" if low > 0 or high < 0 else "")


def test_a_seed_that_was_not_scaled_is_left_out_by_name(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, SHAPE, {"moextend": Kind(), "lora": Kind()}, (0, 1, 2))
    for each in runs[:5]:
        write_variants(each)
    path = runs[0].folder / variants.FILE
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    (dial,) = tables(collect(runs), "rewind")
    assert [{row[-1].number for row in section} for section in dial.sections] == [{2}, {2}]
    notes = " ".join(dial.notes)
    assert "moextend-s0 (not scored at strength" in notes and "lora-s2 (not scored at strength" in notes
    assert "moextend-s1" not in notes
