"""What runs have found: `bench report`, `bench explain`, and the tables of other commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from moextend.bench.report import FORMATS, VIEWS, How, View, lm_eval_files, packs, render, tables
from moextend.bench.report import explain as explaining
from moextend.bench.report.collect import Experiment, collect, lacking_notes, some
from moextend.bench.report.formats import latex, terminal
from moextend.bench.report.formats.csv import cells
from moextend.bench.report.frame import check_format, frame, write
from moextend.bench.report.page import bundle, page
from moextend.bench.report.style import find_style
from moextend.bench.report.views import MARGIN
from moextend.bench.report.views.comparison import check_margin, with_baseline
from moextend.bench.report.views.published import read_references
from moextend.bench.run.rundir import find_run, find_runs
from moextend.cli import options
from moextend.cli.options import Style, Unfinished
from moextend.cli.output import output
from moextend.errors import InputError, counted, listed
from moextend.util import files, lookup

LM_EVAL = "lm-eval"
WHOLE = {"html": "a page of all views", LM_EVAL: "a folder of results files of all cells"}
"""Formats of whole experiments instead of one view -> what they are."""


def chosen_experiments(
    names: list[str] | None, workspace: Path, *, unfinished: bool = False
) -> list[Experiment]:
    """What the named runs found; InputError if there is none of that name, or none with a result."""
    return some(collect(find_runs(workspace / "runs", names or []), unfinished=unfinished))


def report(
    words: Annotated[
        list[str] | None,
        Argument(
            metavar="VIEW|RUN", help="A view, and runs or sequences: names or folders. Default: all runs."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        Option(
            "--baseline",
            metavar="METHOD",
            help="Compare every method with this one, with tests; or zero-shot.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        Option(metavar="POINTS", help="With --baseline: such differences count as equivalent. Default: 1."),
    ] = None,
    references: Annotated[
        list[str] | None,
        Option(metavar="NAME", help="Published numbers of the same protocol, below the table; repeatable."),
    ] = None,
    against: Annotated[
        list[str] | None,
        Option(
            metavar="PACK",
            help="Also the runs of packs, of the same sequences: published, or a pack or folder of packs; repeatable.",
        ),
    ] = None,
    form: Annotated[
        str,
        Option(
            "--format",
            "-f",
            help="table, markdown, latex, csv; html is a page of all views with the results of every item, which as a "
            "folder has room for more of them; lm-eval is a folder of its results files; of items csv or parquet.",
        ),
    ] = "table",
    to: Annotated[
        Path | None, Option("--out", "-o", help="A file, or a folder for one file per table.")
    ] = None,
    style: Style = None,
    unfinished: Unfinished = False,
    workspace: options.Workspace = Path(),
) -> None:
    """Print what each method learned and forgot: one row per method.

    A word that names a view shows that instead:

    tasks, text, transfer: final scores by task, learned, text or never learned
    matrix: the score on every task after every stage
    comparison: differences from --baseline, with tests
    ablations: a method with several settings, side by side
    costs: what a method costs
    routing: which new experts a task reaches, and how routing drifts
    readings: scores of strict and normalised answers, and of older scorers
    rewind, subsets: scaled and left-out updates (bench run --also rewind, --also subsets)
    items: the results of single items, a row per answer
    """
    asked, names = _view(words or [])
    if asked == "items":
        others: dict[str, object] = {"--baseline": baseline, "--margin": margin, "--references": references}
        options.refuse_except_with("views of tables", others | {"--style": style})
        check_format(form, to)
        with _found(names, against, workspace, unfinished=unfinished) as experiments:
            _write_items(experiments, form, to)
        return
    view = _checked(asked, baseline, margin)
    lookup.choose("format", form, {**FORMATS, **WHOLE}, where="--format")
    if form in WHOLE and asked is not None:
        raise InputError(f"{form} is {WHOLE[form]}.", where=asked, hint="Leave the view out.")
    if form == LM_EVAL:
        _folder(to)
    styling = find_style(style, workspace)
    if to is not None:
        files.check_writable(to.parent if to.suffix else to, where="--out")
    published = read_references(options.words(references or [], "--references"), workspace)
    how = How(baseline, MARGIN if margin is None else margin, published, styling)
    # Published numbers can be looked at before anything has run.
    with _found(names, against, workspace, unfinished=unfinished, needed=not published) as experiments:
        arranged = styling.arranged(experiments)
        if view == "comparison" and baseline is not None and arranged:
            arranged = with_baseline(arranged, baseline)
        if form == "html":
            _write_page(experiments, to, how, workspace)
            return
        if form == LM_EVAL:
            _write_lm_eval(experiments, to)
            return
        if to is None:
            print_tables(experiments, how, form, view)
        else:
            _write_tables(experiments, to, form, view, how)
        if not FORMATS[form].for_people:  # after the tables, which find what is damaged
            name_left_out(arranged)


@contextmanager
def _found(
    names: list[str], against: list[str] | None, workspace: Path, *, unfinished: bool, needed: bool = True
) -> Iterator[list[Experiment]]:
    """Context with the experiments of the named runs, and of packs beside them; if `needed`, of one run at least."""
    others = packs.find_packs(options.words(against or [], "--against"), where="--against")
    with packs.beside(workspace / "runs", names, others, workspace) as (own, runs):
        experiments = some(collect(runs, unfinished=unfinished)) if runs or needed else []
        if others:
            packs.note_own(experiments, own)
        yield experiments


def _view(words: list[str]) -> tuple[View | None, list[str]]:
    """The view among the words, and the runs; InputError for two views."""
    views = [word for word in words if word in (*VIEWS, "items")]
    if len(views) > 1:
        raise InputError(
            f"{listed(views)} are separate views.", where="report", hint="Use one of them per call."
        )
    return (views[0] if views else None), [word for word in words if word not in views]


def _checked(asked: View | None, baseline: str | None, margin: float | None) -> View:
    """The view to show: a baseline alone asks for the comparison. InputError for options that do not fit it."""
    view: View = asked or ("forgetting" if baseline is None else "comparison")
    if baseline is None and view == "comparison":
        raise InputError("requires --baseline.", where="comparison", hint="Add --baseline METHOD.")
    if baseline is not None and view != "comparison":
        options.refuse_with(view, ["--baseline"])
    if margin is not None:
        check_margin(margin)
        if view != "comparison":
            raise InputError("requires --baseline.", where="--margin", hint="Add --baseline METHOD.")
    return view


def _write_items(experiments: list[Experiment], form: str, to: Path | None) -> None:
    """Writes the frame of results; names on standard error what is left out of it."""
    if to is not None:
        files.check_writable(to.parent if to.suffix else to, where="--out")
        to = to if to.suffix else to / f"items.{form}"
    write(frame(experiments), form, to or sys.stdout)
    name_left_out(experiments)
    if to is not None:
        typer.echo(f"wrote {to}")


def _folder(to: Path | None) -> Path:
    """The folder of results files; InputError if none is named."""
    if to is None or to.suffix:
        raise InputError("lm-eval needs a folder.", where="--out", hint="Name one: --out results/.")
    return to


def _write_lm_eval(experiments: list[Experiment], to: Path | None) -> None:
    """Writes results as lm-evaluation-harness does; names on standard error what is left out."""
    written = lm_eval_files.write(experiments, _folder(to))
    name_left_out(experiments)
    count = sum(len(experiment.results) for experiment in experiments)
    typer.echo(f"wrote {counted(len(written), 'file')} of {counted(count, 'run')} to {to}")


def _write_page(experiments: list[Experiment], to: Path | None, how: How, workspace: Path) -> None:
    """Writes the page as a file or a folder, or prints it."""
    if to is None:
        typer.echo(page(experiments, how, workspace), nl=False)
    elif to.suffix:
        files.write_text(to, page(experiments, how, workspace))
        typer.echo(f"wrote {to}")
    else:
        typer.echo(f"wrote {bundle(experiments, to, how, workspace)}")


def _write_tables(experiments: list[Experiment], to: Path, form: str, view: View, how: How) -> None:
    """Writes the tables of one view to a file, or of it and all usual views to a folder."""
    views: dict[Path, View] = {to: view}
    if not to.suffix:
        every: list[View] = ["forgetting", "matrix", "costs", view]
        views = {to / f"{name}.{FORMATS[form].suffix}": name for name in every}
    for path, name in views.items():
        text, notes = _rendered(experiments, form, name, how if name == view else replace(how, references=()))
        for one, content in {path: text, path.with_name(f"{path.stem}-notes{path.suffix}"): notes}.items():
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
    terminal.print_tables(tables(experiments, view, how), *output())


def print_styled(experiments: list[Experiment], workspace: Path, view: View = "forgetting") -> None:
    """Prints tables of all these runs as the workspace's report.yaml has them."""
    if experiments:
        print_tables(experiments, How(style=find_style(None, workspace)), view=view)


