"""Fills the comparisons of bases in docs/results: ``python -m tests.bench.report.bases RUNS``.

A mark names a sequence, and the same one with other bases:

    <!-- bases tiny tiny-nf4 tiny-int8 -->
    <!-- /bases -->

The table has each method on another base less the same seed on the first one: mean ± standard deviation over seeds,
verdict and p. The test is that of ``bench report comparison``; a metric is one family of tests (docs/statistics.md).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from moextend.bench.report.collect import Result, collect, some
from moextend.bench.report.items import ItemReader, Weights
from moextend.bench.report.table import text
from moextend.bench.report.views.comparison import (
    COLUMNS,
    Measured,
    Test,
    differences,
    metric_weights,
    section,
)
from moextend.bench.run.rundir import find_runs

RESULTS = Path(__file__).parents[3] / "docs" / "results"
PAGES = [RESULTS / "tiny.md", RESULTS / "real-small.md"]
BLOCK = re.compile(r"^<!-- bases (?P<names>[^>]+?) -->\n.*?^<!-- /bases -->$", re.MULTILINE | re.DOTALL)
METRICS = {"LA": "la", "ACC": "acc", "text": "text_change"}
"""Title -> metric; text is the mean score on the text tasks at the end, not its change from a base of its own."""
MARGIN = 2.0
Pairs = list[tuple[Result, Result]]


def filled(page: str, runs: Path) -> str:
    """The page with its table made again."""

    def block(mark: re.Match[str]) -> str:
        found = table(paired(runs, *mark["names"].split()))
        return f"<!-- bases {mark['names']} -->\n\n{found}\n\n<!-- /bases -->"

    return BLOCK.sub(block, page)


def table(pairs: dict[tuple[str, str], Pairs]) -> str:
    """One row per method and other sequence, from the runs of the same seed on both."""
    columns = [_column(metric, pairs) for metric in METRICS.values()]
    lines = [["method", "base", *METRICS], [":---", ":---", *["---:"] * len(METRICS)]]
    lines += [
        [f"`{method}`", other, *cells]
        for (method, other), cells in zip(pairs, zip(*columns, strict=True), strict=True)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def paired(runs: Path, sequence: str, *others: str) -> dict[tuple[str, str], Pairs]:
    """(method, other) -> the run on `other` and the run on `sequence`, of every seed that both have."""
    found = {name: _runs(runs, name) for name in (sequence, *others)}
    return {
        (method, other): [
            (run, found[sequence][method, seed])
            for (name, seed), run in sorted(found[other].items())
            if name == method and (method, seed) in found[sequence]
        ]
        for method in dict.fromkeys(name for name, _ in found[others[0]])
        for other in others
    }


def _runs(runs: Path, sequence: str) -> dict[tuple[str, int], Result]:
    (experiment,) = some(collect(find_runs(runs, [sequence])))
    return {(run.config.method, run.config.seed): run for run in experiment.of("sequence")}


def _column(metric: str, pairs: dict[tuple[str, str], Pairs]) -> list[str]:
    measured = Measured(ItemReader(), lambda result, at: _weights(metric, result, at))
    tests = []
    for (method, _), runs in pairs.items():
        found = differences([(measured(one), measured(other)) for one, other in runs])
        assert found and found[1], f"every run of {method} has its scores and items"
        tests.append(Test(text(method), *found))
    keys = [column.key for column in COLUMNS]
    rows = [dict(zip(keys, row, strict=True)) for row in section(tests, metric, MARGIN)]
    return [f"{row['difference'].text} {row['verdict'].text} ({row['p'].text})" for row in rows]


def _weights(metric: str, result: Result, at: int | None) -> Weights | None:
    if metric == "text_change":
        return {(result.last, task): 1 / len(result.text) for task in result.text}
    return metric_weights(metric, result, at)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8"), Path(sys.argv[1])), encoding="utf-8")
