"""The page by the command line."""

from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def runs(cli: Cli) -> None:
    cli("bench", "run", "-m", "lora")


def test_html_is_a_page_of_all_views(cli: Cli, runs: None, tmp_path: Path) -> None:
    assert cli("bench", "report", "-f", "html", "-o", "page.html").out == "wrote page.html\n"
    page = (tmp_path / "page.html").read_text()
    assert 'id="part-report"' in page
    assert cli("bench", "report", "-f", "html").out == page
    refused = cli("bench", "report", "-f", "html", "costs")
    assert refused.code == 2 and "html is a page of all views." in refused.err
    assert len(page) < 5_000_000


def test_a_bundle_is_a_folder(cli: Cli, runs: None, tmp_path: Path) -> None:
    found = cli("bench", "report", "-f", "html", "-o", "out")
    assert found.out.split() == ["wrote", "out/index.html"], found.err
    assert 'src="page.js"' in (tmp_path / "out" / "index.html").read_text()
    assert (tmp_path / "out" / "parts" / "e0.routing.js").exists()


def test_the_baseline_of_a_page_is_a_method(cli: Cli, runs: None) -> None:
    wrong = cli("bench", "report", "-f", "html", "--baseline", "lroa")
    assert wrong.code == 2 and "no method 'lroa'. Did you mean 'lora'" in wrong.err
    assert "differences from zero-shot" in cli("bench", "report", "-f", "html", "--baseline", "zero-shot").out
