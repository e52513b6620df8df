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
from moextend.bench.report.views.gate import Check, Gate, as_json, as_junit, gate, gate_table, gates
from moextend.bench.run.rundir import find_runs
from moextend.cli.main import app
from moextend.errors import InputError, UnknownName
from tests.bench.ledger import Kind, Shape, write_runs

SHAPE = Shape(stages=2, texts=1, items=600, an_image=1, shared_images=False)
KEEPS, FORGETS = Kind(keeps=1.0, text_lost=0.0), Kind(keeps=0.0, text_lost=0.5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate") / "runs"
    write_runs(folder, SHAPE, {"lora": KEEPS, "full-ft": FORGETS}, [0, 1, 2])
    return folder


def experiment(folder: Path, *names: str) -> Experiment:
    (found,) = collect(find_runs(folder, [f"ledger/{name}" for name in names]))
    return found


def by_cell(found: Gate) -> dict[tuple[int, str], Check]:
    return {(check.stage, check.task): check for check in found.checks}


def test_before_means_own_stage_for_a_learned_task_and_row_0_for_the_others(runs: Path) -> None:
    (result,) = (own := experiment(runs, "lora-s0")).results
    found = by_cell(gate(own, margin=10))
    assert list(found) == [(1, "text1"), (2, "task1"), (2, "text1")]
    assert found[2, "task1"].before == result.cells[1, "task1"].value
    assert found[2, "text1"].before == result.cells[0, "text1"].value
    assert found[2, "task1"].difference == result.cells[2, "task1"].value - result.cells[1, "task1"].value


def test_a_method_that_forgets_is_lost_and_one_that_keeps_is_kept(runs: Path) -> None:
    kept = gate(experiment(runs, *(f"lora-s{seed}" for seed in range(3))), margin=15)
    assert kept.verdict == "kept" and kept.counts == dict.fromkeys(kept.counts, 0) | {"kept": 3}
    lost = gate(experiment(runs, *(f"full-ft-s{seed}" for seed in range(3))), margin=10)
    assert lost.verdict == "lost"
    assert {key for key, check in by_cell(lost).items() if check.verdict == "lost"} >= {
        (2, "task1"), (2, "text1"),
    }  # fmt: skip


def test_few_items_cannot_tell_and_say_how_many_would(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", replace(SHAPE, items=40), {"lora": KEEPS}, [0])
    found = gate(experiment(tmp_path / "runs", "lora-s0"), margin=3)
    task = by_cell(found)[2, "task1"]
    assert found.verdict == "cannot tell"
    assert task.items == 40 and task.items_needed is not None and task.items_needed > 400
    assert task.needs == f"{task.items_needed:,} items"


def test_a_loss_of_the_margin_is_called_kept_in_five_percent() -> None:
    rng, called = np.random.default_rng(2), 0
    for _ in range(1000):
        items = rng.normal(-1.0, 10.0, 300)
        mean = float(items.mean())
        found = stats.contrast([mean], (items - mean)[None] / 300, changed=300)
        called += found.p_not_worse(1.0) < stats.LEVEL
    assert 30 <= called <= 70


def test_where_seeds_cannot_tell_the_items_tell_of_these_runs(tmp_path: Path) -> None:
    """A loss that is certain in every run, and by as much as 15 points another one in each."""
    for seed, keeps in enumerate((0.7, 0.2, 0.0)):
        write_runs(tmp_path / "runs", SHAPE, {"full-ft": replace(KEEPS, keeps=keeps)}, [seed])
    every = gate(experiment(tmp_path / "runs"), margin=5)
    check = by_cell(every)[2, "task1"]
    assert check.found is not None and check.found.interval()[1] > 0 > check.found.of_these_runs.interval()[1]
    assert check.verdict == "lost in these runs" and every.verdict == "lost"
    assert check.seeds_needed is not None and check.seeds_needed > 3 and "seeds" in check.needs
    assert check.low is not None and check.low_here is not None and check.low < check.low_here


def test_the_same_weights_and_inputs_that_reach_nothing_are_kept_however_few_the_items(
    tmp_path: Path,
) -> None:
    (run,) = write_runs(tmp_path / "runs", Shape(stages=2, texts=1, items=20), {"lora": KEEPS}, [0])
    run.write_facts(text_untouched=True)
    found = by_cell(gate(experiment(tmp_path / "runs", "lora-s0")))
    assert (found[1, "text1"].verdict, found[1, "text1"].needs) == ("kept", "not reached")
    assert found[2, "task1"].verdict == "cannot tell"
    cells = run.cells()
    for (stage, _), cell in cells.items():
        run.append_cell(cell.model_copy(update={"weights": cells[1, "task1"].weights}) if stage else cell)
    again = by_cell(gate(experiment(tmp_path / "runs", "lora-s0")))[2, "task1"]
    assert (again.verdict, again.needs) == ("kept", "same weights")


def test_a_method_a_run_and_the_base_can_be_the_baseline(runs: Path) -> None:
    every, two = experiment(runs), experiment(runs, "full-ft-s1", "lora-s0")
    by_method = gate(every, "lora", margin=10)
    assert {check.method for check in by_method.checks} == {"full-ft"} and len(by_method.checks) == 2 * 3
    by_run = gate(two, "lora-s0", margin=10)
    assert {(check.method, check.seeds) for check in by_run.checks} == {("full-ft", 1)}
    assert gate(two, "ledger/lora-s0", margin=10) == by_run
    assert len(gate(every, "zero-shot", margin=10).checks) == 2 * 2 * 3
    with pytest.raises(UnknownName, match="Did you mean 'lora'"):
        gate(every, "lor")
    with pytest.raises(InputError, match="--margin"):
        gate(every, margin=0)
    with pytest.raises(InputError, match="no cell of ledger has a reference"):
        gate(two, "lora")


def test_a_run_without_a_seed_of_the_baseline_makes_the_gate_undecided(runs: Path) -> None:
    found = gate(experiment(runs, "lora-s0", "full-ft-s0", "full-ft-s1"), "lora", margin=99)
    assert found.counts["cannot tell"] == 0 and found.verdict == "cannot tell", "one seed of two is shared"
    assert found.left_out == ["full-ft-s1 (lora has no run with seed 1)"]
    assert any("full-ft-s1 (lora has no run with seed 1)" in note for note in found.notes)
    assert "1 run not tested" in gate_table(found).title


def test_a_cell_without_a_score_is_undecided(runs: Path) -> None:
    """Also where it is missing in one seed, or the run is not finished."""
    found = experiment(runs, *(f"lora-s{seed}" for seed in range(3)))
    found.results[1].cells.pop((2, "text1"))
    judged = gate(found, margin=15)
    assert (
        judged.verdict == "cannot tell" and judged.counts["kept"] == 2 and judged.counts["cannot tell"] == 1
    )
    check = by_cell(judged)[2, "text1"]
    assert (check.lacks, check.needs, check.seeds) == ("a score", "a score", 2)
    assert any(note.startswith("a score: ") for note in judged.notes)
    for result in found.results:
        result.cells.clear()
    with pytest.raises(InputError, match="no cell of ledger has a score"):
        gate(found, margin=10)


def test_a_sequence_without_the_baseline_is_undecided_beside_one_that_has_it(tmp_path: Path) -> None:
    small = replace(SHAPE, items=100)
    write_runs(tmp_path / "a", small, {"lora": KEEPS, "ewc": KEEPS}, [0, 1])
    write_runs(tmp_path / "b", replace(small, texts=0), {"lora": KEEPS}, [0, 1])
    both = collect(find_runs(tmp_path / "a") + find_runs(tmp_path / "b"))
    first, second = gates(both, "ewc", margin=99)
    assert (first.verdict, second.verdict, second.checks) == ("kept", "cannot tell", [])
    assert "no method or run 'ewc'" in second.left_out[0]
    with pytest.raises(UnknownName, match="no method or run 'lwf'"):
        gates(both, "lwf")


def command(runs: Path, *words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["bench", "gate", "-w", str(runs.parent), *words])
    return found.exit_code, found.stdout


def test_exit_codes_and_a_run_that_is_not_tested(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_runs(runs, replace(SHAPE, items=300), {"lora": KEEPS}, [0, 1])
    assert command(runs, "--margin", "30")[0] == 0
    assert command(runs, "--margin", "0.5")[0] == 3
    shutil.copytree(runs / "ledger/lora-s0", runs / "ledger/copy")
    assert command(runs, "--margin", "30")[0] == 0, "a copy is tested by the run that it is a copy of"
    state = runs / "ledger/lora-s1/status.json"
    state.write_text(state.read_text().replace('"done"', '"interrupted"'))
    code, out = command(runs, "--margin", "30", "--format", "json")
    (found,) = json.loads(out)
    assert (code, found["verdict"], found["left_out"]) == (3, "cannot tell", ["lora-s1 (interrupted)"])
    assert found["counts"]["cannot tell"] == 0
    code, out = command(runs, "--margin", "30")
    assert code == 3 and "1 run not tested" in out and "name the others" in " ".join(out.split())
    assert command(runs, "ledger/lora-s0", "--margin", "30")[0] == 0


def test_all_forms_say_the_same(runs: Path) -> None:
    found = gate(experiment(runs), margin=10)
    code, out = command(runs, "--margin", "10", "--format", "json")
    (record,) = json.loads(out)
    assert code == 1 and record == json.loads(json.dumps(as_json([found])[0]))
    assert record["verdict"] == "lost" and sum(record["counts"].values()) == len(record["cells"])
    for name in ("verdict", "difference"):
        shown = [
            row[name].text if name == "verdict" else row[name].number for row in gate_table(found).records
        ]
        assert shown == [cell[name] for cell in record["cells"]]
    cases = ElementTree.fromstring(command(runs, "--margin", "10", "--format", "junit")[1]).findall(
        ".//testcase"
    )
    verdicts = {"failure": "lost", "error": "cannot tell"}
    read = [next((verdicts[child.tag] for child in case), "kept") for case in cases]
    assert read == [cell["verdict"] for cell in record["cells"]] and "lost" in read
    (suite,) = ElementTree.fromstring(as_junit([replace(found, left_out=["lora-s1 (interrupted)"])]))
    assert int(suite.attrib["errors"]) == read.count("cannot tell") + 1, "what is not tested does not pass"
