"""Views: what `moextend bench report VIEW` shows. A file each, with the rows, columns and notes of its tables.

A view is a function from an experiment and what was asked to tables, and a line in VIEWS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moextend.util import lookup

if TYPE_CHECKING:
    from moextend.bench.report.collect import Experiment
    from moextend.bench.report.table import Table

MARGIN = 1.0
"""Points: differences below this do not count."""


@dataclass(frozen=True)
class Asked:
    """What a view compares, as far as it compares anything."""

    baseline: str | None = None
    """The method that all are compared with; only `comparison` takes it, and needs it."""
    margin: float = MARGIN
    """What counts as no difference, in points."""


VIEWS = {
    "forgetting": "forgetting:tables",
    "tasks": "tasks:tasks_tables",
    "text": "tasks:text_tables",
    "transfer": "tasks:transfer_tables",
    "ablations": "forgetting:ablation_tables",
    "matrix": "tasks:matrix_tables",
    "costs": "costs:tables",
    "comparison": "comparison:tables",
    "routing": "diagnostics:routing_tables",
    "readings": "diagnostics:readings_tables",
    "rewind": "variants:rewind_tables",
    "subsets": "variants:subsets_tables",
}
"""View -> module here and function."""
KINDS = (*VIEWS, "orders", "kinds", "sequences", "published")
"""Views, and tables below those of a view: keys of `tables` in `report.yaml`."""
NOTHING = {
    "text": ("no run scores text tasks.", "Name some under 'retention' of the sequence."),
    "transfer": (
        "no run scores a task that it does not learn, other than text tasks.",
        "Name some under 'transfer' of the sequence.",
    ),
    "ablations": (
        "no method ran with several settings.",
        "Run a method with several: moextend bench run -m moextend -m moextend:layers=first.",
    ),
    "readings": (
        "no answer to an image task has readings.",
        "Readings are made with the scores of a sequence; joint and independent runs are left out.",
    ),
    "routing": (
        "no run has records of its routing.",
        "Routing is recorded while a sequence is trained; joint and independent runs are left out.",
    ),
    "rewind": (
        "no run is scored with its learned change scaled.",
        "Score the last models: moextend bench run --also rewind, with the options of the runs.",
    ),
    "subsets": (
        "no run is scored without some of its stages.",
        "Score the last models: moextend bench run --also subsets, with the options of the runs.",
    ),
}
"""View -> what is reported where no experiment has a table of it, and the hint."""

View = Callable[["Experiment", Asked], "list[Table]"]


def load(name: str) -> View:
    """The function of a view."""
    found: View = lookup.load(f"{__name__}.{VIEWS[name]}")
    return found
