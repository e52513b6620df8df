"""Exports in the schemas of other tools: their own readers and validators take them, with the numbers of the report."""

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.report import schemas
from moextend.bench.report.collect import collect
from moextend.bench.report.csv import cells
from moextend.bench.report.schemas.lm_eval import UNSAFE, metric_of
from moextend.bench.report.schemas.snapshot import without_folders
from moextend.bench.run.rundir import RunDir
from moextend.bench.score.records import Cell
from moextend.errors import InputError, UnknownName
from moextend.util.files import read_lines, sha256
from tests.bench.ledger import Kind, Shape, write_run, write_runs

SHAPE = Shape(stages=2, texts=1, items=20)
FIXTURES = Path(__file__).parents[2] / "fixtures"
STATED = FIXTURES / "every_eval_ever"
Check = Callable[[Any], None]


@pytest.fixture
def runs(tmp_path: Path) -> list[RunDir]:
    return write_runs(tmp_path / "runs", SHAPE, {"lora": Kind(), "moextend:scope=own": Kind(keeps=1.0)}, [0])


def export(runs: list[RunDir], schema: str, out: Path, **how: Any) -> list[Path]:
    return schemas.write(collect(runs), schema, out, **how)


def reported(runs: list[RunDir]) -> dict[tuple[str, int, str], dict[str, str]]:
    rows = csv.DictReader(io.StringIO(cells(collect(runs))))
    return {(row["run"], int(row["stage"]), row["task"]): row for row in rows}


def checker(name: str) -> Check:
    judge = pytest.importorskip("jsonschema", reason="needs the package jsonschema")
    return partial(judge.validate, schema=json.loads((STATED / name).read_text("utf-8")))


def test_lm_eval_reads_its_files(runs: list[RunDir], tmp_path: Path) -> None:
    from lm_eval import utils
    from lm_eval.result_schema import EvalResults, SampleResult

    written = export(runs, "lm-eval", tmp_path / "out", items=True)
    names = list(map(str, written))
    results, samples = utils.get_results_filenames(names), utils.get_sample_results_filenames(names)
    assert (len(results), len(samples)) == (6, 18)
    assert {utils.get_file_task_name(Path(name).name) for name in samples} == {"task1", "task2", "text1"}
    dates = {utils.get_file_datetime(Path(name).name) for name in samples}
    assert {Path(name).name for name in results} <= {f"results_{date}.json" for date in dates}
    for path in map(Path, results):
        found = json.loads(path.read_text())
        assert set(found) - {"moextend"} <= set(EvalResults.__annotations__)
        assert path.parent.name == found["model_name_sanitized"]
        assert (
            path.parent.name
            == utils.sanitize_model_name(found["model_name"])
            == UNSAFE.sub("__", found["model_name"])
        )
    keys = set(read_lines(Path(samples[0]))[0])
    assert set(SampleResult.__annotations__) <= keys


def test_lm_eval_prints_the_numbers_of_the_report(runs: list[RunDir], tmp_path: Path) -> None:
    from lm_eval.utils import make_table

    rows, compared = reported(runs), 0
    for path in export(runs, "lm-eval", tmp_path / "out"):
        found = json.loads(path.read_text())
        own = found["moextend"]
        printed = make_table(found)
        for task, scores in found["results"].items():
            row = rows[own["run"], own["stage"], task]
            metric = "acc" if task == "text1" else row["scorer"]
            value, error = scores[f"{metric},none"], scores[f"{metric}_stderr,none"]
            assert (value, error) == (float(row["value"]) / 100, float(row["stderr"]) / 100)
            (line,) = (line for line in printed.splitlines() if line.startswith(f"|{task}"))
            shown = [cell.strip() for cell in line.split("|")[1:-1]]
            assert (float(shown[6]), float(shown[8])) == (round(value, 4), round(error, 4))
            assert shown[:5] == [task, "1", "none", "" if task == "text1" else "0", metric]
            cell = own["cells"][task]
            assert [str(cell[key]) for key in ("value", "stderr", "n", "scorer", "weights")] == [
                row[key] for key in ("value", "stderr", "n", "scorer", "weights")
            ]
            compared += 1
    assert compared == len(rows) == 18


