"""The page in a browser: it sorts, filters, links, and fits a phone; numbers are those of the tables."""

import json
from pathlib import Path

import pytest

from moextend.bench import frame
from moextend.bench.report import page as pages
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.fate import item_fates
from moextend.bench.report.table import number
from moextend.bench.run.rundir import find_runs
from moextend.bench.tuned import TEST
from tests.bench import ledger
from tests.bench.report.page.conftest import VIEWS, WIDTHS, OpenPage, count_of, until


def test_every_view_fits_a_phone(open_page: OpenPage) -> None:
    tab = open_page("costs", "phone")
    for view in VIEWS:
        tab.evaluate("name => { location.hash = `#/${name}` }", view)
        tab.wait_for_selector(f"nav a[aria-current][href^='#/{view}']")
        tab.wait_for_selector("main table, main ul, main dl, main p")
        assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS["phone"][0], view
        assert tab.evaluate("window.owned") is None
        assert tab.inner_text("nav a[aria-current]")


def test_the_matrix_has_the_digits_of_the_tables(open_page: OpenPage, experiments: list[Experiment]) -> None:
    tab = open_page("matrix?run=each")
    shown = tab.eval_on_selector_all(
        ".matrix td a", "links => links.map(a => [a.getAttribute('aria-label'), a.firstChild.textContent])"
    )
    cells = [cell for one in experiments[0].results for cell in one.cells.values()]
    assert len(shown) == len(cells) and any(cell.value % 0.5 == 0.25 for cell in cells)
    wanted = {(f"{cell.task} after stage {cell.stage}", number(cell.value).text) for cell in cells}
    assert {(label.split(":")[0], text) for label, text in shown} == wanted


def test_a_click_on_a_head_sorts(open_page: OpenPage) -> None:
    tab = open_page()
    rows = "section[aria-labelledby=methods] tbody:last-of-type tr:not(.label)"
    values = "rows => rows.map(row => parseFloat(row.cells[3].textContent))"
    tab.click("main table:first-of-type thead button:has-text('ACC')")
    down = tab.eval_on_selector_all(rows, values)
    assert down == sorted(down, reverse=True) and len(down) == 4
    tab.locator("section[aria-labelledby=methods] th[aria-sort=descending] button").press("Enter")
    assert tab.eval_on_selector_all(rows, values) == down[::-1]


@pytest.mark.filterwarnings("ignore:Not complete")
def test_filters_count_what_the_frame_counts(open_page: OpenPage, runs: Path) -> None:
    own = item_fates(frame(workspace=runs.parent)).query("task == 'task1' and method == 'lora' and seed == 0")
    fates = own.assign(fate=own["fate"].astype(str)).pivot(index="item", columns="stage", values="fate")
    right = {"kept", "learned", "regained"}
    wrong = ~fates[fates.columns[-1]].isin(right)
    wanted = {
        "learned-lost": (wrong & fates.isin(["learned", "regained"]).any(axis=1)).sum(),
        "lost": (wrong & fates.isin(["lost", *right]).any(axis=1)).sum(),
        "regained": (fates == "regained").any(axis=1).sum(),
        "never": (fates == "wrong").all(axis=1).sum(),
        "always": (fates == "kept").all(axis=1).sum(),
    }
    tab = open_page("items?t=task1&a=lora&seed=0")
    assert count_of(tab) == 400
    for name, count in wanted.items():
        tab.select_option("label:has-text('Show') select", name)
        until(tab, "name => location.hash.includes(`f=${name}`)", name)
        assert count_of(tab) == int(count), name


def test_an_item_has_an_address_and_its_answers_are_text(open_page: OpenPage) -> None:
    tab = open_page("item?t=task1&of=task1&id=task1-test-00007-1&seed=1")
    assert tab.inner_text("h1") == "what count is object 7 at middle-left"
    assert tab.locator(".answers tbody tr").count() == 4
    tab.click("label:has-text('All methods and seeds')")
    until(tab, "document.querySelectorAll('.answers tbody tr').length === 8")
    tab.reload()
    tab.wait_for_selector(".answers tbody tr:nth-of-type(8)")
    shown = tab.inner_text("main")
    assert "Other items of this image" in shown and "<b>bold</b>" in shown and "\x1b" not in shown
    assert tab.evaluate("window.owned") is None and tab.locator("main img[src=x]").count() == 0


def test_a_bundle_works_from_the_disk(
    open_page: OpenPage, experiments: list[Experiment], tmp_path: Path
) -> None:
    index = pages.bundle(experiments, tmp_path / "out")
    tab = open_page("items?t=*", url=index.as_uri())
    assert count_of(tab) == 1600
    (tmp_path / "out/parts/e0.flips.js").unlink()
    tab.evaluate("location.hash = '#/costs'")
    tab.wait_for_selector("table")


def test_methods_with_a_mark_are_in_the_chart_of_costs(open_page: OpenPage, tmp_path: Path) -> None:
    shape = ledger.Shape(stages=2, texts=1, items=8)
    runs = ledger.write_runs(tmp_path / "runs", shape, {"lora": ledger.Kind(), "ewc": ledger.Kind()}, [0])
    record = json.loads(runs[0].config_path.read_text())
    runs[0].config_path.write_text(json.dumps({**record, "tuned_on": TEST}))
    found = collect(find_runs(tmp_path / "runs"))
    (tmp_path / "page.html").write_text(pages.page(found), encoding="utf-8")
    tab = open_page("costs", url=(tmp_path / "page.html").as_uri())
    assert "lora‡" in tab.inner_text("table")
    assert tab.locator("g.point").count() == 2
