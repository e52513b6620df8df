"""`bench run --rewind` and `--subsets`: variants of finished runs are scored after the runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from moextend.cli import options
from moextend.cli.executing import GO_ON
from moextend.errors import InputError, RunFailed, counted

if TYPE_CHECKING:
    from moextend.bench.report import View
    from moextend.bench.run.rundir import RunConfig, RunDir
    from moextend.bench.run.variants import Step, Variant

Wanted = Mapping[str, Sequence["Variant"]]
"""Digest of a config -> its variants."""


def wanted(
    configs: Sequence[RunConfig],
    *,
    rewind: bool,
    subsets: str | None,
    others: Mapping[str, bool],
    quiet: bool,
) -> Wanted:
    """The variants that are asked for, before anything runs; names runs that have none, and why.

    others: options that do not go with these -> whether they are given.

    Raises:
        InputError: no run has such variants, or an option is given that does not go with these.
    """
    found: dict[str, list[Variant]] = {}
    for option, given in (("--rewind", rewind), ("--subsets", subsets is not None)):
        if not given:
            continue
        options.refuse_with(option, [name for name, is_given in others.items() if is_given])
        refused = _add(found, configs, subsets if option == "--subsets" else None)
        if len(refused) == len(configs):
            raise InputError(f"{next(iter(refused.values()))}.", where=option, hint="Name another method.")
        for method, why in refused.items() if not quiet else ():
            options.echo(f"{option} leaves out {method}: {why}.", err=True)
    return found


def _add(
    found: dict[str, list[Variant]], configs: Sequence[RunConfig], subsets: str | None
) -> dict[str, str]:
    """Adds the variants of each config (subsets None: of the dial); returns method and mode -> why it has none."""
    from moextend.bench.run import variants

    refused = {}
    for config in configs:
        why = variants.refusal(config, subsets=subsets is not None)
        if why:
            refused[config.slug] = why
            continue
        own = variants.rewound(config) if subsets is None else variants.subsets(config, subsets)
        found[config.digest] = list(dict.fromkeys([*found.get(config.digest, []), *own]))
    return refused


def score(runs: Sequence[RunDir], asked: Wanted, *, quiet: bool) -> None:
    """Scores the missing cells of the variants of runs that are done, one after the other in this process.

    Raises:
        RunFailed: a cell cannot be scored; the others are.
    """
    from moextend.bench.run.progress import read_status
    from moextend.bench.run.rundir import run_name
    from moextend.bench.run.variants import score_variants
    from moextend.util.quiet import quiet_process

    quiet_process()
    failed: list[str] = []
    for run in runs:
        own = asked.get(run.config.digest)
        if own and read_status(run.folder).state == "done":
            name = run_name(run.folder)
            try:
                failed += [f"{name}, {what}" for what in score_variants(run, own, _shown(name, quiet=quiet))]
            except KeyboardInterrupt:
                typer.echo(GO_ON, err=True)
                raise typer.Exit(130) from None
    if failed:
        raise RunFailed(
            f"{counted(len(failed), 'cell')} of variants could not be scored; the first: {failed[0]}",
            where="bench run",
            hint="Remove the cause and run the same command again: only those cells are scored.",
        )


def _shown(name: str, *, quiet: bool) -> Callable[[Step], None]:
    from moextend.bench.run.variants import label

    def say(step: Step) -> None:
        if not quiet:
            typer.echo(
                f"{name}: {label(step.variant)}, {step.task} ({step.done + 1} of {step.cells})", err=True
            )

    return say


def views(*, rewind: bool, subsets: str | None) -> list[View]:
    """The views of the report that show the variants."""
    found: list[View] = ["rewind"] if rewind else []
    return [*found, "subsets"] if subsets is not None else found