def name_left_out(experiments: Sequence[Experiment]) -> None:
    """Names on standard error the runs that are left out, and what others lack, for formats without notes."""
    for experiment in experiments:
        for name in experiment.left_out:
            options.echo(f"left out: {name}", err=True)
        for note in lacking_notes(experiment.results):
            options.echo(note, err=True)


def _rendered(experiments: list[Experiment], form: str, view: View, how: How) -> tuple[str, str]:
    """The tables of a view, and notes for which LaTeX has another place."""
    if form == "csv" and view == "matrix" and not how.references:
        return cells(how.style.arranged(experiments)), ""
    if form == "latex":
        return latex.apart(tables(experiments, view, replace(how, style=how.style.for_papers(experiments))))
    return render(tables(experiments, view, how, rank=FORMATS[form].for_people), form), ""


def explain(
    run: Annotated[str, Argument(metavar="RUN", help="A run: name or folder.")],
    stage: Annotated[int, Argument(metavar="STAGE", help="Number of the stage; 0 is the base.")],
    task: Annotated[str, Argument(metavar="TASK", help="A task that was scored.")],
    items: Annotated[int, Option(min=0, metavar="N", help="Answers to show, wrong ones first.")] = 5,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
) -> None:
    """Show how one number of a table was computed, and check its files.

    Exit code 1: a check failed.
    """
    explanation = explaining.explain(find_run(workspace / "runs", run, where="RUN"), stage, task)
    if as_json:
        typer.echo(json.dumps(explanation.record(), indent=2))
    else:
        options.echo(explaining.text(explanation, items))
    if not explanation.sound:
        raise typer.Exit(1)
