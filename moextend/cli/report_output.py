"""Where results of `report` go: the terminal, files, the page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from moextend.cli import options
from moextend.cli.output import output

if TYPE_CHECKING:
    from moextend.bench.references import Reference
    from moextend.bench.report import View
    from moextend.bench.report.collect import Experiment
    from moextend.bench.report.style import Styling
    from moextend.bench.run.rundir import RunDir


@dataclass(frozen=True)
class How:
    """What tables and the page compare, and how they look."""

    style: Styling
    baseline: str | None = None
    margin: float = 1.0
    references: Sequence[Reference] = field(default_factory=list)
    accuracy: float | None = None
    """Of `budgets`."""

    def tables(self, *, references: bool = True) -> dict[str, Any]:
        """Arguments of `report.tables`."""
        return vars(self) | {"references": self.references if references else []}


def write_items(runs: Sequence[RunDir], form: str, to: Path | None, *, unfinished: bool) -> None:
    """Writes the frame of results; names on standard error what is left out of it."""
    from moextend.bench.report.collect import collect, some
    from moextend.bench.report.frame import check_format, frames, write
    from moextend.util import files

    check_format(form, to)
    if to is not None:
        files.check_writable(to.parent if to.suffix else to, where="--out")
        to = to if to.suffix else to / f"items.{form}"
    experiments = some(collect(runs, unfinished=unfinished))
    write(frames(experiments), form, to or sys.stdout)
    name_left_out(experiments)
    if to is not None:
        typer.echo(f"wrote {to}")


def write_page(
    experiments: list[Experiment], to: Path | None, folder: Path | None, how: How, workspace: Path
) -> None:
    """Writes the page as a file or a folder, or prints it."""
    from moextend.bench.report.page import bundle, page
    from moextend.util import files

    asked = vars(how) | {"workspace": workspace}
    del asked["accuracy"]  # the page has no such view
    if folder is not None:
        typer.echo(f"wrote {bundle(experiments, folder, **asked)}")
    elif to is not None:
        files.write_text(to, page(experiments, **asked))
        typer.echo(f"wrote {to}")
    else:
        typer.echo(page(experiments, **asked), nl=False)


def write_tables(experiments: list[Experiment], to: Path, form: str, view: View, how: How) -> None:
    """Writes the tables of one view to a file, or of it and all usual views to a folder."""
    from moextend.bench.report import SUFFIX
    from moextend.util import files

    views: dict[Path, View] = {to: view}
    if not to.suffix:
        every: list[View] = ["forgetting", "matrix", "costs", view]
        views = {to / f"{name}.{SUFFIX[form]}": name for name in every}
    for path, name in views.items():
        text, notes = _rendered(experiments, form, name, how, references=name == view)
        texts = {path: text, path.with_name(f"{path.stem}-notes{path.suffix}"): notes}
        for one, content in texts.items():
            if one == path or content:
                files.write_text(one, content)
                typer.echo(f"wrote {one}")


def print_tables(
    experiments: list[Experiment], how: How, form: str = "table", view: View = "forgetting"
) -> None:
    """Prints the tables of one view, for the terminal or as text of another format."""
    if form != "table":
        typer.echo("\n".join(filter(None, _rendered(experiments, form, view, how))), nl=False)
        return
    from moextend.bench.report import tables
    from moextend.bench.report.formats import terminal

    console, width = output()
    terminal.print_tables(tables(experiments, view, **how.tables()), console, width)


def name_left_out(experiments: Sequence[Experiment]) -> None:
    """Names on standard error the runs that are left out, and what others lack, for formats without notes."""
    from moextend.bench.report.collect import lacking_notes

    for experiment in experiments:
        left_out = [f"left out: {name}" for name in experiment.left_out]
        for note in [*left_out, *lacking_notes(experiment.results)]:
            options.echo(note, err=True)


def _rendered(
    experiments: list[Experiment], form: str, view: View, how: How, *, references: bool = True
) -> tuple[str, str]:
    """The tables of a view, and notes for which LaTeX has another place."""
    from moextend.bench.report import render, tables
    from moextend.bench.report.formats import latex
    from moextend.bench.report.formats.csv import cells

    asked = how.tables(references=references)
    if form == "csv" and view == "matrix" and not asked["references"]:
        return cells(how.style.arranged(experiments)), ""
    if form == "latex":
        return latex.apart(tables(experiments, view, **asked | {"style": how.style.for_papers(experiments)}))
    return render(tables(experiments, view, rank=form != "csv", **asked), form), ""
