"""What a figure is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from moextend.bench.report.collect import Experiment, Result, grouped
from moextend.bench.report.looks import Look, looks
from moextend.bench.report.views.comparison import check_baseline, default_baseline
from moextend.errors import UnknownName


@dataclass(frozen=True)
class Source:
    """An experiment, and how it is drawn."""

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

    @property
    def compared_with(self) -> str:
        """The baseline, or what stands for it: the first run of the package's own method, else the base."""
        known = [result.config.method for result in self.experiment.of("sequence")]
        return self.baseline or default_baseline(known)


def labelled(method: str, order: str) -> str:
    """A row's name, as tables have it."""
    return method if order == "given" else f"{method} ({order})"


def groups(experiment: Experiment) -> dict[str, list[Result]]:
    """Label -> the runs of every method and order that learned in sequence and have scores."""
    scored = [result for result in experiment.of("sequence") if result.cells]
    return {labelled(*key): group for key, group in grouped(scored).items()}


def looks_in(experiment: Experiment) -> dict[str, Look]:
    """Label -> look, of the methods and orders that learned in sequence."""
    pairs = list(grouped(experiment.of("sequence")))
    found = looks(pairs)
    return {labelled(*pair): found[pair] for pair in pairs}