def test_lm_eval_samples_make_the_score(runs: list[RunDir], tmp_path: Path) -> None:
    from lm_eval.utils import hash_string

    for path in export(runs[:1], "lm-eval", tmp_path / "out", items=True):
        if path.name.startswith("results"):
            results = json.loads(path.read_text())["results"]
            continue
        lines = read_lines(path)
        task, metric = path.name.split("_")[1], lines[0]["metrics"][0]
        assert sum(line[metric] for line in lines) / len(lines) == pytest.approx(
            results[task][f"{metric},none"]
        )
        assert [line["doc_id"] for line in lines] == list(range(20))
        assert lines[0]["target_hash"] == hash_string(lines[0]["target"])
        assert (lines[0]["doc_hash"] is None) == (task == "text1"), "the document of a text task is not kept"


def test_every_eval_ever_is_valid_and_has_the_numbers_of_the_report(
    runs: list[RunDir], tmp_path: Path
) -> None:
    check, rows, compared = checker("eval.schema.json"), reported(runs), 0
    for path in export(runs, "every-eval-ever", tmp_path / "out", organization="A Lab"):
        found = json.loads(path.read_text())
        check(found)
        model = found["model_info"]
        about = model["additional_details"]
        assert model["id"].startswith("A-Lab/") and model["developer"] == "A Lab"
        assert found["source_metadata"]["evaluator_relationship"] == "first_party"
        assert (about["seed"], about["task_identity"], about["base"]) == ("0", "none", "tiny")
        assert "encoder" not in about and "base_revision" not in about, "what is not known is left out"
        for result in found["evaluation_results"]:
            task = result["evaluation_result_id"].partition(":")[0]
            row, details = rows[about["run"], int(about["stage"]), task], result["score_details"]["details"]
            assert (details["percent"], details["stderr_points"]) == (row["value"], row["stderr"])
            assert (details["scorer"], details["weights"]) == (row["scorer"], row["weights"])
            assert result["score_details"]["score"] == float(row["value"]) / 100
            assert result["score_details"]["uncertainty"]["num_samples"] == int(row["n"])
            compared += 1
    assert compared == len(rows)


def test_every_eval_ever_has_the_answers(runs: list[RunDir], tmp_path: Path) -> None:
    check, out = checker("instance_level_eval.schema.json"), tmp_path / "out"
    written = export(runs[:1], "every-eval-ever", out, items=True)
    for path in written[::2]:
        found = json.loads(path.read_text())
        noted = found["detailed_evaluation_results"]
        rows = read_lines(out / noted["file_path"])
        assert noted["total_rows"] == len(rows) == 60
        assert noted["checksum"] == sha256(out / noted["file_path"])
        for row in rows:
            check(row)
            assert (row["evaluation_id"], row["model_id"]) == (
                found["evaluation_id"],
                found["model_info"]["id"],
            )
        for result in found["evaluation_results"]:
            own = [row for row in rows if row["evaluation_result_id"] == result["evaluation_result_id"]]
            mean = sum(row["evaluation"]["score"] for row in own) / len(own)
            assert mean == pytest.approx(result["score_details"]["score"])
    assert export(runs[:1], "every-eval-ever", out) == written[::2]
    assert not list(out.rglob("*_samples.jsonl")), "a record names all samples beside it"


