"""The documentation builds without a warning, and its reference is complete."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from html import unescape
from pathlib import Path
from types import ModuleType

import pytest
import typer
import yaml

import moextend
from moextend.bench.report.paper.setup import read_bib
from moextend.bench.scorers.table import ALL
from moextend.bench.sequence import SequenceSpec, scored_tasks, stage_tasks
from moextend.bench.task import TaskSpec
from moextend.cli.main import app
from moextend.util import content, spec

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, with the tables of one page; tests/bench/report/test_pages.py makes all."""
    pytest.importorskip("mkdocs")
    out = tmp_path_factory.mktemp("site")
    # Not --quiet: mkdocs does not count warnings that it does not print.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NO_MKDOCS_2_WARNING": "1",
        "SITE_TABLES": "results/tiny-repeat.md",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def text_of(page: Path) -> str:
    return unescape(re.sub(r"<[^>]*>", "", page.read_text(encoding="utf-8")))


@pytest.mark.slow  # builds the site: 4 seconds of CPU
def test_the_reference_is_generated_and_complete(site: Path) -> None:
    api = (site / "reference" / "api.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'<h3 id="moextend\.(\w+)"', api))
    modules = {name for name in moextend.__all__ if isinstance(getattr(moextend, name), ModuleType)}
    assert shown == set(moextend.__all__) - modules, "docs/reference/api.md names the public names"

    cli = text_of(site / "reference" / "cli.html")
    commands = typer.main.get_group(app).commands
    for name, command in commands.items():
        for words in [name, *(f"{name} {below}" for below in getattr(command, "commands", {}))]:
            assert f"$ moextend {words}" in cli

    keys = set(
        re.findall(r"<code>(\w+)</code>", (site / "reference" / "yaml.html").read_text(encoding="utf-8"))
    )
    fields = TaskSpec.model_fields | SequenceSpec.model_fields
    assert {name for name, field in fields.items() if not field.exclude} <= keys
    assert "tuning_source" not in keys, "nobody writes it"
    for page, link in (("tuning", "reference/yaml.html"), ("scorers", "reference/scorers.html")):
        assert (
            f'href="{link}"' in (site / f"{page}.html").read_text(encoding="utf-8").partition("<article")[2]
        )
    scorers = (site / "reference" / "scorers.html").read_text(encoding="utf-8")
    assert {f"<code>{each.name}</code>" for each in ALL} <= set(re.findall(r"<code>[^<]*</code>", scorers))
    cards = (site / "reference" / "data.html").read_text(encoding="utf-8")
    sequences = content.names("registry", ROOT)
    assert {f'<h2 id="{name}">' for name in (*sequences, "world")} <= set(
        re.findall(r'<h2 id="[^"]*">', cards)
    )
    assert cards.count(", digest <code>") == len(sequences), "every version is recorded"
    results = (site / "results" / "tiny-repeat.html").read_text(encoding="utf-8")
    assert results.count(">moextend:scope=auto<") >= 2, "tables are filled from packs"
    assert 'loading="lazy"' not in api and "fonts.googleapis" not in api, "no page needs a network"


def test_the_sequence_of_the_how_to_can_be_run() -> None:
    page = (DOCS / "adding.md").read_text(encoding="utf-8")
    (text,) = re.findall(r'```yaml title="registry/mine.yaml"\n(.*?)```', page, flags=re.DOTALL)
    sequence = spec.parse(SequenceSpec, yaml.safe_load(text), where="adding.md")
    assert all(task.data is not None and task.data.train for task in stage_tasks(sequence, ROOT))
    assert len(scored_tasks(sequence, ROOT)) == 2


def test_what_is_cited_is_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"] and citation["license"] == project["license"]
    assert f"## [{project['version']}] - {citation['date-released']}" in (ROOT / "CHANGELOG.md").read_text(
        "utf-8"
    )
    (paper,) = citation["references"]
    assert paper["title"] in (DOCS / "method.md").read_text(encoding="utf-8")
    assert paper["identifiers"][0]["value"] == "arXiv:2408.03511"
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    (author,) = citation["authors"]
    assert [zenodo[key] for key in ("title", "description", "license", "keywords")] == [
        citation[key] for key in ("title", "abstract", "license", "keywords")
    ]
    assert zenodo["creators"] == [author]
    (entry,) = (each for each in read_bib(ROOT / "registry/references.bib") if each.belongs_to("benchmark"))
    assert entry.text in (DOCS / "howto" / "share.md").read_text(encoding="utf-8")
    assert author["name"] in entry.text and citation["title"] in re.sub("[{}]", "", entry.text)


def test_a_release_has_at_most_ten_lines_of_changes() -> None:
    _, *releases = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")
    for name, *lines in (release.splitlines() for release in releases):
        assert sum(line.startswith("- ") for line in lines) <= 10, name
        assert {line for line in lines if line.startswith("#")} <= {
            f"### {kind}"
            for kind in ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Scores")
        }, name


def test_every_key_of_a_yaml_has_a_meaning(site: Path) -> None:
    page = (site / "reference" / "yaml.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr>\s*<td.*?</tr>", page, flags=re.DOTALL)
    empty = [row for row in rows if re.search(r"<td[^>]*></td>\s*</tr>", row)]
    assert len(rows) > 60 and not empty, empty
