"""The command `paper`: results as a LaTeX project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moextend.cli import options, reports
from moextend.errors import InputError, counted

if TYPE_CHECKING:
    from moextend.bench.report.collect import Experiment
    from moextend.bench.report.paper import Picture

FIGURES = {
    "accuracy": "Accuracy on each task after every stage.",
    "plasticity": "What a method learns (LA) against what it forgets.",
}
"""Figures of a paper -> captions."""


def paper(
    to: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Folder of the LaTeX project.")],
    names: reports.Names = None,
    style: reports.Style = None,
    pdf: Annotated[bool, typer.Option("--pdf/--no-pdf", help="Compile a PDF if TeX is installed.")] = True,
    unfinished: reports.Unfinished = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Write a small LaTeX project: tables, figures, the experimental setup, and what to cite.

    main.tex and latexmkrc are written only once, and you can edit them. Every call overwrites all other files.
    """
    from moextend.bench.report import paper as papers
    from moextend.bench.report.paper.tex import PACKAGES, compile_pdf
    from moextend.bench.report.style import find_style
    from moextend.util import files

    styling = find_style(style, workspace)
    files.check_writable(to, where="--out")
    experiments = reports.chosen_experiments(names, runs, workspace, unfinished=unfinished)
    if len(experiments) > 1:
        each = ", ".join(f"{found.name} ({counted(len(found.results), 'run')})" for found in experiments)
        raise InputError(
            f"these are {len(experiments)} experiments: {each}.",
            where="RUN",
            hint="Name a sequence, or runs of one experiment.",
        )
    written = papers.write(experiments[0], styling, to, draw_figures)
    for path in written.files:
        typer.echo(f"wrote {path}")
    for path in written.kept:
        typer.echo(f"kept {path}: it is yours to edit")
    if written.uncited:
        options.echo(f"no reference is known for: {', '.join(written.uncited)}", err=True)
    if not pdf:
        return
    made = compile_pdf(to)
    if made is None:
        typer.echo(f"no PDF: TeX was not found ({PACKAGES})", err=True)
        return
    typer.echo(f"wrote {made.pdf}")
    if made.warnings:
        options.echo(
            f"TeX has {counted(len(made.warnings), 'warning')}; the first: {made.warnings[0]}", err=True
        )


def draw_figures(experiment: Experiment, names: Mapping[str, str], folder: Path) -> list[Picture]:
    """The two figures of a paper, drawn into its folder with these names; says which the runs do not have."""
    from moextend.bench.figures import NothingToDraw, Source, draw, save
    from moextend.bench.report.paper import Picture

    source = Source.of(experiment, names=names)
    drawn = []
    for name, caption in FIGURES.items():
        try:
            parts = draw(name, source)
        except NothingToDraw as error:
            options.echo(f"left out: {error}", err=True)
            continue
        for number, part in enumerate(parts, 1):
            file = f"{name}{f'-{number}' if len(parts) > 1 else ''}.pdf"
            save(part, folder / file)
            drawn.append(Picture(file, caption))
    return drawn
