"""The page in a browser: it sorts, filters, searches, links, and fits a phone; numbers are those of the tables."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moextend.bench import frame
from moextend.bench.report import page as pages
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.fate import item_fates
from moextend.bench.report.table import number
from moextend.bench.run.rundir import find_runs
from tests.bench import ledger

WIDTHS = {"phone": (390, 844), "desktop": (1440, 900)}
VIEWS = ["overview", "matrix", "items", "flips", "readings", "routing", "costs", "provenance", "limits"]
HOSTILE = "<img src=x onerror='window.owned=1'></script><script>window.owned=1</script>\x1b[2J"
SEEDS = (0, 1)
OpenPage = Callable[..., Any]
"""Opens a view of the page in a new tab: its name, `size`, `url`, and options of the browser's context."""
AXE = Path(__file__).parents[3] / "page" / "node_modules" / "axe-core" / "axe.min.js"
"""What checks a page for barriers to people who use a keyboard, a screen reader or little contrast."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium: that of Playwright, or the system's."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("no browser: Playwright for Python is needed")
    with sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome")
        found = [None, *(path for name in names if (path := shutil.which(name)))]
        for path in found:
            try:
                started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            except Exception:
                continue
            yield started
            started.close()
            return
        pytest.skip("no browser: install chromium (playwright install chromium, or the system's package)")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs of four methods; 400 items make scores halfway between two decimals."""
    folder = tmp_path_factory.mktemp("browser") / "runs"
    methods = {
        "lora": ledger.Kind(keeps=0.3, run_sd=0.02), "replay": ledger.Kind(keeps=0.9, run_sd=0.02),
        "lora:rank=2": ledger.Kind(), "<b>bold</b>": ledger.Kind(),
    }  # fmt: skip
    made = ledger.write_runs(folder, ledger.Shape(stages=3, texts=1, items=400), methods, SEEDS)
    for path in made[-1].predictions.rglob("*.jsonl"):
        if "scores" not in path.name:
            path.write_text(
                path.read_text().replace('"prediction": "b"', f'"prediction": {json.dumps(HOSTILE)}')
            )
    return folder


@pytest.fixture(scope="module")
def experiments(runs: Path) -> list[Experiment]:
    return collect(find_runs(runs))


@pytest.fixture(scope="module")
def address(experiments: list[Experiment], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("shown") / "page.html"
    path.write_text(pages.page(experiments), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[OpenPage]:
    """Opens a view; what the console says is an error at the end."""
    messages, contexts = list[str](), []

    def opened(view: str = "overview", size: str = "desktop", url: str | None = None, **more: Any) -> Any:
        width, height = WIDTHS[size]
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **more))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: messages.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.on(
            "request",
            lambda request: messages.append(request.url) if request.url.startswith("http") else None,
        )
        tab.goto(f"{url or address}#/{view}")
        tab.wait_for_selector("main h1")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert messages == []


def until(tab: Any, expression: str, *values: Any) -> None:
    """Waits for an expression; the page's policy forbids what Playwright would do for that."""
    end = time.perf_counter() + 20
    while not tab.evaluate(expression, *values):
        assert time.perf_counter() < end, expression
        tab.wait_for_timeout(20)


def found(tab: Any) -> int:
    until(tab, "document.getElementById('found')?.textContent")
    return int(tab.inner_text("#found").split()[0].replace(",", ""))


@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fits(open_page: OpenPage, view: str, size: str) -> None:
    tab = open_page(view, size)
    tab.wait_for_selector("main table, main ul, main dl, main p")
    assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS[size][0]
    assert tab.evaluate("window.owned") is None
    assert tab.inner_text("nav a[aria-current]")


def test_the_first_view_is_quick(browser: Any, address: str) -> None:
    tab = browser.new_page()
    start = time.perf_counter()
    tab.goto(address)
    tab.wait_for_selector("main table")
    taken = time.perf_counter() - start
    tab.close()
    assert taken < 3, "1 s where nothing else runs"


def test_the_matrix_has_the_digits_of_the_tables(open_page: OpenPage, experiments: list[Experiment]) -> None:
    tab = open_page("matrix?run=each")
    shown = tab.eval_on_selector_all(
        ".matrix td a", "links => links.map(a => [a.getAttribute('aria-label'), a.firstChild.textContent])"
    )
    cells = [cell for one in experiments[0].results for cell in one.cells.values()]
    assert len(shown) == len(cells) and any(cell.value % 0.5 == 0.25 for cell in cells)
    wanted = {(f"{cell.task} after stage {cell.stage}", number(cell.value).text) for cell in cells}
    assert {(label.split(":")[0], text) for label, text in shown} == wanted


def test_decimals_are_those_of_python(open_page: OpenPage, experiments: list[Experiment]) -> None:
    tab = open_page("matrix?run=each&v=change")
    shown = tab.eval_on_selector_all(".matrix td a", "links => links.map(a => a.firstChild.textContent)")
    changes = [
        number(cell.value - one.cells[0, task].value, signed=True).text
        for one in experiments[0].results
        for (_, task), cell in one.cells.items()
    ]
    assert sorted(shown) == sorted(changes)


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
    assert found(tab) == 400
    for name, count in wanted.items():
        tab.select_option("label:has-text('Show') select", name)
        until(tab, "name => location.hash.includes(`f=${name}`)", name)
        assert found(tab) == int(count), name


@pytest.mark.filterwarnings("ignore:Not complete")
def test_one_method_right_where_another_lost(open_page: OpenPage, runs: Path) -> None:
    results = frame(workspace=runs.parent).query("task == 'task1' and seed == 0")
    table = results.assign(method=results["method"].astype(str)).pivot(
        index="item", columns=["method", "stage"], values="score"
    )
    lora = table["lora"]
    wanted = ((table["replay"][3] == 1) & (lora[3] == 0) & (lora.to_numpy().max(axis=1) == 1)).sum()
    assert found(open_page("items?t=task1&seed=0&f=a-not-b&a=replay&b=lora")) == int(wanted) > 0


