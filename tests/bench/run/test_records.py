"""Records of a run: documented fields, exact types, readable in every earlier version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moextend.bench.run.config import Identity
from moextend.bench.run.records import RunFacts, StageCost, Status
from moextend.errors import SpecError
from moextend.util.record import VERSION, LaterVersion
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
    with pytest.raises(SpecError, match="Run the command again") as error:
        StageCost.parse(values, where="cost.json")
    assert error.value.where == "cost.json" and problem in error.value.what


def test_a_later_version_is_not_reported_as_damage() -> None:
    with pytest.raises(LaterVersion, match=f"reads versions up to {VERSION}. Update moextend"):
        RunFacts.parse({"schema_version": VERSION + 1, "new": 1}, where="facts.json")


def test_files_of_early_versions_are_read_in_the_current_form() -> None:
    assert RunFacts.parse({"told": True}, where="").task_identity == "given"
    for settings, known in (
        ({"scope": "auto"}, "inferred"),
        ({"task": "inferred"}, "inferred"),
        ({}, "none"),
    ):
        assert RunFacts.parse({"told": False, "settings": settings}, where="").task_identity == known
    for version in ({}, {"schema_version": VERSION}):
        facts = RunFacts.parse({**version, "blind": {"a": 1.0}}, where="")
        assert facts.majority == {"a": 1.0} and "blind" not in facts.model_dump()
    error = {"what": "x", "where": None, "mend": "y"}
    status = Status.parse({"state": "failed", "error": error}, where="")
    assert status.error is not None and status.error.hint == "y"
