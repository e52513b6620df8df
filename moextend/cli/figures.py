"""Results as figures, as a LaTeX project and as a live page: figures, paper, serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from moextend.bench.report import paper as papers
from moextend.bench.report.collect import Experiment, input_notes
from moextend.bench.report.page import serve as start
from moextend.bench.report.paper import INSTALL, Picture, compile_pdf
from moextend.bench.report.style import find_style
from moextend.bench.run.rundir import find_runs, slug
from moextend.cli import options
from moextend.cli.options import Names, Style
from moextend.cli.reports import chosen_experiments, name_left_out
from moextend.errors import InputError, counted
from moextend.util import files, lookup

if TYPE_CHECKING:
    from moextend.bench.figures import Source


FIGURES = {
    "accuracy": "Accuracy on each task after every stage.",
    "plasticity": "What a method learns (LA) against what it forgets.",
}
"""Figures of a paper -> captions."""


def figures(
    to: Annotated[Path, Option("--out", "-o", file_okay=False, help="Folder of the figures.")],
    names: Names = None,
    form: Annotated[
        list[str] | None,
        Option("--format", "-f", metavar="FORMAT", help="pdf, png, svg; repeatable. Default: pdf,png."),
    ] = None,
    only: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="accuracy, matrix, plasticity, forest, flows, routing, cost; repeatable.",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        Option("--method", "-m", metavar="METHOD", help="Methods, in this order; repeatable. Default: all."),
    ] = None,
    baseline: Annotated[
        str | None,
        Option(metavar="METHOD", help="What the forest plot compares the others with. Default: moextend."),
    ] = None,
    style: Style = None,
    workspace: options.Workspace = Path(),
) -> None:
    """Draw what methods learn and forget: seven figures per sequence, one column wide."""
    from moextend.bench.figures import FORMATS, Source, chosen

    forms = options.words(form or ["pdf,png"], "--format")
    for one in forms:
        lookup.choose("format", one, dict.fromkeys(FORMATS), where="--format")
    wanted = chosen(options.words(only or [], "--only"))
    methods, styling = options.methods(method or []), find_style(style, workspace)
    files.check_writable(to, where="--out")
    experiments = chosen_experiments(names, workspace)
    experiments = styling.arranged(experiments)
    shown = styling.style.names
    sources = [Source.of(one, methods, baseline, names=shown) for one in experiments]  # before any file
    for experiment, source in zip(experiments, sources, strict=True):
        prefix = f"{slug(experiment.label)}-" if len(experiments) > 1 else ""
        for name in wanted:
            for path in _drawn(source, name, f"{to}/{prefix}", forms, asked=bool(only)):
                typer.echo(f"wrote {path}")
        for note in input_notes(experiment):
            options.echo(note, err=True)
    name_left_out(experiments)  # after the figures, which find what is damaged


def _drawn(
    source: Source, name: str, prefix: str, forms: Sequence[str], *, asked: bool = False
) -> list[Path]:
    """Draws one figure into files whose names begin with `prefix`; says why not where the runs lack what it shows."""
    from moextend.bench.figures import NothingToDraw, draw, save

    try:
        drawn = draw(name, source)
    except NothingToDraw as error:
        if asked:
            raise
        options.echo(f"left out: {error}", err=True)
        return []
    paths = [Path(f"{prefix}{name}.{form}") for form in forms]
    for path in paths:
        save(drawn, path)
    return paths


def serve(
    names: Names = None,
    port: Annotated[int, Option("--port", min=0, max=65535, help="Port; 0 chooses a free one.")] = 8899,
    workspace: options.Workspace = Path(),
) -> None:
    """Serve the report as a web page on this machine, with the states of runs while they work.

    Ctrl-C stops the server. From another machine, forward the port: ssh -L 8899:127.0.0.1:8899 HOST.
    """
    folder = workspace / "runs"
    found = counted(len(find_runs(folder, names or [])), "run")
    with suppress(KeyboardInterrupt):
        start(
            folder, names or [], workspace, port,
            lambda url: options.echo(f"{found} of {folder}: {url}   (Ctrl-C stops it)"),
        )  # fmt: skip
    typer.echo("stopped.", err=True)


def paper(
    to: Annotated[Path, Option("--out", "-o", file_okay=False, help="Folder of the LaTeX project.")],
    names: Names = None,
    style: Style = None,
    pdf: Annotated[bool, Option("--pdf/--no-pdf", help="Compile a PDF if TeX is installed.")] = True,
    workspace: options.Workspace = Path(),
) -> None:
    """Write a small LaTeX project: tables, figures, the experimental setup, and what to cite.

    main.tex is written only once, and you can edit it. Every call overwrites all other files.
    """
    styling = find_style(style, workspace)
    files.check_writable(to, where="--out")
    experiments = chosen_experiments(names, workspace)
    if len(experiments) > 1:
        each = ", ".join(f"{found.name} ({counted(len(found.results), 'run')})" for found in experiments)
        what = f"these are {len(experiments)} experiments: {each}."
        raise InputError(what, where="RUN", hint="Name a sequence, or runs of one experiment.")
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
        typer.echo(f"no PDF: TeX was not found ({INSTALL})", err=True)
        return
    typer.echo(f"wrote {made.pdf}")
    if made.warnings:
        count = counted(len(made.warnings), "warning")
        options.echo(f"TeX has {count}; the first: {made.warnings[0]}", err=True)


def draw_figures(experiment: Experiment, names: Mapping[str, str], folder: Path) -> list[Picture]:
    """The two figures of a paper, drawn into its folder with these names; says which the runs do not have."""
    from moextend.bench.figures import Source

    source = Source.of(experiment, names=names)
    return [
        Picture(path.name, caption)
        for name, caption in FIGURES.items()
        for path in _drawn(source, name, f"{folder}/", ["pdf"])
    ]
