"""`moextend certify`: what an extension provably leaves as it was."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from moextend.cli import before, options
from moextend.cli.base_asked import BaseAsked
from moextend.cli.opening import (
    Audio,
    Columns,
    Images,
    Loaded,
    Projector,
    Template,
    Vision,
    encoders_of,
    folders_of,
    projectors_of,
    rows_of,
)  # fmt: skip
from moextend.errors import InputError, at

if TYPE_CHECKING:
    from moextend.certificate.record import Certificate, Claim
    from moextend.data.conversations import Conversation

EXAMPLE = "moextend certify facts --base tiny --scope own"
SCOPES = {"own": "the task is given", "auto": "it is inferred", "all": "always active"}


@dataclass(frozen=True)
class _Asked:
    """What is asked for: the options of the same names."""

    base: BaseAsked
    others: list[Path]
    scope: Literal["own", "auto", "all"] | None
    items: int
    workspace: Path


def certify(
    extension: Annotated[
        str | None,
        typer.Argument(
            metavar="EXTENSION", help="Folder of an extension, a hub id, or RUN:STAGE of a benchmark."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Base of the extension: a folder, a .gguf file, a hub id, tiny, or the base of an exported model. "
            "A run has its own."
        ),
    ] = None,
    items: Annotated[
        int,
        typer.Option(
            min=2, max=100_000, help="Number of texts, and maximum number of inputs of each other set."
        ),
    ] = 64,
    scope: Annotated[
        str | None,
        typer.Option(
            help="Scope to certify: own (task given), auto (task inferred) or all. Default: that of the training."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data of its task, from which similar inputs are generated. Formats and columns as in 'extend'."
        ),
    ] = None,
    columns: Columns = None,
    images: Images = None,
    template: Template = None,
    near: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA",
            help="Data of similar tasks, on which the extension must have no effect; repeatable.",
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="File of texts that the base should answer, in addition to generated ones; repeatable.",
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Benchmark run that trained the extension, for its row of forgetting.")
    ] = None,
    others: Loaded = None,
    vision: Vision = None,
    audio: Audio = None,
    projector: Projector = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", file_okay=False, help="Folder for the certificate. Default: that of the extension."
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Check a certificate, or all in a folder, instead: SHA-256, files and claims.",
        ),
    ] = None,
    device: options.Device = "cpu",
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
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
        before.check_out(out)
    own = {
        "--data": data,
        "--near": near,
        "--vision": vision,
        "--audio": audio,
        "--projector": projector,
        "-e": others,
    }
    if _is_stage(extension, base):
        options.refuse_except_with("an extension with --base", {**own, "--run": run})
        found, folder = _of_run(
            extension, options.runs_folder(runs, workspace), scope, items, text, workspace
        )
    else:
        if base is None:
            raise InputError(
                "is missing.", where="--base", hint="Name the base that the extension was trained on."
            )
        named = BaseAsked(base, encoders_of(vision, audio), projector, device=device)
        asked = _Asked(named, others or [], cast(Any, scope), items, workspace)
        given = {"own": [data] if data else [], "near": near or [], "text": text or []}
        claim = None if run is None else (run, options.runs_folder(runs, workspace))
        found, folder = _of_folder(extension, asked, given, (columns, images, template), claim)
    _write(found, out or folder, as_json)


def _is_stage(extension: str, base: str | None) -> bool:
    """Whether a stage of a run is named: RUN:STAGE, or its folder without a base."""
    path = Path(extension)
    return base is None and (path.parent.name == "stages" or not (path / "extension.json").is_file())


def _of_run(
    extension: str, runs: Path, scope: Any, items: int, text: list[str] | None, workspace: Path
) -> tuple[Certificate, Path]:
    """Certificate of a stage of a run, and the folder that it is written to."""
    from moextend.bench.exporting import evidence, stage
    from moextend.certificate.certify import certify as certified
    from moextend.util.quiet import quiet_process

    named = stage.find(extension, runs)
    texts = [row for one in text or () for row in rows_of(one, None, None, None, workspace, ())]
    quiet_process()
    found = evidence.of_stage(named)
    certificate = certified(
        found.model, found.folder, base=found.base, scope=scope or found.scope, items=items,
        data=replace(found.data, text=texts), others=found.others, forgetting=found.forgetting, command=_command(),
    )  # fmt: skip
    return certificate, Path(f"{named.run.folder.name}-{found.folder.name}-certificate")


def _of_folder(
    extension: str,
    asked: _Asked,
    given: dict[str, list[str]],
    how: tuple[list[str] | None, Path | None, str | None],
    run: tuple[str, Path] | None,
) -> tuple[Certificate, Path]:
    """Certificate of an extension in a folder, and the folder that it is written to."""
    from moextend.certificate.certify import Data
    from moextend.certificate.certify import certify as certified
    from moextend.extension.card import read_extension
    from moextend.extension.remote import local_folder

    folder = local_folder(extension, where="EXTENSION")
    card = read_extension(folder)
    others = folders_of(asked.others)
    brought = before.check_extensions([folder, *others])
    base = replace(asked.base, dtype=card.base_dtype or "float32")
    encoders = base.check()
    claim = None if run is None else _forgetting(*run, folder)
    known, columns = encoders | brought, how[0]
    rows: dict[str, list[Conversation]] = {}
    for key, names in given.items():
        with at(f"--{'data' if key == 'own' else key}"):
            more = (columns, how[1], how[2]) if key == "own" else (None, None, None)
            rows[key] = [row for name in names for row in rows_of(name, *more, asked.workspace, known)]
    model = base.open()
    projectors_of(model, [folder, *others], base.projector_folders())
    certificate = certified(
        model, folder, base=base.name, scope=asked.scope, items=asked.items, data=Data(**rows),
        others=others, forgetting=claim, command=_command(),
    )  # fmt: skip
    return certificate, folder if Path(extension).is_dir() else Path(f"{card.name}-certificate")


def _forgetting(run: str, runs: Path, folder: Path) -> Claim:
    """The claim about the run of an extension."""
    from moextend.bench.exporting.evidence import forgetting_claim
    from moextend.bench.run.rundir import find_run

    return forgetting_claim(find_run(runs, run, where="--run"), folder)


def _write(found: Certificate, out: Path, as_json: bool) -> None:
    """Writes a certificate and prints its claims; exit code 1 if one failed."""
    from moextend.certificate.record import FILE, PAGE
    from moextend.certificate.writing import write

    final = write(found, out)
    _say(final, as_json)
    if not as_json:
        options.echo(f"wrote {out / FILE.format(final.scope)} and {PAGE.format(final.scope)}")
    if not final.sound:
        raise typer.Exit(1)


def _say(found: Certificate, as_json: bool) -> None:
    from moextend.certificate.page import verdict_of

    if as_json:
        typer.echo(json.dumps(found.model_dump(), indent=2))
        return
    for one in found.claims:
        count = f"  ({one.items} compared)" if one.items else ""
        options.echo(f"{one.status:<12} {one.name}{count}{': ' + one.reason if one.reason else ''}")
    options.echo(verdict_of(found))


def _check(path: Path, extension: str | None, as_json: bool) -> None:
    """Checks a written certificate, or all of a folder; exit code 1 if something is wrong with one."""
    from moextend.certificate.record import files_in
    from moextend.certificate.writing import problems_of

    if extension is not None and not Path(extension).is_dir():
        raise InputError(
            f"no folder '{extension}'.", where="EXTENSION", hint="Name the folder of the extension."
        )
    paths = files_in(path) or [path / "certificate-SCOPE.json"] if path.is_dir() else [path]
    checked = [problems_of(one, None if extension is None else Path(extension)) for one in paths]
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


def _command() -> str:
    """The command line, for the record."""
    return shlex.join(["moextend", *sys.argv[1:]])
