"""Commands for runs as files: pack, unpack, leaderboard, verify."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from moextend.bench.report import packs, submission
from moextend.bench.report import verify as verifying
from moextend.bench.report.collect import collect, some
from moextend.bench.report.formats import terminal
from moextend.bench.report.page import leaderboard as leaderboards
from moextend.bench.run import pack as packing
from moextend.bench.run.rundir import PACK, RunDir, find_runs, run_name
from moextend.cli import options
from moextend.cli.options import Names
from moextend.cli.output import output
from moextend.errors import InputError, counted
from moextend.util import files
from moextend.util.quiet import quiet_process


def pack(
    names: Names = None,
    out: Annotated[
        Path, Option("--out", "-o", metavar="FILE", dir_okay=False, help="A .tar.zst file.")
    ] = Path("runs.tar.zst"),
    weights: Annotated[
        bool, Option("--weights", help="Include the weights of the stages. The report does not need them.")
    ] = False,
    predictions: Annotated[
        bool,
        Option(
            "--predictions/--no-predictions", help="Include the answers, or only the scores of the items."
        ),
    ] = True,
    workspace: options.Workspace = Path(),
) -> None:
    """Write runs into one file: configs, scores, predictions, environments, without paths of this machine."""
    files.check_writable(out.parent, where="--out")
    found = find_runs(workspace / "runs", names or [])
    _refuse_unsound(found)
    manifest = packing.pack(found, out, weights=weights, predictions=predictions)
    packed = f"{counted(len(manifest.runs), 'run')}, {counted(len(manifest.files), 'file')}"
    typer.echo(
        f"wrote {out}: {packed}, {out.stat().st_size / 1e6:,.1f} MB ({manifest.bytes / 1e6:,.1f} MB unpacked)"
    )


def _refuse_unsound(runs: Sequence[RunDir]) -> None:
    """Raises InputError for runs that no report takes: with damaged files, or cells without a parity check."""
    if not runs:
        return
    experiments = collect(runs, unfinished=True)
    damaged = [name for each in experiments for name in each.left_out if name not in each.copies]
    if damaged:
        hint = "The command that made them makes again what is damaged. Or name only the other runs."
        raise InputError(f"no report takes {'; '.join(damaged)}.", where="RUN", hint=hint)
    some(experiments)


def unpack(
    packs: Annotated[
        list[Path],
        Argument(metavar="FILE...", exists=True, dir_okay=False, help="Files that bench pack wrote."),
    ],
    out: Annotated[
        Path | None,
        Option("--out", "-o", file_okay=False, help="Folder of the runs. Default: <workspace>/runs."),
    ] = None,
    workspace: options.Workspace = Path(),
) -> None:
    """Write the runs of packs into a folder, after verifying all checksums of a pack."""
    for path in packs:
        found = packing.unpack(path, out or workspace / "runs", workspace)
        for folder in found.written:
            typer.echo(f"wrote {run_name(folder)}")
        for folder in found.known:
            typer.echo(f"{run_name(folder)} is already here, and is left as it is")
    typer.echo("Next: moextend bench report")


def leaderboard(
    packs: Annotated[
        list[Path], Argument(metavar="PACK", help="Files that bench pack wrote, or folders of them.")
    ],
    out: Annotated[Path, Option("--out", "-o", metavar="DIR", help="New folder of the site.")],
) -> None:
    """Write a static site of all runs of packs: a page a sequence and a method, and the history of entries.

    It needs no server: open index.html, or copy the folder to any web host. Equal packs give equal bytes.
    """
    files.check_writable(out, where="--out")
    built = leaderboards.build(packs, out)
    shown = [counted(built.sequences, "sequence"), counted(built.runs, "run"), counted(built.packs, "pack")]
    typer.echo(f"wrote {built.index}: {shown[0]}, {shown[1]} of {shown[2]}, {built.bytes / 1e6:,.1f} MB")


def verify(
    names: Annotated[
        list[str] | None,
        Argument(
            metavar="RUN|PACK...",
            help="Runs or sequences: names or folders. Default: all. Or packs, as a submission.",
        ),
    ] = None,
    batches: Annotated[
        int, Option(min=0, metavar="N", help="Batches of every cell to answer again. 0: load no model.")
    ] = 1,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
) -> None:
    """Check every file of runs, score them again, and answer a sample of their items again.

    Packs are checked as a submission beside the published runs, in one table; docs/howto/share.md says how.

    Exit code 1: something is wrong, and the output says how to repair it.
    Nothing is changed. What a pack left out is not checked.
    """
    quiet_process()
    given = [Path(name) for name in names or [] if name.endswith(PACK) and Path(name).is_file()]
    if given and len(given) < len(names or []):
        raise InputError(
            "packs and runs are separate checks.", where="RUN|PACK", hint="Name only packs, or runs."
        )
    found = [_verified(given, batches, workspace)] if given else []
    if given and not as_json:
        terminal.print_tables([submission.table(found[0])], *output())
    for run in [] if given else _chosen(names, workspace):

        def follow(cell: str, name: str = run_name(run.folder)) -> None:
            options.echo(f"{name}: {cell}", err=True)

        found.append(verifying.verify(run, batches, follow))
        if not as_json:
            options.echo(verifying.text(found[-1]))
    if as_json:
        typer.echo(json.dumps([one.record() for one in found], indent=2))
    if not all(one.sound for one in found):
        raise typer.Exit(1)


def _chosen(names: list[str] | None, workspace: Path) -> list[RunDir]:
    chosen = find_runs(workspace / "runs", names or [])
    if not chosen:
        hint = "Name a run, a folder of runs, or the workspace (--workspace)."
        raise InputError("no run to verify.", where=str(workspace / "runs"), hint=hint)
    return chosen


def _verified(paths: Sequence[Path], batches: int, workspace: Path) -> verifying.Verification:
    """The checks of packs as a submission."""
    known = [path for path in packs.published() if path.resolve() not in {one.resolve() for one in paths}]
    with (
        packs.unpacked(paths, (), workspace) as runs,
        packs.unpacked(known, {run.folder.parent.name for run in runs}, workspace) as published,
    ):
        say = partial(options.echo, err=True)
        checks = submission.check(runs, published, workspace, batches, say)
    return verifying.Verification(", ".join(path.name for path in paths), checks)
