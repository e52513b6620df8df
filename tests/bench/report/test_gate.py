"""The gate: what is kept, what is lost, and what the items cannot tell."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from moextend.bench import stats
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.views.gate import Check, as_json, gate, gate_table, gates, junit
from moextend.bench.run.rundir import find_runs
from moextend.cli.main import app
from moextend.errors import InputError, UnknownName
from tests.bench.ledger import Kind, Shape, write_runs

SHAPE = Shape(stages=2, texts=1, items=1500, an_image=1, shared_images=False)
KEEPS, FORGETS = Kind(keeps=1.0, text_lost=0.0), Kind(keeps=0.0, text_lost=0.5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate") / "runs"
    write_runs(folder, SHAPE, {"lora": KEEPS, "full-ft": FORGETS}, [0, 1, 2])
    return folder


def experiment(folder: Path, *names: str) -> Experiment:
    (found,) = collect(find_runs(folder, list(names)))
    return found


def cells(checks: list[Check]) -> list[tuple[int, str]]:
    return [(check.stage, check.task) for check in checks]


def test_before_means_own_stage_for_a_learned_task_and_row_0_for_the_others(runs: Path) -> None:
    found = gate(experiment(runs, "ledger/lora-s0"), margin=10)
    assert cells(found.checks) == [(1, "text1"), (2, "task1"), (2, "text1")]
    (result,) = experiment(runs, "ledger/lora-s0").results
    by_cell = {(check.stage, check.task): check for check in found.checks}
    assert by_cell[2, "task1"].before == result.cells[1, "task1"].value
    assert by_cell[2, "text1"].before == result.cells[0, "text1"].value
    assert by_cell[2, "task1"].difference == result.cells[2, "task1"].value - result.cells[1, "task1"].value


def test_a_method_that_forgets_is_lost_and_one_that_keeps_is_kept(runs: Path) -> None:
    kept = gate(experiment(runs, *(f"ledger/lora-s{seed}" for seed in range(3))), margin=10)
    assert kept.verdict == "kept" and kept.counts == {"kept": 3, "lost": 0, "cannot tell": 0}
    lost = gate(experiment(runs, *(f"ledger/full-ft-s{seed}" for seed in range(3))), margin=10)
    assert lost.verdict == "lost"
    assert {(c.stage, c.task) for c in lost.checks if c.verdict == "lost"} >= {(2, "task1"), (2, "text1")}


def test_few_items_cannot_tell_and_say_how_many_would(tmp_path: Path) -> None:
    small = Shape(stages=2, texts=1, items=40, an_image=1, shared_images=False)
    write_runs(tmp_path, small, {"lora": KEEPS}, [0])
    found = gate(experiment(tmp_path), margin=3)
    assert found.verdict == "cannot tell"
    (task,) = [check for check in found.checks if check.task == "task1"]
    assert task.items == 40 and task.items_needed is not None and task.items_needed > 400
    assert task.needs == f"{task.items_needed:,} items"


def _contrast(differences: np.ndarray, floor: float = 0.0) -> stats.Contrast:
    mean = float(differences.mean())
    deviations = (differences - mean)[None] / len(differences)
    return stats.contrast([mean], deviations, changed=int((differences != 0).sum()), floor=floor)


def test_a_loss_of_the_margin_is_called_kept_in_five_percent() -> None:
    rng = np.random.default_rng(2)
    called = sum(_contrast(rng.normal(-1.0, 10.0, 300)).p_not_worse(1.0) < stats.LEVEL for _ in range(1000))
    assert 30 <= called <= 70


def test_the_same_weights_and_inputs_that_reach_nothing_are_kept_however_few_the_items(
    tmp_path: Path,
) -> None:
    small = Shape(stages=2, texts=1, items=20)
    (run,) = write_runs(tmp_path, small, {"lora": KEEPS}, [0])
    run.write_facts(text_untouched=True)
    found = gate(experiment(tmp_path))
    by_cell = {(check.stage, check.task): check for check in found.checks}
    assert by_cell[1, "text1"].verdict == "kept" and by_cell[1, "text1"].needs == "not reached"
    assert by_cell[2, "task1"].verdict == "cannot tell"
    cells = run.cells()
    (first,) = {cell.weights for (stage, _), cell in cells.items() if stage == 1}
    for (stage, _), cell in cells.items():
        run.append_cell(cell.model_copy(update={"weights": first}) if stage else cell)
    again = {(check.stage, check.task): check for check in gate(experiment(tmp_path)).checks}
    assert again[2, "task1"].verdict == "kept" and again[2, "task1"].needs == "same weights"


def test_a_method_a_run_and_the_base_can_be_the_baseline(runs: Path) -> None:
    both = experiment(runs)
    by_method = gate(both, "lora", margin=10)
    assert {check.method for check in by_method.checks} == {"full-ft"}
    assert len(by_method.checks) == 2 * 3
    by_run = gate(experiment(runs, "ledger/full-ft-s1", "ledger/lora-s0"), "lora-s0", margin=10)
    assert {(check.method, check.seeds) for check in by_run.checks} == {("full-ft", 1)}
    assert (
        gate(experiment(runs, "ledger/full-ft-s1", "ledger/lora-s0"), "ledger/lora-s0", margin=10) == by_run
    )
    base = gate(both, "zero-shot", margin=10)
    assert len(base.checks) == 2 * 2 * 3
    with pytest.raises(UnknownName, match="Did you mean 'lora'"):
        gate(both, "lor")
    with pytest.raises(InputError, match="--margin"):
        gate(both, margin=0)


def test_a_method_without_a_seed_of_the_baseline_is_undecided(runs: Path) -> None:
    names = ("lora-s0", "full-ft-s0", "full-ft-s1")
    found = gate(experiment(runs, *(f"ledger/{name}" for name in names)), "lora", margin=99)
    assert found.counts["cannot tell"] == 0 and found.verdict == "cannot tell", "one seed of two is shared"
    assert found.left_out == ["full-ft-s1 (lora has no run with seed 1)"]
    assert any("full-ft-s1 (lora has no run with seed 1)" in note for note in found.notes)
    assert "1 run not tested" in gate_table(found).title and 'errors="1"' in junit([found])
    with pytest.raises(InputError, match="no cell of ledger has a reference"):
        gate(experiment(runs, "ledger/lora-s0", "ledger/full-ft-s1"), "lora")
    runs_of = experiment(runs, "ledger/lora-s0", "ledger/full-ft-s0")
    (other,) = experiment(runs, "ledger/full-ft-s2").results
    config = other.config.model_copy(update={"method": "ewc"})
    runs_of.results.append(replace(other, config=config))
    found = gate(runs_of, "lora", margin=99)
    assert found.verdict == "cannot tell" and found.counts == {"kept": 6, "lost": 0, "cannot tell": 6}
    assert len(found.left_out) == 1
    lacking = [check for check in found.checks if check.method == "ewc"]
    assert {check.needs for check in lacking} == {"a shared seed"} and lacking[0].difference is None
    assert 'errors="6"' in junit([found]) and "needs a shared seed" in junit([found])
    assert any("not run with any seed of lora" in note for note in found.notes)
    assert {cell["lacks"] for cell in as_json([found])[0]["cells"]} == {"", "a shared seed"}


def test_a_cell_without_a_score_is_undecided(runs: Path) -> None:
    """Also where it is missing in one seed, or the run is not finished."""
    found = experiment(runs, *(f"ledger/lora-s{seed}" for seed in range(3)))
    lacking = found.results[1]
    lacking.cells.pop((2, "text1"))
    verdicts = gate(found, margin=10)
    assert verdicts.verdict == "cannot tell" and verdicts.counts == {"kept": 2, "lost": 0, "cannot tell": 1}
    (check,) = [check for check in verdicts.checks if check.lacks]
    assert (check.stage, check.task, check.needs, check.seeds) == (2, "text1", "a score", 2)
    assert any(note.startswith("a score: ") for note in verdicts.notes)
    for result in found.results:
        result.cells.clear()
    with pytest.raises(InputError, match="no cell of ledger has a score") as caught:
        gate(found, margin=10)
    assert caught.value.where != "--baseline"


def test_a_sequence_without_the_baseline_is_undecided_beside_one_that_has_it(tmp_path: Path) -> None:
    write_runs(tmp_path / "a", SHAPE, {"lora": KEEPS, "ewc": KEEPS}, [0, 1])
    write_runs(tmp_path / "b", replace(SHAPE, texts=0), {"lora": KEEPS}, [0, 1])
    both = collect(find_runs(tmp_path / "a") + find_runs(tmp_path / "b"))
    assert len(both) == 2
    first, second = gates(both, "ewc", margin=99)
    assert first.verdict == "kept" and second.verdict == "cannot tell"
    assert second.checks == [] and "no method or run 'ewc'" in second.left_out[0]
    with pytest.raises(UnknownName, match="no method or run 'lwf'"):
        gates(both, "lwf")


def test_a_run_that_is_not_tested_makes_the_gate_undecided(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_runs(runs, SHAPE, {"lora": KEEPS}, [0, 1])
    assert command(runs, "--margin", "20")[0] == 0
    shutil.copytree(runs / "ledger/lora-s0", runs / "ledger/copy")
    assert command(runs, "--margin", "20")[0] == 0, "a copy is tested by the run that it is a copy of"
    state = runs / "ledger/lora-s1/status.json"
    state.write_text(state.read_text().replace('"done"', '"interrupted"'))
    report = tmp_path / "gate.xml"
    for names in ([], ["ledger/lora-s0", "ledger/lora-s1"]):
        code, out = command(runs, *names, "--margin", "20", "--format", "json", "--junit", str(report))
        (found,) = json.loads(out)
        assert (code, found["verdict"], found["left_out"]) == (3, "cannot tell", ["lora-s1 (interrupted)"])
        assert found["counts"]["cannot tell"] == 0
        errors = [
            case for case in ElementTree.parse(report).iter("testcase") if case.find("error") is not None
        ]
        assert [case.get("name") for case in errors] == ["lora-s1 (interrupted)"]
    code, out = command(runs, "--margin", "20")
    assert code == 3 and "1 run not tested" in out and "name the others" in " ".join(out.split())
    assert command(runs, "ledger/lora-s0", "--margin", "20")[0] == 0


def command(runs: Path, *words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["bench", "gate", "-w", str(runs.parent), *words])
    return found.exit_code, found.stdout


def test_exit_codes_and_formats_of_the_command(runs: Path, tmp_path: Path) -> None:
    assert command(runs, "ledger/lora-s0", "--margin", "15")[0] == 0
    assert command(runs, "ledger/lora-s0", "--margin", "0.5")[0] == 3
    report = tmp_path / "gate.xml"
    code, out = command(runs, "--margin", "10", "--format", "json", "--junit", str(report))
    assert code == 1
    (found,) = json.loads(out)
    assert found["verdict"] == "lost" and sum(found["counts"].values()) == len(found["cells"])
    cases = list(ElementTree.parse(report).iter("testcase"))
    assert len(cases) == len(found["cells"])
    failed = sum(case.find("failure") is not None for case in cases)
    assert failed == found["counts"]["lost"] > 0


def test_all_forms_say_the_same(runs: Path) -> None:
    found = gate(experiment(runs), margin=10)
    table = gate_table(found)
    keys = [column.key for column in table.columns]
    rows = [dict(zip(keys, row, strict=True)) for section in table.sections for row in section]
    records = as_json([found])[0]["cells"]
    assert [row["verdict"].text for row in rows] == [record["verdict"] for record in records]
    assert [row["difference"].number for row in rows] == [record["difference"] for record in records]
