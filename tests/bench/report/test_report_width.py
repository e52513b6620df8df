"""Reports as text at several widths: no table is cut or wrapped by the terminal, and none loses a number."""

import io
import re

import pytest
from rich.console import Console

from moextend.bench.report import How, View, tables
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.formats.terminal import print_tables
from tests.bench import ledger

TASKS = [f"{name}-questions" for name in ("attributes", "count", "spatial-relations", "reading", "colours")]


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> list[Experiment]:
    """Two methods, two seeds, five stages with long names."""

    class Named(ledger.Shape):
        tasks = TASKS

    methods = {"moextend:scope=all,routing=slot": ledger.Kind(), "lora": ledger.Kind(run_sd=0.02)}
    folder = tmp_path_factory.mktemp("wide") / "runs"
    return collect(ledger.write_runs(folder, Named(stages=5, texts=2, items=20), methods, (0, 1)))


def shown(experiments: list[Experiment], view: View, width: int | None) -> str:
    out = io.StringIO()
    found = tables(experiments, view, How("lora" if view == "comparison" else None))
    print_tables(found, Console(file=out, color_system=None), width)
    return out.getvalue()


@pytest.mark.parametrize("view", ["forgetting", "matrix", "costs", "comparison"])
def test_every_view_fits_and_loses_no_number(experiments: list[Experiment], view: View) -> None:
    def numbers(text: str) -> list[str]:
        return sorted(re.findall(r"[+-]?\d+\.\d", text))

    whole = shown(experiments, view, None)
    for width in (40, 80, 120):
        text = shown(experiments, view, width)
        assert max(map(len, text.splitlines())) <= width
        assert numbers(text) == numbers(whole) and "…" not in text
