"""The page in a browser: it sorts, filters, searches, links, and fits a phone; numbers are those of the tables."""

from pathlib import Path
from typing import Any

import pytest

from moextend.bench import frame
from moextend.bench.report import page as pages
from moextend.bench.report.collect import Experiment, Result
from moextend.bench.report.fate import item_fates
from moextend.bench.report.page.items import Lifelines, Medium, Thumbnails
from moextend.bench.report.table import number
from tests.bench.report.page.conftest import VIEWS, WIDTHS, OpenPage, count_of, until


@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fits(open_page: OpenPage, view: str, size: str) -> None:
    tab = open_page(view, size)
    tab.wait_for_selector("main table, main ul, main dl, main p")
    assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS[size][0]
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
    values = "rows => rows.map(row => parseFloat(row.cells[3].textContent))"
    tab.click("main table:first-of-type thead button:has-text('ACC')")
    down = tab.eval_on_selector_all(
        "section[aria-labelledby=methods] tbody:last-of-type tr:not(.label)", values
    )
    assert down == sorted(down, reverse=True) and len(down) == 4
    head = tab.locator("section[aria-labelledby=methods] th[aria-sort=descending]")
    assert head.inner_text().startswith("ACC")
    head.locator("button").press("Enter")
    up = tab.eval_on_selector_all(
        "section[aria-labelledby=methods] tbody:last-of-type tr:not(.label)", values
    )
    assert up == down[::-1]


@pytest.mark.filterwarnings("ignore:Not complete")
def test_filters_count_what_the_frame_counts(open_page: OpenPage, runs: Path) -> None:
    own = item_fates(frame(workspace=runs.parent)).query("task == 'task1' and method == 'lora' and seed == 0")
    fates = own.assign(fate=own["fate"].astype(str)).pivot(index="item", columns="stage", values="fate")
    right, last = {"kept", "learned", "regained"}, fates.columns[-1]
    wrong = ~fates[last].isin(right)
    gained = fates.isin(["learned", "regained"]).any(axis=1)
    wanted = {
        "learned-lost": (wrong & gained).sum(),
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


def test_the_search_finds_questions_and_answers(open_page: OpenPage) -> None:
    tab = open_page("items?t=task2")
    tab.keyboard.press("/")
    tab.keyboard.type("object 12 at")
    until(tab, "document.getElementById('found').textContent.startsWith('1 of')")
    assert "what color is object 12 at top" in tab.inner_text(".item")
    tab.fill("input[type=search]", "no such words")
    until(tab, "document.getElementById('found').textContent.startsWith('0 of')")


def test_an_item_has_an_address(open_page: OpenPage) -> None:
    tab = open_page("item?t=task1&of=task1&id=task1-test-00007-1&seed=1")
    assert tab.inner_text("h1") == "what count is object 7 at middle-left"
    assert tab.locator(".answers tbody tr").count() == 4
    tab.click("label:has-text('All methods and seeds')")
    until(tab, "document.querySelectorAll('.answers tbody tr').length === 8")
    tab.reload()
    tab.wait_for_selector(".answers tbody tr:nth-of-type(8)")
    assert "Other items of this image" in tab.inner_text("main")


def test_a_cell_leads_to_its_items(open_page: OpenPage, experiments: list[Experiment]) -> None:
    tab = open_page("matrix?m=lora&run=each")
    tab.click(".matrix td a[aria-label^='task1 after stage 3']")
    tab.wait_for_selector(".item")
    run = next(one for one in experiments[0].results if one.config.method == "lora" and one.config.seed == 0)
    cell = run.cells[3, "task1"]
    assert count_of(tab) == round(400 * (1 - cell.value / 100))
    assert f"moextend bench explain {run.name} 3 task1" in tab.inner_text(".command")


def test_answers_are_shown_as_they_are(open_page: OpenPage) -> None:
    tab = open_page("item?t=task1&of=task1&id=task1-test-00000-0&seed=1&all=1")
    tab.wait_for_selector(".answers")
    tab.wait_for_timeout(100)
    assert tab.evaluate("window.owned") is None and tab.locator("main img[src=x]").count() == 0
    shown = tab.inner_text("main")
    assert "<b>bold</b>" in shown and "\x1b" not in shown
    assert count_of(open_page("items?t=task1&seed=1&q=onerror")) > 0


def test_a_bundle_works_from_the_disk(
    open_page: OpenPage, experiments: list[Experiment], tmp_path: Path
) -> None:
    index = pages.bundle(experiments, tmp_path / "out")
    tab = open_page("items?t=*", url=index.as_uri())
    assert count_of(tab) == 1600
    (tmp_path / "out/parts/e0.flips.js").unlink()
    tab.evaluate("location.hash = '#/costs'")
    tab.wait_for_selector("table")


def test_a_sound_is_a_sign_in_the_list_and_plays_on_the_page_of_its_item(
    open_page: OpenPage, experiments: list[Experiment], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def sounds(result: Result, task: str, made: Lifelines, *more: Any) -> Thumbnails:
        both = [Medium("audio", "wav", b"RIFF"), Medium("image", "png", b"png")]
        return Thumbnails([[0] if place else [0, 1] for place, _ in enumerate(made.ids)], both)

    monkeypatch.setattr("moextend.bench.report.page.data._media", sounds)
    url = pages.bundle(experiments, tmp_path / "page").as_uri()
    tab = open_page("items?t=task1", url=url)
    tab.wait_for_selector("a.item")
    assert tab.locator("a.item .picture.sign").count() > 0 and tab.locator("audio").count() == 0
    assert tab.locator("a.item img").count() == 1, "an image is shown rather than the sign of a sound"
    tab.locator("a.item").first.click()
    tab.wait_for_selector("audio[controls]")
    assert tab.get_attribute("audio", "src") == "media/e0.items0-0.wav"
    assert tab.get_attribute(".question img", "src") == "media/e0.items0-1.png", "all media of the prompt"
    assert (tmp_path / "page" / "media" / "e0.items0-0.wav").read_bytes() == b"RIFF"
