"""The page by the command line."""

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def runs(cli: Cli) -> None:
    cli("bench", "run", "-m", "lora")


def test_html_is_a_page_and_views_are_tables(cli: Cli, runs: None, tmp_path: Path) -> None:
    assert cli("bench", "report", "-f", "html", "-o", "page.html").out == "wrote page.html\n"
    page = (tmp_path / "page.html").read_text()
    assert 'id="part-report"' in page
    assert cli("bench", "report", "-f", "html").out == page
    table = cli("bench", "report", "-f", "html", "costs").out
    assert "<table>" in table and "part-report" not in table
    assert len(page) < 5_000_000


def test_a_bundle_is_a_folder(cli: Cli, runs: None, tmp_path: Path) -> None:
    found = cli("bench", "report", "--bundle", "out")
    assert found.out.split() == ["wrote", "out/index.html"], found.err
    assert 'src="page.js"' in (tmp_path / "out" / "index.html").read_text()
    assert (tmp_path / "out" / "parts" / "e0.routing.js").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["matrix"], "matrix"),
        (["-f", "csv"], "--format"),
        (["-o", "x.html"], "--out"),
        (["items", "-f", "csv"], "--bundle"),
    ],
)
def test_a_bundle_refuses_what_does_not_belong_to_it(
    cli: Cli, tmp_path: Path, options: list[str], named: str
) -> None:
    refused = cli("bench", "report", "--bundle", "out", *options)
    assert refused.code == 2 and re.search(f"cannot be combined with {named}", refused.err), refused.err
    assert not (tmp_path / "out").exists()


def test_the_baseline_of_a_page_is_a_method(cli: Cli, runs: None) -> None:
    wrong = cli("bench", "report", "-f", "html", "--baseline", "lroa")
    assert wrong.code == 2 and "no method 'lroa'. Did you mean 'lora'" in wrong.err
    assert "differences from zero-shot" in cli("bench", "report", "-f", "html", "--baseline", "zero-shot").out
