"""Tables of the pages are what a command prints, which their marks name."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from moextend.bench.report import render, tables
from moextend.bench.report.collect import collect
from moextend.bench.run.pack import unpack
from moextend.bench.run.rundir import find_runs
from moextend.cli.main import app
from tests.bench.ledger import Kind, Shape, write_runs
from tests.bench.report import overview, pages

ROOT = Path(__file__).parents[3]
RESULTS = sorted({*(ROOT / "docs" / "results").glob("*.md")} - {overview.PAGE})
PAGES = [ROOT / "README.md", ROOT / "docs" / "open-problem.md", *RESULTS]
PACKS = ROOT / "docs" / "results" / "packs"
PAGE = """# Results

<!-- summary: moextend bench report ledger/{moextend,lora}-s{0,1} --format markdown -->
old
<!-- /summary -->

Words.

<!-- matrix: moextend bench report ledger/lora-s0 --matrix -->
<!-- /matrix -->
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_runs(
        folder,
        Shape(stages=2, texts=1, items=20),
        {"lora": Kind(), "moextend": Kind(), "ewc": Kind()},
        [0, 1],
    )
    return folder


def test_a_block_is_what_the_command_prints(runs: Path) -> None:
    page = pages.filled(PAGE, runs)
    known = {block.name: block for block in pages.blocks(page)}
    named = [f"ledger/{method}-s{seed}" for method in ("moextend", "lora") for seed in (0, 1)]
    expected = render(tables(collect(find_runs(runs, named))), "markdown")
    assert known["summary"].body.strip() == expected.strip() and "ewc" not in page
    assert known["matrix"].body.startswith("```text\n") and "task1" in known["matrix"].body
    assert "\nWords.\n" in page and "\nold\n" not in page
    assert pages.filled(page, runs) == page


def test_the_overview_has_the_numbers_of_the_other_pages() -> None:
    page = overview.PAGE.read_text(encoding="utf-8")
    assert len(overview.BLOCK.findall(page)) == 3
    assert overview.filled(page) == page, "python -m tests.bench.report.overview"


def test_only_named_blocks_are_filled(runs: Path) -> None:
    page = pages.filled(PAGE, runs, ["matrix"])
    assert "\nold\n" in page and "```text" in page
    with pytest.raises(ValueError, match="no block other; there are summary, matrix"):
        pages.filled(PAGE, runs, ["other"])


def test_braces_stand_for_words_as_in_a_shell() -> None:
    assert list(pages.expanded("a{,+b}-s{0,1}")) == ["a-s0", "a-s1", "a+b-s0", "a+b-s1"]
    assert list(pages.expanded("moextend:routing=paper,scope=all")) == ["moextend:routing=paper,scope=all"]


@pytest.mark.parametrize("command", ["moextend bench run tiny", "rm -r runs", "moextend bench"])
def test_another_command_is_refused(command: str) -> None:
    with pytest.raises(ValueError, match="is not a command `moextend bench report"):
        pages.blocks(f"<!-- one: {command} -->\n<!-- /one -->\n")


def test_a_run_that_is_not_there_is_refused(runs: Path) -> None:
    with pytest.raises(ValueError, match="ledger/lora-s9"):
        pages.filled("<!-- one: moextend bench report ledger/lora-s9 -->\n<!-- /one -->\n", runs)


def test_the_command_writes_and_compares(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    codes = []
    for option in ("--page", "--write", "--page"):
        monkeypatch.setattr(sys, "argv", ["pages", str(runs), option, str(path)])
        codes.append(pages.main())
    assert codes == [1, 0, 0] and path.read_text() == pages.filled(PAGE, runs)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_block_of_the_pages_has_a_mark_with_arguments_that_parse(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    found = pages.blocks(page)
    assert len(re.findall(r"^<!-- .* -->$", page, re.MULTILINE)) == 2 * len(found)
    command = get_command(app)
    for name in ("bench", "report"):
        command = command.commands[name]  # type: ignore[attr-defined]
    for block in found:
        parsed = command.make_context("report", list(block.arguments))
        assert parsed.params["names"], "a block names its runs"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of docs/results/packs."""
    folder = tmp_path_factory.mktemp("published")
    for path in sorted(PACKS.glob("*.tar.zst")):
        unpack(path, folder / "runs", folder)
    return folder / "runs"


def test_the_tables_of_published_runs_can_be_made_again(published: Path) -> None:
    checked = set[str]()
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        names = [block.name for block in pages.blocks(page) if are_here(block, published)]
        assert not names or pages.filled(page, published, names) == page, path
        checked |= {f"{path.stem}: {name}" for name in names}
    wanted = {
        "README": ["demo", "results"],
        "tiny": [
            "default",
            "compared",
            "tasks",
            "ablations",
            "ablations-compared",
            "calibration",
            "calibration-compared",
        ],
        "tiny-alike": ["methods", "matrix"],
        "tiny-conflict": ["methods", "matrix"],
        "tiny-drift": ["methods", "matrix"],
        "tiny-repeat": ["methods", "matrix"],
        "tiny-long": ["methods", "matrix", "orders"],
        "tiny-modal": ["methods", "matrix", "transfer"],
        "open-problem": ["ideas"],
        "real-small": ["stories", "stories-tasks", "small", "small-tasks", "small-text"],
    }
    assert {f"{page}: {name}" for page, names in wanted.items() for name in names} <= checked


def are_here(block: pages.Block, runs: Path) -> bool:
    """Whether all runs of a block are published."""
    return all((runs / name / "config.json").is_file() for name in block.arguments if "/" in name)


@pytest.mark.parametrize(("name", "count"), [("tiny", 7)])
def test_no_table_of_the_embedded_default_is_outside_a_block(name: str, count: int) -> None:
    page = (ROOT / "docs" / "results" / f"{name}.md").read_text(encoding="utf-8")
    assert len(pages.blocks(page)) == count
    assert not re.search(r"^\|", pages.BLOCK.sub("", page), re.MULTILINE)
