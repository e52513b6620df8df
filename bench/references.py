"""Published numbers that a table may show beside what was measured: one YAML a table in `registry/references/`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from moextend.util import content, spec
from moextend.util.spec import Spec

KIND: content.Kind = "registry/references"

Metric = Literal["la", "acc", "maa", "bwt", "bwt_t", "zero_shot", "text_change"]
"""What a column of published numbers is here: a metric by its name in the report (see forgetting.summary)."""


class PublishedColumn(Spec):
    """One column of published numbers, and what stands in it for a measured run."""

    title: str
    """As the paper writes it."""
    means: str = ""
    """Its definition; divisors differ between papers."""
    metric: Metric | None = None
    """The metric of a run that is defined the same way; null: no measured number is shown."""
    task: str | None = None
    """Instead of a metric: the task whose final score is shown."""
    mean_of: tuple[str, ...] = ()
    """Instead of one task: several, whose mean is shown once all are scored."""
    reading: str | None = None
    """Of `task` or `mean_of` not the score, but this further metric of its cells, such as f1."""
    refused: str = ""
    """Why no measured number can stand in this column, such as a judge that is not at hand."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks whose scores are shown; none where a metric over all tasks is."""
        return self.mean_of or (() if self.task is None else (self.task,))


class Reference(Spec):
    """A table of published numbers, all of one protocol."""

    reference: str
    protocol: str
    """Numbers of two protocols never stand in one table."""
    source: str
    """Where the numbers are published."""
    backbone: str = ""
    """The model that they were made with, where it is known."""
    description: str = ""
    scoring: dict[str, str] = Field(default_factory=dict)
    """Task -> the scorer that counts as the paper's evaluation code does; a column that depends on a task scored
    otherwise shows no measured number. Empty: nothing is known, and nothing refused."""
    unscored: dict[str, str] = Field(default_factory=dict)
    """Task -> why it cannot be scored as the paper does; "*" is every task without an entry in `scoring`."""
    columns: dict[str, PublishedColumn]
    rows: list[dict[str, str | float]]
    """`method`, and the published number of each column that is known."""

    @model_validator(mode="after")
    def _rows_fit(self) -> Reference:
        for place, row in enumerate(self.rows):
            numbers = {key: value for key, value in row.items() if key != "method"}
            if not isinstance(row.get("method"), str):
                raise ValueError(f"rows[{place}] names no method")
            unknown = sorted(set(numbers) - set(self.columns))
            if unknown:
                raise ValueError(f"rows[{place}].{unknown[0]} is no column")
            if any(isinstance(value, str) for value in numbers.values()):
                raise ValueError(f"rows[{place}] holds a word where a number should be")
        return self


def read_reference(path: Path) -> Reference:
    """The published numbers in a YAML file."""
    return spec.read(Reference, path)


def find_reference(name: str, workspace: Path) -> Reference:
    """The reference called `name`, from the workspace or the package; UnknownName for another."""
    return read_reference(content.find(KIND, name, workspace, where="--references"))
