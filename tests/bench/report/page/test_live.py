"""The page over a workspace in a browser: it follows the runs without a reload."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.progress import STATUS
from tests.bench import ledger
from tests.bench.report.page.conftest import until
from tests.bench.report.page.test_access import AXE

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from moextend.bench.report.serve import watcher
from tests.bench.report.serve.serving import add, cut, served

MATRIX = "document.querySelectorAll('.matrix td a').length"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "EVERY", 0.1)
    monkeypatch.setattr(watcher, "SHARE", 1.0)


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A tab; what the console says is an error at the end."""
    context, messages = browser.new_context(viewport={"width": 390, "height": 844}), list[str]()
    found = context.new_page()
    found.on("console", lambda message: messages.append(message.text) if message.type == "error" else None)
    found.on("pageerror", lambda error: messages.append(str(error)))
    yield found
    context.close()
    assert messages == []


def test_cells_arrive_without_a_reload(tab: Any, tmp_path: Path) -> None:
    shape = ledger.Shape(stages=2, items=20)
    (run,) = ledger.write_runs(tmp_path / "runs", shape, {"<b>lora</b>": ledger.Kind()}, [0])
    rest = cut(run, 4)
    with served(tmp_path / "runs") as site:
        tab.goto(f"{site.address.url}#/matrix?run=each")
        until(tab, f"{MATRIX} === 4")
        tab.evaluate("window.kept = true")
        add(run, rest)
        until(tab, f"{MATRIX} === {4 + len(rest)}")
        assert tab.evaluate("window.kept") and tab.evaluate("location.hash") == "#/matrix?run=each"
        assert tab.inner_text(".connection") == "live"
        tab.evaluate("location.hash = '#/items?t=task1'")
        until(tab, "document.querySelectorAll('.item').length > 3")
        with (run.folder / STATUS).open("r+") as file:
            text = file.read().replace('"done"', '"failed"')
            file.seek(0)
            file.write(text)
        tab.click("nav a:has-text('Runs')")
        until(tab, "document.querySelector('.runs td.failed') !== null")
        assert "<b>lora</b>" in tab.inner_text(".runs") and "2.500" in tab.inner_text(".runs")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.evaluate("window.kept")
        tab.goto("about:blank")


def test_a_workspace_without_runs_says_so_until_one_is_there(tab: Any, tmp_path: Path) -> None:
    with served(tmp_path / "runs", token=True) as site:
        tab.goto(site.address.url)
        until(tab, "document.querySelector('main').textContent.includes('There is no run yet')")
        assert "token" not in tab.url
        ledger.write_runs(tmp_path / "runs", ledger.Shape(stages=2, items=8), {"ewc": ledger.Kind()}, [0])
        until(tab, "document.querySelector('section[aria-labelledby=methods]')?.textContent.includes('ewc')")
        tab.goto("about:blank")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier_among_runs(browser: Any, tmp_path: Path, scheme: str) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not here: make page fetches it")
    made = ledger.write_runs(tmp_path / "runs", ledger.Shape(items=8), {"ewc": ledger.Kind()}, [0, 1])
    (made[1].folder / "config.json").write_text("[]")
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    tab = context.new_page()
    with served(tmp_path / "runs") as site:
        tab.goto(f"{site.address.url}#/runs")
        until(
            tab, "document.querySelector('.runs td.damaged') && document.querySelectorAll('nav a').length > 1"
        )
        tab.evaluate(AXE.read_text())
        found = tab.evaluate("axe.run(document, {resultTypes: ['violations']}).then(all => all.violations)")
        context.close()
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
