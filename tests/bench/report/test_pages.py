"""Tables of the pages are what a command prints, which their marks name.

Tables that are filled when the site is built are compared by their numbers with tests/fixtures/published.txt:
``python -m tests.bench.report.test_pages`` writes that file from the packs.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from typer.main import get_command

from moextend.bench.report import render, tables
from moextend.bench.report.collect import collect
from moextend.bench.run.rundir import find_runs
from moextend.cli.main import app
from moextend.errors import UnknownName
from tests.bench.ledger import Kind, Shape, write_runs
from tests.bench.report import bases, overview, pages

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
RESULTS = sorted({*(ROOT / "docs" / "results").glob("*.md")} - {overview.PAGE})
BUILT = [ROOT / "docs" / "open-problem.md", *RESULTS]
"""Pages whose tables are filled when the site is built."""
NUMBERS = ROOT / "tests" / "fixtures" / "published.txt"
PAGE = """# Results

<!-- summary: moextend bench report ledger/{moextend,lora}-s{0,1} --format markdown -->
old
<!-- /summary -->

Words.

<!-- matrix: moextend bench report matrix ledger/lora-s0 --format markdown -->
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
    assert "| task1 |" in known["matrix"].body
    assert "\nWords.\n" in page and "\nold\n" not in page
    assert pages.filled(page, runs) == page


def test_parts_of_a_table_can_be_chosen(runs: Path) -> None:
    command = "moextend bench report ledger/{moextend,lora}-s{0,1} --format markdown"
    page = f"<!-- one: {command}\n| columns method, ACC | rows lora | notes Seeds -->\n<!-- /one -->\n"
    (block,) = pages.blocks(pages.filled(page, runs))
    rows = [line for line in block.body.splitlines() if line[:1] in ("|", "-")]
    assert rows[:2] == ["| method | ACC |", "| :--- | ---: |"] and rows[2].startswith("| lora | ")
    assert rows[3:] == ["- Seeds: 0, 1."]
    with pytest.raises(ValueError, match="no part lines of a table"):
        pages.blocks(page.replace("| rows", "| lines"))


def test_marks_name_a_report_of_runs_that_are_there(runs: Path) -> None:
    assert list(pages.expanded("a{,+b}-s{0,1}")) == ["a-s0", "a-s1", "a+b-s0", "a+b-s1"]
    assert list(pages.expanded("moextend:routing=paper,scope=all")) == ["moextend:routing=paper,scope=all"]
    for command, problem, message in (
        ("moextend bench run tiny", ValueError, "is not a command `moextend bench report"),
        ("moextend bench report ledger/lora-s9 --format markdown", UnknownName, "ledger/lora-s9"),
    ):
        with pytest.raises(problem, match=message):
            pages.filled(f"<!-- one: {command} -->\n<!-- /one -->\n", runs)


@pytest.mark.parametrize("path", [README, *BUILT], ids=lambda path: path.name)
def test_every_block_of_the_pages_has_a_mark_with_arguments_that_parse(path: Path) -> None:
    page = bases.BLOCK.sub("", path.read_text(encoding="utf-8"))
    found = pages.blocks(page)
    assert len(re.findall(r"^<!-- .*? -->$", page, re.MULTILINE | re.DOTALL)) == 2 * len(found)
    command = get_command(app)
    for name in ("bench", "report"):
        command = command.commands[name]  # type: ignore[attr-defined]
    for block in found:
        parsed = command.make_context("report", list(block.arguments))
        assert parsed.params["words"], "a block names its runs"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of docs/results/packs."""
    return pages.published(tmp_path_factory.mktemp("published"))


def test_the_tables_of_the_repository_and_of_the_site_are_those_of_the_published_runs(
    published: Path,
) -> None:
    """In one test, since the overview has numbers of the other pages' tables."""
    page = README.read_text(encoding="utf-8")
    assert [block.name for block in pages.blocks(page)] == ["results"]
    assert pages.filled(page, published) == page, "python -m tests.bench.report.pages RUNS README.md"
    assert written(published) == NUMBERS.read_text(encoding="utf-8"), "see above how to write the file again"
    page = overview.PAGE.read_text(encoding="utf-8")
    assert len(overview.BLOCK.findall(page)) == 2
    assert overview.filled(page, published) == page, "python -m tests.bench.report.overview RUNS"
    for path in bases.PAGES:
        page = path.read_text(encoding="utf-8")
        assert bases.BLOCK.search(page), path.name
        assert bases.filled(page, published) == page, "python -m tests.bench.report.bases RUNS"


@pytest.mark.parametrize("path", BUILT, ids=lambda path: path.name)
def test_tables_of_runs_are_not_in_the_repository(path: Path) -> None:
    assert not any(block.body for block in pages.blocks(path.read_text(encoding="utf-8")))


def written(runs: Path) -> str:
    """The numbers of all blocks that are filled when the site is built."""
    lines = []
    for path in BUILT:
        for block in pages.blocks(path.read_text(encoding="utf-8")):
            found = [number for table in pages.shown(block, runs) for number in pages.numbers(table)]
            lines += [f"# {path.stem}: {block.name}", *found, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        NUMBERS.write_text(written(pages.published(Path(folder))), encoding="utf-8")
