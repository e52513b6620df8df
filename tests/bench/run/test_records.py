"""Records of a run: documented fields, exact types, later versions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from moextend.bench.run.complete import refuse_damaged
from moextend.bench.run.config import Identity
from moextend.bench.run.records import RunFacts, StageCost
from moextend.bench.run.rundir import RunDir
from moextend.errors import SpecError
from moextend.util import files
from moextend.util.spec import VERSION, LaterVersion
from tests.bench.conftest import MakeRun
from tests.bench.run.files_doc import FILES, docstrings, fields_of


@pytest.mark.parametrize("record", [*FILES.values(), Identity])
def test_every_field_has_a_docstring(record: type) -> None:
    output = docstrings(record)
    fields = fields_of(record)
    assert set(output) == set(fields)
    for name, field in fields.items():
        may_be_null = type(None) in getattr(field.annotation, "__args__", ())
        assert not may_be_null or "null" in output[name], f"{name}: what null means"


def test_records_survive_writing_and_reading(tmp_path: Path) -> None:
    cost = StageCost.of({"trained_parameters": 5, "loss": 2.5, "seconds": 1}, where="cost")
    cost.write(tmp_path / "cost.json")
    assert StageCost.read_of("", tmp_path / "cost.json") == cost
    assert (cost.schema_version, cost.notes, cost.seconds) == (VERSION, {"loss": 2.5}, 1.0)
    assert json.loads((tmp_path / "cost.json").read_text())["schema_version"] == VERSION
    assert StageCost.read_of("", tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([1], "holds list, not a mapping of keys"),
        ({"seconds": "long"}, "'seconds': Input should be a valid number"),
        ({"seconds": float("nan")}, "'seconds': Input should be a finite number"),
        ({"tokens": 1.5}, "'tokens': Input should be a valid integer"),
        ({"files": {"a": {"bytes": 1}}}, "'files.a.sha256': Field required"),
        ({"schema_version": "x"}, "'schema_version': Input should be a valid integer"),
    ],
)
def test_a_damaged_record_is_named_with_its_place(values: object, problem: str) -> None:
    with pytest.raises(SpecError, match="Remove the file, and run the same command again") as error:
        StageCost.parse(values, where="cost.json")
    assert error.value.where == "cost.json" and problem in error.value.what


def test_a_later_version_is_not_reported_as_damage() -> None:
    with pytest.raises(LaterVersion, match=f"reads versions up to {VERSION}. Update moextend"):
        RunFacts.parse({"schema_version": VERSION + 1, "new": 1}, where="facts.json")


@pytest.mark.parametrize("name", ["config.json", "facts.json", "stages/1-colour/cost.json"])
def test_a_run_of_a_later_version_is_left_as_it_is(make_run: MakeRun, name: str) -> None:
    run = make_run()
    run.write_facts(task_identity="none")
    run.write_cost(1, "colour", StageCost())
    files.write_json(run.folder / name, {**files.read_json(run.folder / name), "schema_version": VERSION + 1})
    before = {path: path.read_bytes() for path in run.folder.rglob("*.json*")}
    with pytest.raises(LaterVersion):
        refuse_damaged(RunDir(run.folder))
        _ = RunDir(run.folder).config
    assert {path: path.read_bytes() for path in run.folder.rglob("*.json*")} == before


def test_damaged_records_of_a_run_are_refused_and_left_as_they_are(make_run: MakeRun) -> None:
    run = make_run()
    path = run.stage_folder(1, "colour") / "cost.json"
    path.write_text('{"seconds": "long"}')
    with pytest.raises(SpecError, match="'seconds': Input should be a valid number") as error:
        refuse_damaged(run)
    assert error.value.where == str(path) and path.read_text() == '{"seconds": "long"}'


def test_records_are_read_without_torch() -> None:
    """`bench status` starts fast."""
    code = (
        "import moextend.bench.run.rundir, moextend.bench.run.progress, sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