@pytest.mark.skipif(
    not shutil.which("every_eval_ever"),
    reason=f"needs {'the package every_eval_ever' if sys.version_info >= (3, 12) else 'Python 3.12'}",
)
def test_the_validator_of_every_eval_ever_takes_them(runs: list[RunDir], tmp_path: Path) -> None:
    written = export(runs[:1], "every-eval-ever", tmp_path, items=True)
    command = ["every_eval_ever", "validate", "--format", "json"]
    paths = [path.relative_to(tmp_path) for path in written]
    done = subprocess.run([*command, *paths], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert [(one["valid"], one["warnings"]) for one in json.loads(done.stdout)] == [(True, [])] * len(written)


@pytest.mark.parametrize("schema", schemas.SCHEMAS)
def test_equal_runs_make_equal_files(runs: list[RunDir], schema: str, tmp_path: Path) -> None:
    first, second = (export(runs, schema, tmp_path / name, items=True) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert [path.relative_to(tmp_path / "a") for path in first] == [
        path.relative_to(tmp_path / "b") for path in second
    ]
    assert all(str(tmp_path) not in path.read_text() for path in first), "no path of this machine"


@pytest.mark.parametrize("schema", schemas.SCHEMAS)
@pytest.mark.parametrize("damage", ["{}", '{"id": "1", "prediction": "\\ud800", "answers": ["a"]}'])
def test_a_damaged_file_hides_no_other_answers(
    runs: list[RunDir], schema: str, damage: str, tmp_path: Path
) -> None:
    cell = runs[0].cells()[1, "task1"]
    (runs[0].folder / str(cell.predictions)).write_text(f"{damage}\n")
    experiments = collect(runs[:1])
    schemas.write(experiments, schema, tmp_path / "out", items=True)
    assert any("the predictions of task1 (damaged" in note for note in experiments[0].results[0].lacks)
    text = "".join(path.read_text() for path in (tmp_path / "out").rglob("*samples*"))
    assert "task1-test-00000-0" in text and "task2-test-00000-0" in text


def test_texts_stay_data(runs: list[RunDir], tmp_path: Path) -> None:
    hostile = '"}\n{"x": "</script>\\u001b[2J\u2028\x1b'
    cell = runs[0].cells()[0, "task1"]
    path = runs[0].folder / str(cell.predictions)
    lines = read_lines(path)
    lines[0]["prediction"] = hostile
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for schema in schemas.SCHEMAS:
        export(runs[:1], schema, tmp_path / "out", items=True)
    found = [row for file in (tmp_path / "out").rglob("*.jsonl") for row in read_lines(file)]
    answers = [row["output"]["raw"][0] if "output" in row else row["resps"][0][0] for row in found]
    assert answers.count(hostile) == 2


def test_metrics_of_text_tasks_are_named_as_lm_eval_names_them() -> None:
    cell = Cell(
        stage=0, task="t", value=50, scorer="lm-eval:exact_match", readings={"exact_match,strict": 50.0}
    )
    assert metric_of(cell) == ("exact_match", "strict")
    assert metric_of(cell.model_copy(update={"readings": {}})) == ("exact_match", "none")
    assert metric_of(cell.model_copy(update={"scorer": "exact@1"})) == ("exact@1", "none")


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("/home/me/models/a", "a"), ("C:\\models\\a", "a"), ("~/a", "a"), ("org/a", "org/a"), ("world:x", "world:x"),
        ("data:a/b", "data:a/b"), (None, None),
    ],
)  # fmt: skip
def test_names_have_no_folders_of_a_machine(name: str | None, public: str | None) -> None:
    assert without_folders(name) == public


def test_errors(runs: list[RunDir], tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'lm-eval'"):
        schemas.check("lm_eval", None)
    with pytest.raises(InputError, match="no field for it"):
        schemas.check("lm-eval", "A Lab")
    other = write_run(tmp_path / "more", Shape(stages=3, texts=1, items=20), "lora", 0, Kind())
    with pytest.raises(InputError, match="2 runs have the name 'ledger/lora-s0'"):
        export([*runs, other], "lm-eval", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    path = runs[0].folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "environments": []}))
    with pytest.raises(InputError, match="the records have no date"):
        export(runs, "lm-eval", tmp_path / "out")
