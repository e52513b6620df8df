"""Run folders -> tables: what was learned, what was forgotten, in the terminal or in a paper.

    collect.py    run folders -> experiments: runs that may stand in one table, with their scores and metrics
        |
    views/        experiment -> tables; a view a file, its line in views.VIEWS
        |             table.py: a table of words and numbers; notes.py: notes and marks that views share
        |             items.py: the items behind a score, for tests; ranks.py: what is bold; style.py: report.yaml
    formats/      tables -> text; a format a function, its line in formats.FORMATS

`tables` is the way from experiments to tables, `render` that to text. Beside it stand what is more than tables: the
page (page/), a paper (paper/), one frame of all items (frame.py, fate.py), the files of lm-eval (lm_eval_files.py), and
what a single number rests on (explain.py, verify.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from moextend.bench.references import Reference
from moextend.bench.report.collect import Experiment, run_notes
from moextend.bench.report.formats import FORMATS, render
from moextend.bench.report.notes import with_sources
from moextend.bench.report.ranks import ranked
from moextend.bench.report.style import Styling
from moextend.bench.report.table import Table
from moextend.bench.report.views import NOTHING, VIEWS, Asked, load
from moextend.bench.report.views.comparison import with_baseline
from moextend.bench.report.views.published import published_tables
from moextend.bench.report.views.sequences import sequences_table
from moextend.errors import InputError

__all__ = ["FORMATS", "VIEWS", "How", "View", "render", "tables", "view"]

View = str
"""Name of a view."""


@dataclass(frozen=True)
class How(Asked):
    """What tables and the page compare, and how they look."""

    references: Sequence[Reference] = ()
    """Published numbers that stand below the measured ones."""
    style: Styling = field(default_factory=Styling)
    """Names and order of methods, columns and captions."""


def tables(
    experiments: Sequence[Experiment], name: View = "forgetting", how: How | None = None, *, rank: bool = True
) -> list[Table]:
    """The tables of one view of each experiment, what holds over several, and below them the published ones.

    `comparison` needs a baseline, and leaves out experiments without runs of it.

    Args:
        rank: whether the best values are bold that tests can tell from the rest (ranks.ranked).

    Raises:
        InputError: there is no such table, or the references do not belong to these experiments.
        UnknownName: the style names a column that a table does not have.
    """
    how = how or How()
    experiments = how.style.arranged(experiments)
    if name == "comparison" and experiments:
        experiments = with_baseline(experiments, str(how.baseline))
    published = published_tables(experiments, how.references) if how.references else []
    parts = [view(experiment, name, how, rank=rank) for experiment in experiments]
    measured = [table for part in parts for table in part]
    if name == "comparison" and len(experiments) > 1:
        measured += filter(None, [sequences_table(experiments, str(how.baseline), how.margin)])
    without = [one.label for one, part in zip(experiments, parts, strict=True) if not part]
    if measured and without:
        measured[-1] = measured[-1].noted(f"Not in these tables: {', '.join(without)}: {NOTHING[name][0]}")
    if experiments and not measured:
        what, hint = NOTHING[name]
        raise InputError(what, where=f"report {name}", hint=hint)
    return how.style.styled([*measured, *(with_sources(experiments, table) for table in published)])


def view(experiment: Experiment, name: View, asked: Asked | None = None, *, rank: bool = True) -> list[Table]:
    """The tables of one view of an experiment, with what is bold, where settings come from, and the runs left out."""
    found = load(name)(experiment, asked or Asked())
    notes = run_notes(experiment)
    if found and not any(set(notes) <= set(table.notes) for table in found):
        found[-1] = found[-1].noted(*notes)
    return [with_sources([experiment], ranked(experiment, table) if rank else table) for table in found]
