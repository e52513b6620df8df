"""`moextend certify`: what an extension provably leaves as it was."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from moextend.certificate.record import Certificate, check_record, files_in
from moextend.cli import options
from moextend.cli.command import grouped
from moextend.cli.inputs import Reading, check_out
from moextend.cli.opening import ExtendedBase, Loaded, check_extensions, folders_of
from moextend.errors import InputError, at
from moextend.extension.folder import local_folder
from moextend.util.quiet import quiet_process


@grouped
def certify(
    extension: Annotated[
        str | None,
        Argument(metavar="EXTENSION", help="Folder of an extension, a hub id, or RUN:STAGE of a benchmark."),
    ] = None,
    base: Annotated[
        str | None,
        Option(help="Base of the extension: as in 'extend', or what it was exported to. A run has its own."),
    ] = None,
    items: Annotated[
        int,
        Option(min=2, max=100_000, help="Number of texts, and maximum number of inputs of each other set."),
    ] = 64,
    scope: Annotated[
        Literal["own", "auto", "all"] | None,
        Option(help="Task given (own), inferred (auto), or always active. Default: that of the training."),
    ] = None,
    data: Annotated[
        str | None, Option(help="Data of its task, from which similar inputs are generated, as in 'extend'.")
    ] = None,
    *,
    reading: Reading,
    near: Annotated[
        list[str] | None,
        Option(metavar="DATA", help="Data of similar tasks, on which it must have no effect; repeatable."),
    ] = None,
    others: Loaded = None,
    out: Annotated[
        Path | None,
        Option(
            "--out", "-o", file_okay=False, help="Folder for the certificate. Default: that of the extension."
        ),
    ] = None,
    check: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Check a certificate, or all in a folder, instead: SHA-256, files and claims.",
        ),
    ] = None,
    server: Annotated[
        str | None,
        Option(
            metavar="URL",
            help="Also compare text with a server that has the models base and EXTENSION (vLLM).",
        ),
    ] = None,
    device: options.Device = "cpu",
    workspace: options.Workspace = Path(),
    as_json: options.Json = False,
) -> None:
    """Prove what an extension leaves unchanged: base tensors, answers to text, and the base after unloading.

    Writes certificate-SCOPE.json and certificate-SCOPE.md. Exit code 1: a claim failed, and the certificate has the
    counterexample.
    """
    if check is not None:
        _check(check, extension, as_json)
        return
    if extension is None:
        raise InputError("is missing.", where="EXTENSION", hint="Name a folder, or give --check FILE.")
    if out is not None:
        check_out(out)
    path = Path(extension)
    wanted = {
        "scope": scope,
        "items": items,
        "server": server,
        "command": shlex.join(["moextend", *sys.argv[1:]]),
    }
    if base is not None:
        asked = ExtendedBase(base=base, device=device)
        found, folder = _of_folder(extension, asked, others or [], data, near or [], reading, wanted)
    elif path.parent.name == "stages" or not (path / "extension.json").is_file():
        only: dict[str, object] = {"--data": data, "--near": near, "-e": others}
        options.refuse_except_with("an extension with --base", only)
        found, folder = _of_run(extension, workspace / "runs", wanted)
    else:
        raise InputError("is missing.", where="--base", hint="Name the base that it was trained on.")
    final = found.write_to(out or folder)
    if as_json:
        typer.echo(json.dumps(final.model_dump(), indent=2))
    else:
        for one in final.claims:
            count = f"  ({one.items} compared)" if one.items else ""
            options.echo(f"{one.status:<12} {one.name}{count}{': ' + one.reason if one.reason else ''}")
        name = f"certificate-{final.scope}"
        options.echo(f"{final.verdict}\nwrote {(out or folder) / name}.json and {name}.md")
    if not final.sound:
        raise typer.Exit(1)


def _of_run(extension: str, runs: Path, wanted: dict[str, Any]) -> tuple[Certificate, Path]:
    """Certificate of a stage of a run, and the folder that it is written to."""
    from moextend.bench.exporting import evidence, stage
    from moextend.certificate.certify import certify as certified

    named = stage.find(extension, runs)
    quiet_process()
    found = evidence.of_stage(named)
    certificate = certified(
        found.model, found.folder, base=found.base, data=found.data, others=found.others,
        forgetting=found.forgetting, **{**wanted, "scope": wanted["scope"] or found.scope},
    )  # fmt: skip
    return certificate, Path(f"{named.run.folder.name}-{found.folder.name}-certificate")


def _of_folder(
    extension: str, base: ExtendedBase, others: list[Path], data: str | None, near: list[str], reading: Reading,
    wanted: dict[str, Any],
) -> tuple[Certificate, Path]:  # fmt: skip
    """Certificate of an extension in a folder, and the folder that it is written to."""
    from moextend.certificate.certify import Data
    from moextend.certificate.certify import certify as certified
    from moextend.extension.card import read_extension

    folder = local_folder(extension, where="EXTENSION")
    card = read_extension(folder)
    folders = folders_of(others)
    brought = check_extensions([folder, *folders])
    base = base.as_trained(folder)
    encoders = base.check() | brought
    with at("--data"):
        own = [] if data is None else reading.rows(data, encoders)
    with at("--near"):
        rows = Data(own, [row for name in near for row in Reading().rows(name, encoders)])
    opened = base.open_for([folder, *folders])
    certificate = certified(opened, folder, base=base.base, data=rows, others=folders, **wanted)
    return certificate, folder if Path(extension).is_dir() else Path(f"{card.name}-certificate")


def _check(path: Path, extension: str | None, as_json: bool) -> None:
    """Checks a written certificate, or all of a folder; exit code 1 if something is wrong with one."""
    folder = None if extension is None else Path(extension)
    if folder is not None and not folder.is_dir():
        raise InputError(f"no folder '{extension}'.", where="EXTENSION", hint="Name that of the extension.")
    paths = files_in(path) or [path / "certificate-SCOPE.json"] if path.is_dir() else [path]
    found = []
    for one, problems in (check_record(each, folder) for each in paths):
        problems += [f"claim '{c.name}' failed: {c.reason}" for c in one.claims if c.status == "failed"]
        found.append({"scope": one.scope, "sha256": one.sha256, "problems": problems})
        if not as_json:
            right = f"right: scope {one.scope}, SHA-256 {one.sha256}, {len(one.files)} files, no claim failed"
            options.echo("\n".join(f"wrong: scope {one.scope}, {problem}" for problem in problems) or right)
    if as_json:
        typer.echo(json.dumps(found if path.is_dir() else found[0], indent=2))
    if any(each["problems"] for each in found):
        raise typer.Exit(1)
