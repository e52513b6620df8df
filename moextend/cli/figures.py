"""The command `figures`: results as figures for a paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moextend.cli import options
from moextend.cli.reports import Names, Style, chosen_experiments

if TYPE_CHECKING:
    from moextend.bench.figures import Source
    from moextend.bench.report.collect import Experiment


def figures(
    to: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Folder of the figures.")],
    names: Names = None,
    form: Annotated[
        list[str] | None,
        typer.Option("--format", "-f", metavar="FORMAT", help="pdf, png, svg; repeatable. Default: pdf,png."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NAME",
            help="accuracy, matrix, plasticity, forest, text, flows, routing, spread, cost, rewind; repeatable. "
            "Default: all.",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", "-m", metavar="METHOD", help="Methods, in this order; repeatable. Default: all."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="METHOD",
            help="Method that the forest plot compares the others with. Default: moextend.",
        ),
    ] = None,
    style: Style = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Include unfinished runs.")] = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Draw what methods learn and forget: ten figures per sequence, one column wide."""
    from moextend.bench.figures import FORMATS, Source, chosen
    from moextend.bench.report.style import find_style
    from moextend.util import files, lookup

    forms = options.words(form or ["pdf,png"], "--format")
    for one in forms:
        lookup.choose("format", one, dict.fromkeys(FORMATS), where="--format")
    wanted = chosen(options.words(only or [], "--only"))
    methods, styling = options.methods(method or []), find_style(style, workspace)
    files.check_writable(to, where="--out")
    experiments = chosen_experiments(names, runs, workspace, unfinished=unfinished)
    experiments = styling.arranged(experiments)
    shown = styling.style.names
    sources = [Source.of(one, methods, baseline, names=shown) for one in experiments]  # before any file
    for (prefix, experiment), source in zip(_prefixes(experiments), sources, strict=True):
        for name in experiment.left_out:
            options.echo(f"left out: {name}", err=True)
        for name in wanted:
            _write(source, name, f"{to}/{prefix}", forms, asked=bool(only))


def _write(source: Source, name: str, prefix: str, forms: Sequence[str], *, asked: bool) -> None:
    """Draws one figure into files whose names begin with `prefix`; says why not where the runs lack what it shows."""
    from moextend.bench.figures import NothingToDraw, draw, save

    try:
        drawn = draw(name, source)
    except NothingToDraw as error:
        if asked:
            raise
        options.echo(f"left out: {error}", err=True)
        return
    for number, part in enumerate(drawn, 1):
        for form in forms:
            path = Path(f"{prefix}{name}{f'-{number}' if len(drawn) > 1 else ''}.{form}")
            save(part, path)
            typer.echo(f"wrote {path}")


def _prefixes(experiments: Sequence[Experiment]) -> Iterator[tuple[str, Experiment]]:
    """What the names of an experiment's files begin with: nothing where there is one experiment."""
    from moextend.bench.run.rundir import slug

    if len(experiments) == 1:
        yield "", experiments[0]
        return
    named = [slug(experiment.name) for experiment in experiments]
    for place, (name, experiment) in enumerate(zip(named, experiments, strict=True)):
        number = named[: place + 1].count(name)
        yield f"{name}-{number}-" if named.count(name) > 1 else f"{name}-", experiment
