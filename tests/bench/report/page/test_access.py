"""The page for everybody: by keyboard, by screen reader, in the dark, and in print."""

from pathlib import Path

import pytest

from tests.bench.report.page.conftest import VIEWS, OpenPage, count_of, until

AXE = Path(__file__).parents[4] / "page" / "node_modules" / "axe-core" / "axe.min.js"
"""What checks a page for barriers to people who use a keyboard, a screen reader or little contrast."""


def test_the_keyboard_reaches_everything(open_page: OpenPage) -> None:
    tab = open_page("items?t=task1")
    count_of(tab)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.focus(".item >> nth=0")
    tab.keyboard.press("ArrowDown")
    until(tab, "document.activeElement.closest('[data-place]')?.dataset.place === '1'")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".answers")
    first = tab.inner_text("h1")
    tab.keyboard.press("ArrowRight")
    until(tab, "text => document.querySelector('h1').textContent !== text", first)
    tab.keyboard.press("Escape")
    tab.wait_for_selector(".virtual")


def test_dark_is_dark_and_stays(open_page: OpenPage) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = open_page(color_scheme="light")
    assert light.evaluate(paper) == "rgb(255, 255, 255)"
    assert sum(map(int, open_page(color_scheme="dark").evaluate(paper)[4:-1].split(","))) < 120
    for _ in range(2):  # auto, light, dark
        light.click(".theme")
    until(light, "document.documentElement.dataset.theme === 'dark'")
    light.reload()
    light.wait_for_selector("main table")
    assert sum(map(int, light.evaluate(paper)[4:-1].split(","))) < 120


@pytest.mark.slow  # ten views, each looked at by axe
@pytest.mark.parametrize(("size", "scheme"), [("phone", "dark"), ("desktop", "light")])
def test_axe_finds_no_barrier(open_page: OpenPage, size: str, scheme: str) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not here: make page fetches it")
    for view in [*VIEWS, "item?t=task1&of=task1&id=task1-test-00007-1"]:
        tab = open_page(view, size, color_scheme=scheme, bypass_csp=True)
        tab.wait_for_selector("main table, main ul, main dl")
        tab.evaluate(AXE.read_text())
        found = tab.evaluate(
            "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)"
        )
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == [], view
