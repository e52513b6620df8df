"""Published numbers for comparison with measured ones: one YAML file per table in `registry/references/`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from moextend.util import content, spec
from moextend.util.spec import Spec

KIND: content.Kind = "registry/references"

Metric = Literal["la", "acc", "maa", "bwt", "bwt_t", "zero_shot", "text_change"]
"""Metrics for columns of published numbers, by their names in the report (see forgetting.summary)."""


class PublishedColumn(Spec):
    """One column of published numbers, and the corresponding value of a measured run."""

    title: str
    """Title in the paper."""
    means: str = ""
    """Its definition; divisors differ between papers."""
    metric: Metric | None = None
    """The metric of a run that is defined the same way; null: no measured number is shown."""
    tasks: tuple[str, ...] = ()
    """Instead of a metric: tasks; their mean final score is shown if all are scored."""
    reading: str | None = None
    """For `tasks`: this metric of the cells, such as f1, instead of the score."""
    refused: str = ""
    """Why this column has no measured number, such as a missing judge model."""


class Reference(Spec):
    """A table of published numbers, all of one protocol."""

    reference: str
    protocol: str
    """Protocol; a table never mixes two protocols."""
    source: str
    """Publication of the numbers."""
    backbone: str = ""
    """Model of the publication, if it is known."""
    description: str = ""
    scoring: dict[str, str] = Field(default_factory=dict)
    """Task -> the scorer equal to the paper's evaluation code; a column with a task scored by another one shows no
    measured number. Empty: not known, and no column is refused."""
    unscored: dict[str, str] = Field(default_factory=dict)
    """Task -> why it cannot be scored as the paper does; "*" is every task without an entry in `scoring`."""
    columns: dict[str, PublishedColumn]
    rows: list[dict[str, str | float]]
    """`method`, and the known published numbers by column."""

    @model_validator(mode="after")
    def _rows_fit(self) -> Reference:
        for place, row in enumerate(self.rows):
            numbers = {key: value for key, value in row.items() if key != "method"}
            if not isinstance(row.get("method"), str):
                raise ValueError(f"rows[{place}] names no method")
            unknown = sorted(set(numbers) - set(self.columns))
            if unknown:
                raise ValueError(f"rows[{place}].{unknown[0]} is not a column")
            if any(isinstance(value, str) for value in numbers.values()):
                raise ValueError(f"rows[{place}] holds a word where a number should be")
        return self


def read_reference(path: Path) -> Reference:
    """Published numbers from a YAML file."""
    return spec.read(Reference, path)


def find_reference(name: str, workspace: Path) -> Reference:
    """Reference `name` of the workspace or the package; UnknownName if there is none."""
    return read_reference(content.find(KIND, name, workspace, where="--references"))
