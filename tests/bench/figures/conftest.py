"""Experiments of a few sizes, and empty Axes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moextend.bench.figures import Source
from moextend.bench.report.collect import collect
from moextend.bench.run.rundir import find_runs
from tests.bench import ledger

MakeSource = Callable[..., Source]
"""Makes a source of methods, `seeds`, `orders` and the fields of a `ledger.Shape`."""


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


@pytest.fixture(scope="session")
def make_source(tmp_path_factory: pytest.TempPathFactory) -> MakeSource:
    """Makes a source of runs that are written for it."""

    def make(
        methods: Mapping[str, ledger.Kind],
        seeds: Sequence[int] = (0, 1),
        orders: Sequence[str] = ("given",),
        **shape: Any,
    ) -> Source:
        runs = tmp_path_factory.mktemp("figures") / "runs"
        for method, kind in methods.items():
            for seed in seeds:
                for order in orders:
                    ledger.write_run(runs, ledger.Shape(**shape), method, seed, kind, order=order)
        (experiment,) = collect(find_runs(runs))
        return Source.of(experiment)

    return make


@pytest.fixture(scope="session")
def source(make_source: MakeSource) -> Source:
    """Three methods, two seeds, three tasks and two text tasks."""
    kind = ledger.Kind
    methods = {
        "full-ft": kind(keeps=0.1, run_sd=0.05),
        "lora": kind(run_sd=0.05),
        "moextend": kind(keeps=1.0),
    }
    return make_source(methods, stages=3, texts=2, items=60)
