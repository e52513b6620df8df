"""The gate: what is kept, what is lost, and what the items cannot tell."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from typer.testing import CliRunner

from moextend.bench import stats
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.comparison import comparison_table
from moextend.bench.report.gate import Check, gate, gates
from moextend.bench.report.gate_forms import as_json, gate_table, junit
from moextend.bench.run.rundir import RunDir, find_runs
from moextend.cli.main import app
from moextend.errors import InputError, UnknownName
from moextend.util.files import digest
from tests.bench.ledger import Kind, Shape, write_runs

SHAPE = Shape(stages=2, texts=1, items=1500, an_image=1, shared_images=False)
KEEPS, FORGETS = Kind(keeps=1.0, text_lost=0.0), Kind(keeps=0.0, text_lost=0.5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate")
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


def test_the_named_number_of_items_suffices_in_four_of_five_repetitions() -> None:
    rng = np.random.default_rng(0)
    chance, margin, items = 0.2, 3.0, 400
    kept = 0
    pilot = _check(rng, items, chance)
    from moextend.bench.report.gate import _items_needed

    needed = _items_needed(pilot, margin, stats.LEVEL)
    assert needed is not None
    for _ in range(200):
        check = _check(rng, needed, chance)
        assert check.found is not None
        kept += check.found.p_not_worse(margin) < stats.LEVEL
    assert 0.68 < kept / 200 < 0.92


def test_seeds_that_vary_too_much_for_the_margin_are_not_helped_by_items() -> None:
    from moextend.bench.report.gate import _items_needed

    def needed(seed_sd: float) -> int | None:
        found = stats.Contrast(-1.0, seed_sd**2 / 3, 0.5, 3, 250, 20)
        return _items_needed(
            Check("m", 1, "s", "t", 50.0, 49.0, 250, 3, [found.value], found, ""), 5.0, 0.05 / 18
        )

    assert needed(1.2) is None, (
        "t with 2 degrees of freedom is 13 at this level: half-widths of 9 points and more"
    )
    assert needed(0.2) == 250


def test_what_is_too_near_the_margin_lacks_no_items() -> None:
    check = Check("m", 1, "s", "t", 50.0, 46.0, 250, 1, [-4.0], None, "", items_needed=250)
    assert replace(check, found=stats.Contrast(-4.0, 0.0, 1.0, 1, 250, 20)).needs == "enough items"


def _check(rng: np.random.Generator, items: int, chance: float) -> Check:
    """Two answers to each item that differ by chance only: right and wrong exchanged in 2 * `chance` of them."""
    differences = 100 * rng.choice([-1.0, 0.0, 1.0], items, p=[chance, 1 - 2 * chance, chance])
    found = _contrast(differences, stats.unseen(100.0, items))
    return Check("m", 1, "s", "t", 50.0, 50.0, items, 1, [found.value], found, "")


def _contrast(differences: np.ndarray, floor: float = 0.0) -> stats.Contrast:
    mean = float(differences.mean())
    deviations = (differences - mean)[None] / len(differences)
    return stats.contrast([mean], deviations, changed=int((differences != 0).sum()), floor=floor)


def test_the_p_value_of_one_seed_is_that_of_a_one_sided_t_test() -> None:
    differences = np.random.default_rng(1).normal(-0.5, 4.0, 120)
    for margin in (0.1, 0.5, 1.0, 2.0):
        wanted = ttest_1samp(differences, -margin, alternative="greater").pvalue
        assert _contrast(differences).p_not_worse(margin) == pytest.approx(wanted, rel=1e-3)


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


def test_one_run_without_scores_beside_another_is_undecided_and_not_an_error(tmp_path: Path) -> None:
    write_runs(tmp_path, SHAPE, {"lora": KEEPS}, [0, 1])
    (tmp_path / "ledger/lora-s1/scores.jsonl").unlink()
    code, out = command(tmp_path, "--margin", "20", "--format", "json")
    (found,) = json.loads(out)
    assert code == 3 and found["counts"]["cannot tell"] == len(found["cells"]) > 0


def test_the_base_as_the_baseline_needs_no_run_of_its_own(tmp_path: Path) -> None:
    """Row 0 is that of each run, whatever seeds a run of the base has."""
    write_runs(tmp_path, SHAPE, {"lora": KEEPS}, [0, 1])
    write_runs(tmp_path, SHAPE, {"zero-shot": KEEPS}, [0])
    found = gate(experiment(tmp_path), "zero-shot", margin=99)
    assert found.left_out == [] and found.verdict == "kept"


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


def test_csv_names_on_standard_error_what_is_not_tested(runs: Path) -> None:
    names = [str(runs / "ledger" / name) for name in ("lora-s0", "full-ft-s0", "full-ft-s1")]
    options = ("--baseline", "lora", "--margin", "99", "--format", "csv")
    found = CliRunner().invoke(app, ["bench", "gate", *names, *options])
    assert found.exit_code == 3 and "not tested: full-ft-s1 (lora has no run with seed 1)" in found.stderr


def test_a_run_that_is_not_tested_makes_the_gate_undecided(tmp_path: Path) -> None:
    write_runs(tmp_path, SHAPE, {"lora": KEEPS}, [0, 1])
    assert command(tmp_path, "--margin", "20")[0] == 0
    shutil.copytree(tmp_path / "ledger/lora-s0", tmp_path / "ledger/copy")
    assert command(tmp_path, "--margin", "20")[0] == 0, "a copy is tested by the run that it is a copy of"
    state = tmp_path / "ledger/lora-s1/status.json"
    state.write_text(state.read_text().replace('"done"', '"interrupted"'))
    report = tmp_path / "gate.xml"
    for names in ([], ["ledger/lora-s0", "ledger/lora-s1"]):
        code, out = command(tmp_path, *names, "--margin", "20", "--format", "json", "--junit", str(report))
        (found,) = json.loads(out)
        assert (code, found["verdict"], found["left_out"]) == (3, "cannot tell", ["lora-s1 (interrupted)"])
        assert found["counts"]["cannot tell"] == 0
        errors = [
            case for case in ElementTree.parse(report).iter("testcase") if case.find("error") is not None
        ]
        assert [case.get("name") for case in errors] == ["lora-s1 (interrupted)"]
    code, out = command(tmp_path, "--margin", "20")
    assert code == 3 and "1 run not tested" in out and "name the others" in " ".join(out.split())
    assert command(tmp_path, "ledger/lora-s0", "--margin", "20")[0] == 0


@pytest.mark.parametrize("margin", [0, -1, math.nan, math.inf, 100.5])
def test_a_margin_that_excludes_nothing_is_refused(runs: Path, margin: float) -> None:
    with pytest.raises(InputError, match="is not a margin"):
        gate(experiment(runs), margin=margin)


def test_a_junit_file_that_cannot_be_written_is_wrong_input_and_not_a_loss(
    runs: Path, tmp_path: Path
) -> None:
    assert command(runs, "ledger/lora-s0", "--junit", str(tmp_path))[0] == 2
    assert list(tmp_path.iterdir()) == []


def command(runs: Path, *words: str) -> tuple[int, str]:
    names = [str(runs / word) for word in words if word.startswith("ledger/")]
    options = [word for word in words if not word.startswith("ledger/")]
    found = CliRunner().invoke(app, ["bench", "gate", *(names or [str(runs)]), *options])
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


def test_junit_holds_any_name() -> None:
    from moextend.bench.report.gate import Gate

    check = Check('a<b>&"\x1b[31m', 1, "s", "t\x00\ud800", 1.0, 1.0, 5, 1, [0.0], None, "")
    text = junit([Gate("x", "0123abcd", "x", "before", 1.0, [check], [], [])])
    (suite,) = ElementTree.fromstring(text.partition("?>")[2]).iter("testsuite")
    assert suite.get("name") == 'x a<b>&"[31m'


def test_edited_scores_of_items_do_not_reach_the_verdicts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_runs(tmp_path, Shape(stages=2, texts=0, items=60), {"lora": FORGETS}, [0])
    before = as_json([gate(experiment(tmp_path), margin=10)])
    edited = list(tmp_path.rglob("task1-*.scores*"))
    for path in edited:
        path.write_text(path.read_text().replace('"score": 0.0', '"score": 1.0'))
    assert as_json([gate(experiment(tmp_path), margin=10)]) == before
    assert any(str(path) in caplog.text for path in edited)


def test_variants_of_a_sequence_have_names_of_their_own(tmp_path: Path) -> None:
    """The same ones in whatever order the runs are found."""
    for texts in (0, 1, 2):
        write_runs(tmp_path / str(texts), Shape(stages=2, texts=texts, items=20), {"lora": KEEPS}, [0])
    runs = [run for texts in (0, 1, 2) for run in find_runs(tmp_path / str(texts))]
    names = []
    for order in (runs, runs[::-1]):
        found = [gate(each) for each in collect(order)]
        records = as_json(found)
        assert [record["sequence"] for record in records] == ["ledger"] * 3
        suites = [suite.get("name", "") for suite in ElementTree.fromstring(junit(found))]
        assert suites == [f"ledger [{record['variant']}] lora" for record in records]
        every = ElementTree.fromstring(junit(found)).iter("testcase")
        cases = [(case.get("classname"), case.get("name")) for case in every]
        assert len(set(cases)) == len(cases)
        assert (
            len({gate_table(each).key for each in found})
            == len({gate_table(each).title for each in found})
            == 3
        )
        names.append(sorted(suites))
    assert names[0] == names[1]
    (alone,) = [gate(each) for each in collect(runs[:1])]
    assert alone.label == "ledger" and alone.variant in "".join(names[0])


def _set(run: Path, **settings: int) -> None:
    """As if the sequence had had these settings of the method when the run began."""
    path = RunDir(run).config_path
    record = json.loads(path.read_text())
    record["identity"]["sequence"]["settings"] = {"lora": settings}
    path.write_text(json.dumps({**record, "digest": digest(record["identity"])}))


def test_runs_of_a_method_with_other_settings_are_a_variant_and_not_another_seed(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", SHAPE, {"lora": KEEPS, "full-ft": FORGETS}, [0, 1, 2])
    _set(tmp_path / "runs/ledger/lora-s1", rank=64)
    first, other = collect(find_runs(tmp_path / "runs"))
    assert [result.name for result in other.results] == ["lora-s1"]
    assert len(first.results) == 5 and first.is_variant and first.variant != other.variant
    assert "setting 'rank' of lora 64 instead of 8" in other.differs
    assert {check.seeds for check in gate(first, margin=10).checks if check.method == "lora"} == {2}


def test_settings_that_are_the_default_are_not_other_settings(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", SHAPE, {"lora": KEEPS}, [0, 1])
    _set(tmp_path / "runs/ledger/lora-s1", rank=8)
    (only,) = collect(find_runs(tmp_path / "runs"))
    assert len(only.results) == 2 and not only.is_variant


def test_a_run_that_is_not_finished_is_marked_and_nothing_of_it_is_left_out_silently(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, SHAPE, {"lora": KEEPS, "full-ft": FORGETS}, [0, 1, 2])
    scores = runs[-1].folder / "scores.jsonl"
    scores.write_text("".join(line for line in scores.open() if '"stage": 2' not in line))
    state = runs[-1].folder / "status.json"
    state.write_text(state.read_text().replace('"done"', '"interrupted"'))
    (found,) = collect(find_runs(tmp_path), unfinished=True)
    table = comparison_table(found, "lora")
    keys = [column.key for column in table.columns]
    rows = [dict(zip(keys, row, strict=True)) for section in table.sections for row in section]
    verdicts = {row["metric"].text: (row["method"].text, row["verdict"].text) for row in rows}
    assert verdicts["ACC"] == ("full-ft*", "a score is missing")
    assert verdicts["FWT"][0] == "full-ft*" and verdicts["FWT"][1] != "a score is missing"
    assert any("*: not finished: full-ft-s2" in note for note in table.notes)
    verdict = gate(found, margin=99)
    assert verdict.verdict == "cannot tell" and {check.method for check in verdict.checks} == {
        "lora",
        "full-ft*",
    }
    assert any("*: not finished: full-ft-s2" in note for note in verdict.notes)
