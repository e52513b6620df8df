"""`moextend certify`: what an extension provably leaves as it was."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from moextend.cli import options
from moextend.cli.inputs import Columns, Images, Reading, Template, check_out
from moextend.cli.opening import (
    Audio,
    BaseAsked,
    Loaded,
    Projector,
    Vision,
    check_extensions,
    encoders_of,
    folders_of,
)
from moextend.errors import InputError, at

if TYPE_CHECKING:
    from moextend.certificate.record import Certificate
    from moextend.data.conversations import Conversation

SCOPES = {"own": "the task is given", "auto": "it is inferred", "all": "always active"}


def certify(
    extension: Annotated[
        str | None,
        Argument(metavar="EXTENSION", help="Folder of an extension, a hub id, or RUN:STAGE of a benchmark."),
    ] = None,
    base: Annotated[
        str | None,
        Option(
            help="Base of the extension: a folder, a .gguf file, a hub id, tiny, or the base of an exported model. "
            "A run has its own."
        ),
    ] = None,
    items: Annotated[
        int,
        Option(min=2, max=100_000, help="Number of texts, and maximum number of inputs of each other set."),
    ] = 64,
    scope: Annotated[
        str | None,
        Option(
            help="Scope to certify: own (task given), auto (task inferred) or all. Default: that of the training."
        ),
    ] = None,
    data: Annotated[
        str | None,
        Option(
            help="Data of its task, from which similar inputs are generated. Formats and columns as in 'extend'."
        ),
    ] = None,
    columns: Columns = None,
    images: Images = None,
    template: Template = None,
    near: Annotated[
        list[str] | None,
        Option(
            metavar="DATA",
            help="Data of similar tasks, on which the extension must have no effect; repeatable.",
        ),
    ] = None,
    run: Annotated[
        str | None, Option(help="Benchmark run that trained the extension, for its row of forgetting.")
    ] = None,
    others: Loaded = None,
    vision: Vision = None,
    audio: Audio = None,
    projector: Projector = None,
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
        raise InputError(
            "is missing.", where="EXTENSION", hint="Name the folder of an extension, or give --check FILE."
        )
    if scope is not None:
        from moextend.util import lookup

        lookup.choose("scope", scope, SCOPES, where="--scope")
    if out is not None:
        check_out(out)
    path, known = Path(extension), workspace / "runs"
    wanted: dict[str, Any] = {
        "scope": scope, "items": items, "command": shlex.join(["moextend", *sys.argv[1:]]),
    }  # fmt: skip
    if base is None and (path.parent.name == "stages" or not (path / "extension.json").is_file()):
        only: dict[str, object] = {"--data": data, "--near": near, "-e": others, "--run": run}
        only |= {"--vision": vision, "--audio": audio, "--projector": projector}
        options.refuse_except_with("an extension with --base", only)
        found, folder = _of_run(extension, known, wanted)
    elif base is None:
        raise InputError(
            "is missing.", where="--base", hint="Name the base that the extension was trained on."
        )
    else:
        asked = BaseAsked(base, encoders_of(vision, audio), projector, device=device, may_be_extended=True)
        given = {"--data": ([data] if data else [], Reading(columns, images, template))}
        given["--near"] = (near or [], Reading())
        found, folder = _of_folder(extension, asked, others or [], given, (run, known), wanted)
    final = found.write_to(out or folder)
    if as_json:
        typer.echo(json.dumps(final.model_dump(), indent=2))
    else:
        for one in final.claims:
            count = f"  ({one.items} compared)" if one.items else ""
            options.echo(f"{one.status:<12} {one.name}{count}{': ' + one.reason if one.reason else ''}")
        options.echo(final.verdict)
        name = f"certificate-{final.scope}"
        options.echo(f"wrote {(out or folder) / name}.json and {name}.md")
    if not final.sound:
        raise typer.Exit(1)


def _of_run(extension: str, runs: Path, wanted: dict[str, Any]) -> tuple[Certificate, Path]:
    """Certificate of a stage of a run, and the folder that it is written to."""
    from moextend.bench.exporting import evidence, stage
    from moextend.certificate.certify import certify as certified
    from moextend.util.quiet import quiet_process

    named = stage.find(extension, runs)
    quiet_process()
    found = evidence.of_stage(named)
    certificate = certified(
        found.model, found.folder, base=found.base, data=found.data, others=found.others,
        forgetting=found.forgetting, **{**wanted, "scope": wanted["scope"] or found.scope},
    )  # fmt: skip
    return certificate, Path(f"{named.run.folder.name}-{found.folder.name}-certificate")


def _of_folder(
    extension: str, base: BaseAsked, others: list[Path], given: dict[str, Any],
    run: tuple[str | None, Path], wanted: dict[str, Any],
) -> tuple[Certificate, Path]:  # fmt: skip
    """Certificate of an extension in a folder, and the folder that it is written to.

    Args:
        given: option -> names of data, and how they are read.
        run: of its row of forgetting, and the folder of the runs.
    """
    from moextend.certificate.certify import Data
    from moextend.certificate.certify import certify as certified
    from moextend.extension.card import read_extension
    from moextend.extension.folder import local_folder

    folder = local_folder(extension, where="EXTENSION")
    card = read_extension(folder)
    folders = folders_of(others)
    brought = check_extensions([folder, *folders])
    base = base.as_trained(folder)
    encoders, forgetting = base.check() | brought, None
    if run[0] is not None:
        from moextend.bench.exporting.evidence import forgetting_claim
        from moextend.bench.run.rundir import find_run

        forgetting = forgetting_claim(find_run(run[1], run[0], where="--run"), folder)
    rows: dict[str, list[Conversation]] = {}
    for option, (names, reading) in given.items():
        with at(option):
            read = [reading.rows(name, encoders) for name in names]
        rows[option] = [row for each in read for row in each]
    certificate = certified(
        base.open_for([folder, *folders]), folder, base=base.name, data=Data(rows["--data"], rows["--near"]),
        others=folders, forgetting=forgetting, **wanted,
    )  # fmt: skip
    return certificate, folder if Path(extension).is_dir() else Path(f"{card.name}-certificate")


def _check(path: Path, extension: str | None, as_json: bool) -> None:
    """Checks a written certificate, or all of a folder; exit code 1 if something is wrong with one."""
    from moextend.certificate.record import check_record, files_in

    folder = None if extension is None else Path(extension)
    if folder is not None and not folder.is_dir():
        raise InputError(
            f"no folder '{extension}'.", where="EXTENSION", hint="Name the folder of the extension."
        )
    paths = files_in(path) or [path / "certificate-SCOPE.json"] if path.is_dir() else [path]
    checked = [check_record(one, folder) for one in paths]
    for one, problems in checked:
        problems += [f"claim '{c.name}' failed: {c.reason}" for c in one.claims if c.status == "failed"]
    if as_json:
        found = [
            {"scope": one.scope, "sha256": one.sha256, "problems": problems} for one, problems in checked
        ]
        typer.echo(json.dumps(found if path.is_dir() else found[0], indent=2))
    for one, problems in () if as_json else checked:
        for problem in problems:
            options.echo(f"wrong: scope {one.scope}, {problem}")
        if not problems:
            options.echo(
                f"right: scope {one.scope}, SHA-256 {one.sha256}, {len(one.files)} files, no claim failed"
            )
    if any(problems for _, problems in checked):
        raise typer.Exit(1)
