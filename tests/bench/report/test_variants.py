"""Tables of the rewind dial and of the interference map."""

from __future__ import annotations

from pathlib import Path

import pytest

from moextend.bench.report import paper, tables
from moextend.bench.report.collect import collect
from moextend.bench.report.page.data import REPORT, parts
from moextend.bench.report.style import Styling
from moextend.bench.report.views.forgetting import forgetting_table
from moextend.bench.run import variants
from moextend.bench.run.rundir import RunDir
from tests.bench.ledger import Kind, Shape, write_run, write_runs, write_variants

SHAPE = Shape(stages=3, texts=2, items=80)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return write_run(tmp_path / "runs", SHAPE, "moextend:scope=all", 0, Kind(keeps=0.4, text_lost=0.2))


def test_the_dial_goes_from_row_zero_to_the_forgetting_table(run: RunDir) -> None:
    write_variants(run, variants.rewound(run.config))
    (experiment,) = collect([run])
    (table,) = tables([experiment], "rewind")
    found = [{key: value.number for key, value in row.items()} for row in table.records]
    assert [row["strength"] for row in found] == [0.0, 0.25, 0.5, 0.75, 1.0]
    (usual,) = (
        row for row in forgetting_table(experiment).records if row["method"].text == "moextend:scope=all"
    )
    keys = ("acc", "bwt", "fm", "text_change")
    assert {key: found[-1][key] for key in keys} == {key: usual[key].number for key in keys}
    base = [run.cells()[0, task].value for task in SHAPE.tasks]
    assert found[0]["acc"] == pytest.approx(sum(base) / 3) and found[0]["text_change"] == 0


def test_the_page_and_the_paper_have_both(run: RunDir, tmp_path: Path) -> None:
    write_variants(run, [*variants.rewound(run.config), *variants.subsets(run.config)])
    (experiment,) = collect([run])
    wanted = [*tables([experiment], "rewind"), *tables([experiment], "subsets")]
    shown = parts([experiment]).values[REPORT]["experiments"][0]["further"]
    assert [table["key"] for table in shown] == [table.key for table in wanted]
    paper.write(experiment, Styling(), tmp_path / "paper", lambda *_: [])
    main = (tmp_path / "paper" / "main.tex").read_text()
    for name in ("rewind", "subsets"):
        assert f"\\input{{tables/{name}}}" in main
        assert (tmp_path / "paper" / "tables" / f"{name}.tex").read_text().count(r"\label") == 1, name
    (run.folder / "variants.jsonl").write_text("no\n")
    damaged = parts(collect([run])).values[REPORT]["experiments"][0]
    assert not damaged["further"], "what is damaged hides no other table"


def test_the_map_has_differences_with_intervals(run: RunDir) -> None:
    write_variants(run, variants.subsets(run.config))
    (table,) = tables(collect([run]), "subsets")
    cells, found = run.cells(), table.records
    assert [row["without"].text for row in found] == SHAPE.tasks
    for row in found:
        for task in (*SHAPE.tasks, *SHAPE.text):
            assert row[task].number == pytest.approx(cells[2, task].value - cells[3, task].value)
    cell = found[0][SHAPE.tasks[2]]
    assert cell.between is not None and cell.number is not None
    low, high = cell.between
    assert low < cell.number < high and cell.style == ("bold" if low > 0 or high < 0 else "")


def test_a_seed_that_was_not_scaled_is_left_out_by_name(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, SHAPE, {"moextend": Kind(), "lora": Kind()}, (0, 1, 2))
    for each in runs[:5]:
        write_variants(each)
    path = runs[0].folder / variants.FILE
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    (dial,) = tables(collect(runs), "rewind")
    assert [{row[-1].number for row in section} for section in dial.sections] == [{2}, {2}]
    notes = " ".join(dial.notes)
    assert "moextend-s0 (not scored: strength" in notes and "lora-s2 (not scored: strength" in notes
    assert "moextend-s1" not in notes
