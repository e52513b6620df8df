"""Commands for the content of a workspace: list, new, add-task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from typer import Argument, Option

from moextend.bench.data.source import divided
from moextend.bench.sequence import OWN
from moextend.bench.task import TaskSpec, find_task
from moextend.bench.workspace import catalogue, edit, new_task
from moextend.bench.workspace.new_plugin import write_new
from moextend.cli import options
from moextend.data.modalities import modality_types
from moextend.errors import InputError, UnknownName
from moextend.util import content, files


def add_task(
    what: Annotated[
        str,
        Argument(
            metavar="TASK|KIND", help="A task's name, or a kind: vqa, qa (no images), audio, caption, text."
        ),
    ],
    data: Annotated[
        str | None, Option(help="Of a kind: a file, a folder, a hub id; for text an lm-eval task.")
    ] = None,
    name: Annotated[str | None, Option(help="Name of the new task. Default: that of the data.")] = None,
    columns: Annotated[
        list[str] | None,
        Option(metavar="KEY=COLUMN", help="Columns of the data: image=photo,answer=label. Default: guessed."),
    ] = None,
    scorer: Annotated[str | None, Option(help="e.g. exact@1. Default: guessed.")] = None,
    prompt: Annotated[
        str | None, Option(help='The prompt, e.g. "<image> {question}". Default: guessed.')
    ] = None,
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run the Python code in a folder of lm-eval YAMLs (--data).")
    ] = False,
    sequence: Annotated[
        str | None,
        Option("--sequence", "-s", help="The sequence to change. Default: the workspace's, made if missing."),
    ] = None,
    workspace: options.Workspace = Path(),
) -> None:
    """Append a task to the sequence, after opening its data and scoring one example."""
    draft = edit.draft(sequence, workspace)
    kinds = [*get_args(TaskSpec.model_fields["kind"].annotation), *new_task.ALIASES]
    if what in kinds:
        if data is None:
            raise InputError("is missing.", where="--data", hint="Name the data of the new task.")
        task = new_task.new_task(
            what, data, workspace, name=name, scorer=scorer, prompt=prompt, trust_code=trust_remote_code,
            columns=options.pairs(options.words(columns or [], "--columns"), "--columns"),
            encoders=draft.sequence.base.encoders_in(workspace) if draft.sequence.is_trained else None,
            on_note=lambda note: options.echo(f"note: {note}."),
        )  # fmt: skip
    else:
        if what not in (known := content.names("tasks", workspace)):
            raise UnknownName("task or kind", what, [*kinds, *known])
        of_data = {
            "--data": data,
            "--name": name,
            "--columns": columns,
            "--scorer": scorer,
            "--prompt": prompt,
        }
        options.refuse_except_with(f"a kind ({', '.join(kinds)})", of_data)
        task = find_task(what, workspace)
    files.check_writable(workspace, where="--workspace")
    longer = edit.add(draft, task)
    found = new_task.check(task, workspace, longer.sequence.base.model)
    if what in kinds:
        typer.echo(f"wrote {new_task.write_task(task)}")
    longer.write()
    options.echo(_found(task, found))
    for modality, column in task.columns.by_modality.items() if what == "qa" else ():
        media = modality_types()[modality].plural
        options.echo(f"  note: the data have {media} (column '{column}'), so this is a task about {media}.")
    spec, trained = longer.sequence.base, longer.sequence.is_trained
    for modality in set(task.modalities if trained else ()) - set(spec.encoders_in(workspace)):
        key = spec.encoder_key(modality)
        options.echo(f"  note: the base has no {modality} encoder; name one under {key} in {longer.path}.")
    typer.echo(f"{longer.path}:")
    for number, stage in enumerate(longer.sequence.stages, 1):
        typer.echo(f"  {number}. {stage.task}")
    if longer.sequence.retention:
        typer.echo(f"  text, scored only: {', '.join(longer.sequence.retention)}")
    then = "run" if trained else "score"
    typer.echo(f"Next: moextend bench {then}{'' if longer.path.stem == OWN else f' {longer.path.stem}'}")


def _found(task: TaskSpec, found: dict[str, Any]) -> str:
    sizes = ", ".join(f"{count:,} {split}" for split, count in found["items"].items())
    lines = [f"{task.task} ({task.kind}): {sizes} items; licence {task.licence or 'not stated'}"]
    if how := divided(task):
        lines.append(f"  split: {how}")
    if "prompt" in found:
        prompt = str(found["prompt"]).replace("\n", "\n    ")
        lines += [f"  example:\n    {prompt}", f"  answer: {found['answer']} (scores 1 by {task.scorer})"]
    lines += [f"  note: {warning}" for warning in found.get("warnings", [])]
    return "\n".join(lines)


def list_all(
    word: Annotated[
        str | None,
        Argument(
            metavar="NAME|WORD",
            help="A task or a sequence, in full; a word in names and descriptions; or a part: tasks.",
        ),
    ] = None,
    example: Annotated[
        bool, Option("--example", help="Of a task: open its data and show one item as the model reads it.")
    ] = False,
    croissant: Annotated[
        Path | None,
        Option(
            metavar="FOLDER",
            file_okay=False,
            help="Of a sequence, or of 'world' (all generated data): write croissant.json and generated data there.",
        ),
    ] = None,
    workspace: options.Workspace = Path(),
    as_json: options.Json = False,
) -> None:
    """List sequences, tasks, published numbers, methods and scorers, or show a task or a sequence in full.

    Python files in methods/ and scorers/ of the workspace are run. Unknown tasks, methods and settings of a sequence
    are listed below it; the exit code is then 2.
    """
    if croissant is not None:
        if word is None:
            hint = "Name one: moextend bench list sequences."
            raise InputError("needs the name of a sequence.", where="--croissant", hint=hint)
        from moextend.bench.exporting.croissant import write

        typer.echo(f"wrote {write(word, croissant, workspace)}")
        return
    if word is not None and (example or catalogue.is_name(word, workspace)):
        found = catalogue.details(word, workspace, example=example)
        options.echo(json.dumps(found, indent=2) if as_json else catalogue.describe(found))
        for problem in found.get("problems", []):
            options.echo(f"error: {problem}", err=True)
        if "problems" in found:
            raise typer.Exit(2)
        return
    if example:
        hint = "Name one: moextend bench list tasks."
        raise InputError("needs the name of a task.", where="--example", hint=hint)
    listed = catalogue.catalogue(workspace)
    if word:
        listed = catalogue.only(listed, word)
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
        return

    console = Console()
    for table in catalogue.tables(listed, console.width):
        console.print(table)


def new(
    kind: Annotated[str, Argument(metavar="KIND", help="method, scorer or sequence.")],
    name: Annotated[str, Argument(metavar="NAME", help="Name of it, and of its file.")],
    base: Annotated[str | None, Option(help="Base of a new sequence, as in 'extend'.")] = None,
    vision: Annotated[str | None, Option(help="Image encoder of a new sequence: ViT-B-32/openai.")] = None,
    audio: Annotated[str | None, Option(help="Audio encoder of a new sequence: openai/whisper-tiny.")] = None,
    workspace: options.Workspace = Path(),
) -> None:
    """Write a method, a scorer or a sequence of your own into the workspace, as a commented file.

    A method and a scorer run as they are. A sequence has no tasks yet.
    """
    files.check_writable(workspace, where="--workspace")
    if kind == "sequence":
        path = edit.new(name, workspace, base=base, encoders={"vision": vision, "audio": audio}).write()
        command = f"moextend bench add-task vqa --data DATA --sequence {name}"
    else:
        given = {"--base": base, "--vision": vision, "--audio": audio}
        options.refuse_except_with("a new sequence", given)
        path, command = write_new(kind, name, workspace)
    typer.echo(f"wrote {path}\nNext: {command}")
