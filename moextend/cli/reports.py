"""Commands about what runs have found: report, explain."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moextend.cli import options, report_output
from moextend.errors import InputError, UnknownName, listed

if TYPE_CHECKING:
    from moextend.bench.report import View
    from moextend.bench.report.collect import Experiment

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN...", help="Runs or sequences: names or folders. Default: all."),
]
Style = Annotated[
    Path | None,
    typer.Option(
        "--style",
        metavar="FILE",
        help="YAML with columns, precision, names and captions. Default: report.yaml of the workspace.",
    ),
]
Unfinished = Annotated[bool, typer.Option("--unfinished", help="Include unfinished runs, and mark them.")]


def chosen_experiments(
    names: list[str] | None, runs: Path | None, workspace: Path, *, unfinished: bool = False
) -> list[Experiment]:
    """What the named runs found; InputError if there is none of that name, or none with a result."""
    from moextend.bench.report.collect import collect, some
    from moextend.bench.run.rundir import find_runs

    found = find_runs(options.runs_folder(runs, workspace), names or [])
    return some(collect(found, unfinished=unfinished))


def report(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VIEW|RUN",
            help="A view, and runs or sequences: names or folders. Default: all runs.",
        ),
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option(
            "--accuracy",
            metavar="PERCENT",
            help="Of the view budgets: the accuracy to reach. Default: the highest that every method reaches.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="METHOD",
            help="Compare every method with this one, with tests; zero-shot is the base.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            metavar="POINTS",
            help="With --baseline: differences within this margin count as equivalent. Default: 1.",
        ),
    ] = None,
    references: Annotated[
        list[str] | None,
        typer.Option(
            "--references",
            metavar="NAME",
            help="Published numbers of the same protocol, shown below the table; repeatable.",
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="table, markdown, latex, csv or html (without a view: a page with the results of every item); "
            "of items csv, parquet or json.",
        ),
    ] = "table",
    to: Annotated[
        Path | None, typer.Option("--out", "-o", help="A file, or a folder for one file per table.")
    ] = None,
    style: Style = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", metavar="DIR", help="Write the page as a folder, for many items and images."
        ),
    ] = None,
    unfinished: Unfinished = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Print what each method learned and forgot: one row per method.

    A word that names a view shows that instead:

    tasks, text, transfer: final scores by task, learned, text or never learned
    matrix: the score on every task after every stage
    comparison: differences from --baseline, with tests
    ablations: a method with several settings, side by side
    costs, budgets: what a method costs, and what it costs to an equal accuracy
    routing: which new experts a task reaches, and how routing drifts
    readings: scores of strict and normalised answers, and of older scorers
    rewind, subsets: scaled and left-out updates (bench run --rewind, --subsets)
    items: the results of single items, a row per answer
    """
    from moextend.bench.report.collect import collect, some
    from moextend.bench.report.style import find_style
    from moextend.bench.report.views.comparison import with_baseline
    from moextend.bench.report.views.published import read_references
    from moextend.bench.run.rundir import find_runs
    from moextend.util import files

    folder = options.runs_folder(runs, workspace)
    asked, names = _view(names or [], folder)
    if asked == "items":
        others = {"--baseline": baseline, "--margin": margin, "--references": references, "--bundle": bundle}
        others |= {"--style": style, "--accuracy": accuracy}
        options.refuse_with("items", [name for name, given in others.items() if given])
        report_output.write_items(find_runs(folder, names), form, to, unfinished=unfinished)
        return
    view = _compared(asked, baseline)
    compared = view == "comparison"
    _check_form(form, bundle, asked, to)
    styling, points = find_style(style, workspace), _margin(margin, baseline if compared else None)
    wanted = _accuracy(accuracy, budgets=view == "budgets")
    if to is not None:
        files.check_writable(to.parent if to.suffix else to, where="--out")
    published = read_references(options.words(references or [], "--references"), workspace)
    found = find_runs(folder, names)
    # Published numbers can be looked at before anything has run.
    experiments = some(collect(found, unfinished=unfinished)) if found or not published else []
    arranged = styling.arranged(experiments)
    if compared and baseline is not None and arranged:
        arranged = with_baseline(arranged, baseline)
    how = report_output.How(styling, baseline, points, published, wanted)
    is_page = bundle is not None or (
        form == "html" and view == "forgetting" and (to is None or bool(to.suffix))
    )
    if experiments and is_page:
        report_output.write_page(experiments, to, bundle, how, workspace)
        return
    if to is None:
        report_output.print_tables(experiments, how, form, view)
    else:
        report_output.write_tables(experiments, to, form, view, how)
    if form == "csv":  # after the tables, which find what is damaged
        report_output.name_left_out(arranged)