def test_the_search_finds_questions_and_answers(open_page: OpenPage) -> None:
    tab = open_page("items?t=task2")
    tab.keyboard.press("/")
    tab.keyboard.type("object 12 at")
    until(tab, "document.getElementById('found').textContent.startsWith('1 of')")
    assert "what color is object 12 at top" in tab.inner_text(".item")
    tab.fill("input[type=search]", "no such words")
    until(tab, "document.getElementById('found').textContent.startsWith('0 of')")


def test_lists_hold_only_rows_near_the_screen(open_page: OpenPage) -> None:
    tab = open_page("items?t=*")
    assert found(tab) == 1600
    assert tab.locator(".item").count() < 40
    tab.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    tab.wait_for_selector("[data-place='1599']")


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
    assert found(tab) == round(400 * (1 - cell.value / 100))
    tab.click("text=what the score rests on")
    tab.wait_for_selector("dl.facts")
    assert cell.sha256 in tab.inner_text("main") and cell.weights in tab.inner_text("main")


def test_the_keyboard_reaches_everything(open_page: OpenPage) -> None:
    tab = open_page("items?t=task1")
    found(tab)
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


def contrast(first: str, second: str) -> float:
    def light(color: str) -> float:
        part = np.array([int(one) for one in color[color.index("(") + 1 : -1].split(",")[:3]]) / 255
        part = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        return float(part @ [0.2126, 0.7152, 0.0722])

    high, low = sorted([light(first), light(second)], reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(open_page: OpenPage, scheme: str) -> None:
    tab = open_page(color_scheme=scheme)
    for place in ("main p", "nav a", ".data thead button", ".spread", "a[href*=limits]"):
        color, paper = tab.evaluate(
            "place => [document.querySelector(place), document.body].map(one => getComputedStyle(one))"
            ".map((style, i) => (i ? style.backgroundColor : style.color))",
            place,
        )
        assert contrast(color, paper) >= 4.5, place


@pytest.mark.slow  # nine views
def test_every_control_has_a_name(open_page: OpenPage) -> None:
    for view in VIEWS:
        tab = open_page(view)
        tab.wait_for_selector("main table, main ul, main dl")
        unnamed = tab.evaluate(
            """() => [...document.querySelectorAll('button, a, select, input')]
                .filter(one => !one.textContent.trim() && !one.getAttribute('aria-label') && !one.labels?.length)
                .map(one => one.outerHTML)"""
        )
        assert unnamed == [] and tab.locator("h1").count() == 1
        assert tab.locator("table:not(:has(caption))").count() == 0


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


def test_answers_are_shown_as_they_are(open_page: OpenPage) -> None:
    tab = open_page("item?t=task1&of=task1&id=task1-test-00000-0&seed=1&all=1")
    tab.wait_for_selector(".answers")
    tab.wait_for_timeout(100)
    assert tab.evaluate("window.owned") is None and tab.locator("main img[src=x]").count() == 0
    shown = tab.inner_text("main")
    assert "<b>bold</b>" in shown and "\x1b" not in shown
    assert found(open_page("items?t=task1&seed=1&q=onerror")) > 0


def test_a_print_has_no_controls(open_page: OpenPage) -> None:
    tab = open_page()
    tab.emulate_media(media="print")
    assert not tab.is_visible("nav") and tab.is_visible("main table")


def test_a_bundle_works_from_the_disk(
    open_page: OpenPage, experiments: list[Experiment], tmp_path: Path
) -> None:
    index = pages.bundle(experiments, tmp_path / "out")
    tab = open_page("items?t=*", url=index.as_uri())
    assert found(tab) == 1600
    (tmp_path / "out/parts/e0.flips.js").unlink()
    tab.evaluate("location.hash = '#/provenance'")
    tab.wait_for_selector("dl")


def test_a_missing_part_is_named(browser: Any, experiments: list[Experiment], tmp_path: Path) -> None:
    index = pages.bundle(experiments, tmp_path / "out")
    (tmp_path / "out/parts/e0.flips.js").unlink()
    tab = browser.new_page()
    tab.goto(f"{index.as_uri()}#/flips")
    assert "parts/e0.flips.js is missing" in tab.inner_text(".warning")
    tab.close()


def test_experiments_stand_side_by_side(open_page: OpenPage, tmp_path: Path) -> None:
    for stages in (2, 3):
        shape = ledger.Shape(stages=stages, texts=1, items=20)
        ledger.write_runs(
            tmp_path / f"runs{stages}", shape, {"lora": ledger.Kind(), "ewc": ledger.Kind()}, [0]
        )
    both = collect([run for stages in (2, 3) for run in find_runs(tmp_path / f"runs{stages}")])
    path = tmp_path / "both.html"
    path.write_text(pages.page(both), encoding="utf-8")
    tab = open_page("matrix", url=path.as_uri())
    assert tab.locator(".matrix").first.locator("tbody tr").count() == 3
    tab.select_option("label:has-text('Experiment') select", "1")
    until(tab, "document.querySelectorAll('.matrix')[0].querySelectorAll('tbody tr').length === 4")
    tab.click("nav a:has-text('Items')")
    until(tab, "location.hash === '#/items?x=1'")
    tab.click(".item >> nth=0")
    tab.wait_for_selector(".answers")
    assert tab.locator(".answers thead th").count() == 2 + 4
    tab.click("text=← Items")
    tab.wait_for_selector(".virtual")
    assert "x=1" in tab.evaluate("location.hash")
