"""Reports as text at several widths: no table is cut or wrapped by the terminal, and none loses a number."""

import io
import re

import pytest
from rich.console import Console

from moextend.bench.report import View, tables
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.formats.terminal import print_tables
from tests.bench import ledger

TASKS = [
    f"{name}-questions" for name in ("attributes", "counting", "spatial-relations", "reading", "colours")
]
WIDTHS = [40, 60, 80, 100, 120]


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> list[Experiment]:
    """Two methods, two seeds, five stages with long names."""

    class Named(ledger.Shape):
        tasks = TASKS

    methods = {"moextend:scope=all,routing=slot": ledger.Kind(), "lora": ledger.Kind(run_sd=0.02)}
    runs = ledger.write_runs(
        tmp_path_factory.mktemp("wide") / "runs", Named(stages=5, texts=2), methods, (0, 1)
    )
    return collect(runs)


def shown(experiments: list[Experiment], view: View, width: int | None) -> str:
    out = io.StringIO()
    found = tables(experiments, view, baseline="lora" if view == "comparison" else None)
    print_tables(found, Console(file=out, color_system=None), width)
    return out.getvalue()


def numbers(text: str) -> list[str]:
    return sorted(re.findall(r"[+-]?\d+\.\d", text))


@pytest.mark.parametrize("view", ["forgetting", "matrix", "readings", "costs", "comparison"])
def test_every_view_fits_and_loses_no_number(experiments: list[Experiment], view: View) -> None:
    whole = shown(experiments, view, None)
    for width in WIDTHS:
        text = shown(experiments, view, width)
        assert max(map(len, text.splitlines())) <= width
        assert numbers(text) == numbers(whole) and "…" not in text


def lines(text: str, count: int) -> list[str]:
    return [line.rstrip() for line in text.splitlines()[:count]]


def test_the_matrix_at_40_columns_is_in_blocks_that_name_the_stage(experiments: list[Experiment]) -> None:
    found = lines(shown(experiments, "matrix", 40)[len("ledger/moextend+scope-all+routing-slot-s") :], 30)
    heads = [line for line in found if line.startswith(" stage")]
    assert [line.split()[1:] for line in heads][:2] == [["1", "2", "3", "4", "5"], ["mean"]]
    assert [line.split()[0] for line in found if line[:2] in (" 0", " 4")][:3] == ["0", "4", "0"]