def _view(words: list[str], folder: Path) -> tuple[View | None, list[str]]:
    """The view among the words, and the runs; InputError for two views, and for one that is a run's name, too."""
    from moextend.bench.report import VIEWS

    known = (*VIEWS, "items")
    for word in words:
        is_run = (folder / word).exists() or Path(word).exists()
        if word not in known and not is_run and get_close_matches(word, known, cutoff=0.75):
            raise UnknownName("view or run", word, known, where="report")
    views = [word for word in words if word in known]
    if len(views) > 1:
        raise InputError(
            f"{listed(views)} are separate views.", where="report", hint="Use one of them per call."
        )
    if views and (folder / views[0]).exists():
        raise InputError(
            f"'{views[0]}' is a view, and the name of runs.",
            where="report",
            hint=f"Name the runs by their folder: {folder / views[0]}.",
        )
    names = [word for word in words if word not in views]
    return (views[0] if views else None), names


def _compared(asked: View | None, baseline: str | None) -> View:
    """The view to show: a baseline alone asks for the comparison; InputError where it and the view do not agree."""
    if baseline is None and asked == "comparison":
        raise InputError("requires --baseline.", where="comparison", hint="Add --baseline METHOD.")
    if asked is None:
        return "forgetting" if baseline is None else "comparison"
    if baseline is not None and asked not in ("comparison", "budgets"):
        options.refuse_with(asked, ["--baseline"])
    return asked


def _margin(points: float | None, baseline: str | None) -> float:
    """What counts as no difference, in points; InputError if it is outside its range, or counts for nothing."""
    if points is None:
        return 1.0
    from moextend.bench.report.views.comparison import check_margin

    check_margin(points)
    if baseline is None:
        raise InputError("requires --baseline.", where="--margin", hint="Add --baseline METHOD.")
    return points


def _accuracy(percent: float | None, *, budgets: bool) -> float | None:
    """The accuracy of the view budgets; InputError if it is no percentage, or counts for nothing."""
    if percent is None:
        return None
    if not 0 <= percent <= 100:
        raise InputError(
            f"{percent} is not a percentage.", where="--accuracy", hint="Give a number from 0 to 100."
        )
    options.refuse_except_with("budgets", {} if budgets else {"--accuracy": True})
    return percent


def _check_form(form: str, bundle: Path | None, view: str | None, to: Path | None) -> None:
    """Checks the format of tables or of the page before results are read."""
    from moextend.bench.report import FORMATS
    from moextend.util import files, lookup

    if form in ("json", "parquet"):
        raise InputError(
            f"no table is written as {form}.",
            where="--format",
            hint="The view items has these formats: moextend bench report items.",
        )
    lookup.choose("format", form, FORMATS, where="--format")
    if bundle is not None:
        others = {"--out": to, "--format": form not in ("table", "html")}
        options.refuse_with(
            "--bundle", [*([view] if view else []), *(name for name, given in others.items() if given)]
        )
        files.check_writable(bundle, where="--bundle")


def explain(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run: name or folder.")],
    stage: Annotated[int, typer.Argument(metavar="STAGE", help="Number of the stage; 0 is the base.")],
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task that was scored.")],
    items: Annotated[
        int, typer.Option("--items", min=0, metavar="N", help="Number of answers to show, wrong ones first.")
    ] = 5,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Show how one number of a table was computed, and check its files.

    Exit code 1: a check failed.
    """
    from moextend.bench.report import explain as explaining
    from moextend.bench.run.rundir import find_run

    found = find_run(options.runs_folder(runs, workspace), run, where="RUN")
    explanation = explaining.explain(found, stage, task)
    if as_json:
        typer.echo(json.dumps(explanation.record(), indent=2))
    else:
        options.echo(explaining.text(explanation, items))
    if not explanation.sound:
        raise typer.Exit(1)
