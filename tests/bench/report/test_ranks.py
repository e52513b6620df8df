"""The best of a column is bold only where tests tell it from the rest, in every format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.report import tables
from moextend.bench.report.collect import collect
from moextend.bench.report.table import Value
from tests.bench import ledger

SEEDS = (0, 1, 2, 3)

Rows = dict[str, dict[str, Value]]
"""Method -> column -> cell."""
RankedRows = Callable[..., Rows]


@pytest.fixture(scope="module")
def ranked_rows(tmp_path_factory: pytest.TempPathFactory) -> RankedRows:
    """What `kinds` look like in the forgetting table: method -> column -> cell."""

    def make(seeds: tuple[int, ...] = SEEDS, items: int = 300, **kinds: dict[str, Any]) -> Rows:
        folder = tmp_path_factory.mktemp("ranks")
        made = {name.replace("_", "-"): ledger.Kind(**kind) for name, kind in kinds.items()}
        runs = ledger.write_runs(folder, ledger.Shape(items=items), made, seeds)
        (table,) = tables(collect(runs))
        keys = [column.key for column in table.columns]
        return {
            row[0].text: dict(zip(keys, row, strict=True)) for section in table.sections for row in section
        }

    return make


def marks(rows: Rows, key: str) -> dict[str, str]:
    return {name: row[key].style for name, row in rows.items() if row[key].style}


def test_the_best_is_bold_where_it_is_apart(ranked_rows: RankedRows) -> None:
    rows = ranked_rows(
        lora={"keeps": 0.2}, moextend={"learned": 0.95, "keeps": 1.0}, replay={"learned": 0.85, "keeps": 0.7}
    )
    assert marks(rows, "acc") == marks(rows, "la") == {"moextend": "bold"}
    assert marks(rows, "fm") == {"moextend": "bold"}, "of FM less is better"
    fm = [rows[name]["fm"].number or 0.0 for name in ("moextend", "replay", "lora")]
    assert fm == sorted(fm) and fm[0] < fm[1] < fm[2]
    assert not marks(rows, "runs")


def test_one_seed_or_one_method_marks_nothing(ranked_rows: RankedRows) -> None:
    best = {"learned": 0.95, "keeps": 1.0}
    assert not marks(ranked_rows(seeds=(0,), lora={}, moextend=best), "acc")
    assert not marks(ranked_rows(moextend=best), "acc")


def test_marks_are_those_of_the_comparison(tmp_path: Path) -> None:
    kinds = {
        "lora": ledger.Kind(keeps=0.2, run_sd=0.02),
        "ewc": ledger.Kind(keeps=0.4, run_sd=0.02),
        "moextend": ledger.Kind(learned=0.8, keeps=1.0, run_sd=0.02),
    }
    experiments = collect(ledger.write_runs(tmp_path, ledger.Shape(items=200), kinds, SEEDS))
    (table,) = tables(experiments)
    for place, column in enumerate(table.columns):
        if column.title not in ("LA", "ACC", "BWT", "FM", "FWT", "Δ text"):
            continue
        rows = {row[0].text: row[place] for row in table.sections[-1]}
        for name, value in rows.items():
            (found,) = tables(experiments, "comparison", baseline=name)
            verdicts = {
                row[0].text: row[7].text
                for part in found.sections
                for row in part
                if row[1].text == column.title
            }
            everyone_worse = set(verdicts.values()) == {"worse"}
            assert (value.style == "bold") == everyone_worse, (name, column.title, verdicts)


def test_methods_that_are_given_the_task_id_compete_with_each_other_alone(tmp_path: Path) -> None:
    kinds = {name: ledger.Kind(learned=learned, keeps=1.0) for name, learned in
             {"lora-per-task": 0.6, "moextend": 0.95, "lora": 0.5, "replay": 0.8, "ewc": 0.6}.items()}  # fmt: skip
    runs = ledger.write_runs(tmp_path, ledger.Shape(items=300), kinds, SEEDS)
    for run in runs:
        run.write_facts(
            task_identity="given" if run.config.method in ("lora-per-task", "moextend") else "inferred"
        )
        if run.config.method == "moextend":  # the weights of the base: every change is 0 by construction
            ledger.rewrite_scores(run, weights=next(iter(run.cells().values())).weights)
    (table,) = tables(collect(runs))
    keys = [column.key for column in table.columns]
    rows = {row[0].text: dict(zip(keys, row, strict=True)) for row in table.sections[-1]}
    assert marks(rows, "acc") == marks(rows, "la") == {"moextend": "bold", "replay": "bold"}
    assert "moextend" not in marks(rows, "text_change") and "moextend" not in marks(rows, "bwt")
