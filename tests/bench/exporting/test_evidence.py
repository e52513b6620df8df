"""Certificates and model cards of a run's stages: base, data, row of forgetting, results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from moextend.bench.exporting.evidence import forgetting_claim
from moextend.bench.run.rundir import RunDir
from moextend.cli.main import app
from tests.bench.small import finished, small_workspace
from tests.certificate.conftest import made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> RunDir:
    folder = tmp_path_factory.mktemp("evidence")
    small_workspace(folder, ["tiny-attributes", "tiny-counting"], ["tiny-facts"], limit=4)
    return finished(folder, "moextend:scope=auto,layers=first")


def call(*words: str) -> Any:
    return CliRunner().invoke(app, words, catch_exceptions=False)


def claims(path: Path) -> dict[str, Any]:
    (file,) = path.glob("certificate-*.json")
    record = json.loads(file.read_text())
    return {one["name"]: one for one in record["claims"]}


@pytest.mark.slow
def test_a_stage_is_certified_with_its_base_and_data(run: RunDir, tmp_path: Path) -> None:
    workspace = run.folder.parents[2]
    done = call(
        "certify", f"small/{run.folder.name}:2", "--workspace", str(workspace), "--items", "4", "--out", str(tmp_path)
    )  # fmt: skip
    found = claims(tmp_path)
    assert done.exit_code == 0, {name: one["reason"] for name, one in found.items()}
    near = found["near inputs, task inferred"]
    assert near["status"] == "proved" and {"questions as text", "near data"} <= {
        one["name"] for one in near["sets"]
    }
    row = found["forgetting"]
    assert row["status"] == "proved" and row["evidence"]["stage"] == "2-tiny-counting"
    assert row["evidence"]["change of text"] == 0.0 and "forgetting (FM)" in row["evidence"]
    assert call("certify", "--check", str(tmp_path)).exit_code == 0
    assert not list((run.folder / "stages" / "2-tiny-counting").glob("certificate-*"))


@pytest.mark.slow
def test_the_card_of_a_stage_has_the_results_of_the_run(run: RunDir) -> None:
    shown = call(
        "push", str(run.folder / "stages" / "1-tiny-attributes"), "me/attributes", "--dry-run"
    ).output
    listed, _, text = shown.partition("left out: ")
    names = {line.split()[-1] for line in listed.splitlines() if line.startswith("  ")}
    assert names == {"extension.json", "extension.safetensors", "task_statistics.safetensors", "README.md"}
    assert "cost.json" in text.splitlines()[0]
    card = yaml.safe_load(text.split("---")[1])
    (model,) = card["model-index"]
    assert {one["dataset"]["name"] for one in model["results"]} == {
        "tiny-attributes",
        "tiny-counting",
        "tiny-facts",
    }
    assert "learning accuracy (LA)" in text and "scope-auto" in card["tags"]
    assert "moextend bench run small --method" in text


@pytest.mark.slow
def test_an_extension_of_no_stage_is_found(run: RunDir, tmp_path: Path) -> None:
    made(tmp_path / "other")
    found = forgetting_claim(run, tmp_path / "other")
    assert found.status == "failed" and "no stage of the run" in found.reason
    words = ["certify", f"small/{run.folder.name}:3", "--workspace", str(run.folder.parents[2])]
    assert "has stages 1 to 2, not 3" in str(CliRunner().invoke(app, words).exception)
