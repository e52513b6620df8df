"""The best and second best of a column are marked only where tests tell them from the rest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.report import render, tables
from moextend.bench.report.collect import collect
from moextend.bench.report.ranks import RULE
from moextend.bench.report.table import Value
from moextend.bench.run.records import StageCost
from moextend.util import files
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
        (table,) = tables(collect(runs), rank=True)
        keys = [column.key for column in table.columns]
        return {
            row[0].text: dict(zip(keys, row, strict=True)) for section in table.sections for row in section
        }

    return make


def marks(rows: Rows, key: str) -> dict[str, str]:
    return {name: row[key].style for name, row in rows.items() if row[key].style}


def test_the_best_is_bold_and_the_second_underlined_where_they_are_apart(ranked_rows: RankedRows) -> None:
    rows = ranked_rows(
        lora={"keeps": 0.2}, moextend={"learned": 0.95, "keeps": 1.0}, replay={"learned": 0.85, "keeps": 0.7}
    )
    assert marks(rows, "acc") == {"moextend": "bold", "replay": "underline"}
    assert marks(rows, "la")["moextend"] == "bold"
    assert marks(rows, "fm") == {"moextend": "bold", "replay": "underline"}, "of FM less is better"
    fm = [rows[name]["fm"].number or 0.0 for name in ("moextend", "replay", "lora")]
    assert fm == sorted(fm) and fm[0] < fm[1] < fm[2]
    assert not marks(rows, "runs")


def test_what_cannot_be_distinguished_is_not_marked(ranked_rows: RankedRows) -> None:
    best = {"learned": 0.95, "keeps": 1.0}
    assert not marks(ranked_rows(lora={"keeps": 0.2}, moextend=best, replay=best), "acc")
    rows = ranked_rows(lora={"keeps": 0.2}, ewc={"keeps": 0.2}, moextend=best)
    assert marks(rows, "acc") == {"moextend": "bold"}, "the second is not distinguished from the third"


def test_one_seed_or_one_method_marks_nothing(ranked_rows: RankedRows) -> None:
    best = {"learned": 0.95, "keeps": 1.0}
    assert not marks(ranked_rows(seeds=(0,), lora={}, moextend=best), "acc")
    assert not marks(ranked_rows(moextend=best), "acc")


def test_a_method_that_learns_nothing_is_not_ranked(ranked_rows: RankedRows) -> None:
    nothing = {"learned": 0.3, "keeps": 1.0, "future": 0.0, "text_lost": 0.0}
    rows = ranked_rows(lora={"keeps": 0.1}, ewc={"keeps": 0.9}, zero_shot=nothing)
    assert (rows["zero-shot"]["bwt"].number or 0.0) > (rows["ewc"]["bwt"].number or 0.0)
    assert marks(rows, "bwt") == {"ewc": "bold"}


def test_marks_are_those_of_the_comparison(tmp_path: Path) -> None:
    kinds = {
        "lora": ledger.Kind(keeps=0.2, run_sd=0.02),
        "ewc": ledger.Kind(keeps=0.4, run_sd=0.02),
        "moextend": ledger.Kind(learned=0.8, keeps=1.0, run_sd=0.02),
    }
    experiments = collect(ledger.write_runs(tmp_path, ledger.Shape(items=200), kinds, SEEDS))
    (table,) = tables(experiments, rank=True)
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


def test_the_rule_stands_below_the_table(tmp_path: Path) -> None:
    runs = ledger.write_runs(tmp_path, ledger.Shape(items=40), {"lora": ledger.Kind()}, (0, 1))
    for view in ("forgetting", "tasks", "text"):
        (table,) = tables(collect(runs), view, rank=True)
        assert table.notes[0] == RULE
        assert RULE not in tables(collect(runs), view)[0].notes
    assert "Bold: the best value" in render([table], "latex")


def test_seeds_and_what_is_not_matched_stand_below_the_summary(tmp_path: Path) -> None:
    kinds = {name: ledger.Kind() for name in ("moextend", "lora", "ewc", "lwf")}
    runs = ledger.write_runs(tmp_path, ledger.Shape(items=40), kinds, (0, 1))[:-1]

    def notes(trained: dict[str, int], tokens: dict[str, int]) -> list[str]:
        for run in runs:
            for stage, task in enumerate(run.config.stages, 1):
                cost = StageCost(
                    trained_parameters=trained.get(run.config.method, 1000),
                    tokens=tokens.get(run.config.method, 9),
                )
                run.write_cost(stage, task, cost)
        (table,) = tables(collect(runs), rank=True)
        assert "Seeds: 0, 1; lwf: 0." in table.notes
        return table.notes[1:2]

    first = "Not matched (more than 10% from moextend):"
    assert notes({"lora": 1050, "ewc": 2000, "lwf": 3000}, {}) == [
        f"{first} trained parameters of all but lora."
    ]
    assert notes({}, {"ewc": 5}) == [f"{first} training tokens of ewc."]


def test_the_best_of_each_task_is_marked(tmp_path: Path) -> None:
    kinds = {"lora": ledger.Kind(keeps=0.2), "moextend": ledger.Kind(learned=0.95, keeps=1.0, text_lost=0.0)}
    kinds["lora"] = ledger.Kind(keeps=0.2, text_lost=0.5)
    runs = ledger.write_runs(tmp_path, ledger.Shape(items=300), kinds, SEEDS)
    (table,) = tables(collect(runs), "tasks", rank=True)
    best = next(row for row in table.sections[-1] if row[0].text == "moextend")
    assert [value.style for value in best[1:5]] == ["bold"] * 4
    (text,) = tables(collect(runs), "text", rank=True)
    best = next(row for row in text.sections[-1] if row[0].text == "moextend")
    assert [value.style for value in best[1:3]] == ["bold"] * 2


def test_a_method_that_is_near_the_best_is_enough_to_stop_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = ledger.Kind(learned=0.95, keeps=1.0)
    kinds = {
        "moextend": best,
        "replay": best,
        **{f"lora:rank={n}": ledger.Kind(keeps=0.2) for n in (1, 2, 4)},
    }
    runs = ledger.write_runs(tmp_path, ledger.Shape(items=60, stages=2), kinds, (0, 1))
    read, plain = list[Path](), files.raw_lines

    def counted(path: Path) -> list[bytes]:
        read.append(path)
        return plain(path)

    experiments = collect(runs)
    monkeypatch.setattr(files, "raw_lines", counted)
    tables(experiments, "tasks", rank=True)
    assert read and {path.parents[2].name[:8] for path in read} == {"moextend", "replay-s"}
