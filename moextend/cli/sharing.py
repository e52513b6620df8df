"""Commands that share runs and results: pack, unpack, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moextend.cli import options
from moextend.cli.reports import Names, Unfinished, chosen_experiments
from moextend.errors import InputError, counted

if TYPE_CHECKING:
    from moextend.bench.run.rundir import RunDir


def pack(
    names: Names = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="FILE", dir_okay=False, help="A .tar.zst, .tar.gz or .tar file."),
    ] = Path("runs.tar.zst"),
    weights: Annotated[
        bool,
        typer.Option("--weights", help="Include the weights of the stages. The report does not need them."),
    ] = False,
    predictions: Annotated[
        bool,
        typer.Option(
            "--predictions/--no-predictions",
            help="Include the answers. Without them, a pack is small and has the score of each item, for tests.",
        ),
    ] = True,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Include unfinished runs.")] = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Write runs into one file: configs, scores, predictions, environments, without paths of this machine."""
    from moextend.bench.run.gc import size
    from moextend.bench.run.pack import pack
    from moextend.bench.run.rundir import find_runs
    from moextend.util import files

    files.check_writable(out.parent, where="--out")
    found = find_runs(options.runs_folder(runs, workspace), names or [])
    _refuse_unsound(found)
    manifest = pack(
        found,
        out,
        weights=weights,
        predictions=predictions,
        unfinished=unfinished,
    )
    packed = f"{counted(len(manifest.runs), 'run')}, {counted(len(manifest.files), 'file')}"
    typer.echo(f"wrote {out}: {packed}, {size(out.stat().st_size)} ({size(manifest.bytes)} unpacked)")


def _refuse_unsound(runs: Sequence[RunDir]) -> None:
    """Raises InputError for runs that no report takes: with damaged files, or cells without a parity check."""
    from moextend.bench.report.collect import collect, some

    if not runs:
        return
    experiments = collect(runs, unfinished=True)
    damaged = [name for each in experiments for name in each.left_out if name not in each.copies]
    if damaged:
        raise InputError(
            f"no report takes {'; '.join(damaged)}.",
            where="RUN",
            hint="moextend bench run makes again what is damaged. Or name only the other runs.",
        )
    some(experiments)


def unpack(
    packs: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="Files that bench pack wrote."),
    ],
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Write the runs of packs into the workspace, after verifying all checksums of a pack."""
    from moextend.bench.run.pack import unpack
    from moextend.bench.run.rundir import run_name

    for path in packs:
        found = unpack(path, runs or workspace / "runs", workspace)
        for folder in found.written:
            typer.echo(f"wrote {run_name(folder)}")
        for folder in found.known:
            name = run_name(folder)
            lacking = f", without everything that the pack has. To get that, first: moextend bench remove-run {name}"
            typer.echo(f"{name} is already here{lacking if folder in found.bare else ''}")
    typer.echo("Next: moextend bench report")


def export(
    out: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Folder of the files.")],
    names: Names = None,
    items: Annotated[bool, typer.Option("--items", help="Also write the answers to single items.")] = False,
    unfinished: Unfinished = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Write results as lm-evaluation-harness does, for leaderboards: one results file for every run and stage."""
    from moextend.bench.report import lm_eval_files
    from moextend.bench.report.collect import lacking_notes
    from moextend.util import files

    files.check_writable(out, where="--out")
    experiments = chosen_experiments(names, runs, workspace, unfinished=unfinished)
    written = lm_eval_files.write(experiments, out, items=items)
    for experiment in experiments:
        notes = [f"left out: {name}" for name in experiment.left_out]
        for note in [*notes, *lacking_notes(experiment.results)]:
            options.echo(note, err=True)
    count = sum(len(experiment.results) for experiment in experiments)
    typer.echo(f"wrote {counted(len(written), 'file')} of {counted(count, 'run')} to {out}")
