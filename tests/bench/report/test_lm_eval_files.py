"""Files of lm-evaluation-harness: its own readers take them, with the numbers of the report."""

import csv
import io
import json
from pathlib import Path

import pytest

from moextend.bench.report.collect import collect
from moextend.bench.report.formats.csv import cells
from moextend.bench.report.lm_eval_files import UNSAFE, metric_of, without_folders, write
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError
from tests.bench.cells import cell_of
from tests.bench.ledger import Kind, Shape, write_run, write_runs

SHAPE = Shape(stages=2, texts=1, items=20)


@pytest.fixture
def runs(tmp_path: Path) -> list[RunDir]:
    return write_runs(tmp_path / "runs", SHAPE, {"lora": Kind(), "moextend:scope=own": Kind(keeps=1.0)}, [0])


def export(runs: list[RunDir], out: Path) -> list[Path]:
    return write(collect(runs), out)


def reported(runs: list[RunDir]) -> dict[tuple[str, int, str], dict[str, str]]:
    rows = csv.DictReader(io.StringIO(cells(collect(runs))))
    return {(row["run"], int(row["stage"]), row["task"]): row for row in rows}


def test_lm_eval_reads_its_files(runs: list[RunDir], tmp_path: Path) -> None:
    from lm_eval import utils
    from lm_eval.result_schema import EvalResults

    written = export(runs, tmp_path / "out")
    results = utils.get_results_filenames(list(map(str, written)))
    assert len(results) == len(written) == 6
    for path in map(Path, results):
        found = json.loads(path.read_text())
        assert set(found) - {"moextend"} <= set(EvalResults.__annotations__)
        name = utils.sanitize_model_name(found["model_name"])
        assert (
            path.parent.name == found["model_name_sanitized"] == name == UNSAFE.sub("__", found["model_name"])
        )


def test_lm_eval_prints_the_numbers_of_the_report(runs: list[RunDir], tmp_path: Path) -> None:
    from lm_eval.utils import make_table

    rows, compared = reported(runs), 0
    for path in export(runs, tmp_path / "out"):
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


def test_metrics_of_text_tasks_are_named_as_lm_eval_names_them() -> None:
    cell = cell_of(0, "t", 50, scorer="lm-eval:exact_match", readings={"exact_match,strict": 50.0})
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
    other = write_run(tmp_path / "more", Shape(stages=3, texts=1, items=20), "lora", 0, Kind())
    with pytest.raises(InputError, match="2 runs have the name 'ledger/lora-s0'"):
        export([*runs, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    path = runs[0].folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "environments": []}))
    with pytest.raises(InputError, match="the records have no date"):
        export([RunDir(runs[0].folder)], tmp_path / "out")
