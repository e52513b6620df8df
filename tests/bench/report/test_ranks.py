"""The best of a column is bold only where tests tell it from the rest, in every format."""

from pathlib import Path

from moextend.bench.report import How, tables
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.table import Value
from tests.bench import ledger

SEEDS = (0, 1, 2, 3)


def written(folder: Path, kinds: dict[str, ledger.Kind], seeds: tuple[int, ...] = SEEDS) -> list[Experiment]:
    return collect(ledger.write_runs(folder, ledger.Shape(items=200), kinds, seeds))


def rows(experiments: list[Experiment]) -> dict[str, dict[str, Value]]:
    """Method -> column of the forgetting table -> cell."""
    (table,) = tables(experiments)
    return {row["method"].text: row for row in table.records}


def marks(shown: dict[str, dict[str, Value]], key: str) -> set[str]:
    return {name for name, row in shown.items() if row[key].style == "bold"}


def test_the_best_is_bold_where_all_others_are_worse_in_the_comparison(tmp_path: Path) -> None:
    kinds = {
        "lora": ledger.Kind(keeps=0.2, run_sd=0.02),
        "ewc": ledger.Kind(keeps=0.4, run_sd=0.02),
        "moextend": ledger.Kind(learned=0.8, keeps=1.0, run_sd=0.02),
    }
    experiments, bold = written(tmp_path, kinds), set()
    shown = rows(experiments)
    for name in kinds:
        (found,) = tables(experiments, "comparison", How(name))
        for key, title in {
            "la": "LA",
            "acc": "ACC",
            "bwt": "BWT",
            "text_change": "Δ text",
        }.items():
            verdicts = {row["verdict"].text for row in found.records if row["metric"].text == title}
            assert (name in marks(shown, key)) == (verdicts == {"worse"}), (name, title, verdicts)
            bold |= {(name, key)} if verdicts == {"worse"} else set()
    assert {("moextend", "acc"), ("moextend", "bwt")} <= bold
    assert not marks(shown, "fm") and not marks(shown, "runs"), "FM is not tested"


def test_one_seed_or_one_method_marks_nothing(tmp_path: Path) -> None:
    best = ledger.Kind(learned=0.95, keeps=1.0)
    assert not marks(rows(written(tmp_path / "a", {"lora": ledger.Kind(), "moextend": best}, (0,))), "acc")
    assert not marks(rows(written(tmp_path / "b", {"moextend": best})), "acc")


def test_methods_that_are_given_the_task_id_compete_with_each_other_alone(tmp_path: Path) -> None:
    kinds = {name: ledger.Kind(learned=learned, keeps=1.0) for name, learned in
             {"lora-per-task": 0.6, "moextend": 0.95, "lora": 0.5, "replay": 0.8, "ewc": 0.6}.items()}  # fmt: skip
    runs = ledger.write_runs(tmp_path, ledger.Shape(items=200), kinds, SEEDS)
    for run in runs:
        given = run.config.method in ("lora-per-task", "moextend")
        run.write_facts(task_identity="given" if given else "inferred")
        if run.config.method == "moextend":  # the weights of the base: every change is 0 by construction
            ledger.rewrite_scores(run, weights=next(iter(run.cells().values())).weights)
    shown = rows(collect(runs))
    assert marks(shown, "acc") == marks(shown, "la") == {"moextend", "replay"}
    assert "moextend" not in marks(shown, "text_change") | marks(shown, "bwt")
