"""A Chromium, and a page of four methods in it."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.report import page as pages
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.run.rundir import find_runs
from tests.bench import ledger

WIDTHS = {"phone": (390, 844), "desktop": (1440, 900)}
VIEWS = ["overview", "matrix", "items", "flips", "readings", "routing", "costs"]
HOSTILE = "<img src=x onerror='window.owned=1'></script><script>window.owned=1</script>\x1b[2J"
SEEDS = (0, 1)
OpenPage = Callable[..., Any]
"""Opens a view of the page in a new tab: its name, `size`, `url`, and options of the browser's context."""


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
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
    ledger.sign_predictions(made[-1])
    return folder


@pytest.fixture(scope="package")
def experiments(runs: Path) -> list[Experiment]:
    return collect(find_runs(runs))


@pytest.fixture(scope="package")
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
    end = time.perf_counter() + 60
    while not tab.evaluate(expression, *values):
        assert time.perf_counter() < end, expression
        tab.wait_for_timeout(20)


def count_of(tab: Any) -> int:
    until(tab, "document.getElementById('found')?.textContent")
    return int(tab.inner_text("#found").split()[0].replace(",", ""))
