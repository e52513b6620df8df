"""What a figure is drawn from, read when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pandas import DataFrame

from moextend.bench import metrics
from moextend.bench.report.collect import UNFINISHED, Experiment, grouped
from moextend.bench.report.frame import frame
from moextend.bench.report.looks import Look, looks
from moextend.bench.report.table import Value
from moextend.bench.report.views.comparison import check_baseline, default_baseline
from moextend.errors import InputError, UnknownName


class NothingToDraw(InputError):
    """The runs do not have what a figure shows."""


@dataclass(frozen=True)
class Source:
    """An experiment and its results."""

    experiment: Experiment
    baseline: str | None = None
    """The method that others are compared with. None: the package's own method, else the base."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Method or task -> the name that is shown, where it is another (`report.yaml`)."""

    @staticmethod
    def of(
        experiment: Experiment, only: Sequence[str] = (), baseline: str | None = None, *,
        names: Mapping[str, str] | None = None,
    ) -> Source:  # fmt: skip
        """Of some methods, in the order in which they are named; UnknownName for one, or a baseline, without a run."""
        known = list(dict.fromkeys(result.config.method for result in experiment.results))
        for method in only:
            if method not in known:
                raise UnknownName("method", method, known, where="--method")
        if baseline:
            check_baseline(baseline, known)
        wanted = [*only, *([baseline] if only and baseline and baseline not in only else [])]
        kept = [
            result for method in wanted for result in experiment.results if result.config.method == method
        ]
        return Source(replace(experiment, results=kept or experiment.results), baseline, names or {})

    @cached_property
    def cells(self) -> DataFrame:
        """The frame with a row per cell, of the sequence runs."""
        return _sequence(frame([self.experiment], items=False))

    @cached_property
    def items(self) -> DataFrame:
        """The frame with a row per item, of the sequence runs."""
        return _sequence(frame([self.experiment]))

    @property
    def compared_with(self) -> str:
        """The baseline, or what stands for it: the first run of the package's own method, else the base."""
        known = [result.config.method for result in self.experiment.of("sequence")]
        return self.baseline or default_baseline(known)


def _sequence(results: DataFrame) -> DataFrame:
    return results[results["mode"] == "sequence"]


def labelled(method: str, order: str) -> str:
    """A row's name, as tables have it."""
    return method if order == "given" else f"{method} ({order})"


def row_label(row: Mapping[str, Value]) -> str:
    """The label of a row of a table."""
    return row["method"].text.replace(UNFINISHED, "")


def groups(results: DataFrame) -> Iterator[tuple[str, DataFrame]]:
    """(label, rows) of every method and order of a frame, in the order in which they come."""
    for (method, order), own in results.groupby(["method", "order"], observed=True, sort=False):
        yield labelled(str(method), str(order)), own


def looks_of(results: DataFrame) -> dict[str, Look]:
    """Label -> look, of every method and order of a frame."""
    pairs = results[["method", "order"]].drop_duplicates().astype(str).itertuples(index=False)
    return _label_looks([(str(pair.method), str(pair.order)) for pair in pairs])


def over_runs(values: Any) -> tuple[float | None, float | None]:
    """Mean and standard deviation of a column of a frame, a row per run, as tables have them; None where one lacks."""
    return metrics.mean_and_sd(None if value != value else float(value) for value in values)


def looks_in(experiment: Experiment) -> dict[str, Look]:
    """Label -> look, of the methods and orders that learned in sequence."""
    return _label_looks(list(grouped(experiment.of("sequence"))))


def _label_looks(pairs: Sequence[tuple[str, str]]) -> dict[str, Look]:
    found = looks(pairs)
    return {labelled(*pair): found[pair] for pair in pairs}
