"""Commands for the content of a workspace: list, new, add-task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer import Argument, Option

from moextend.cli import options
from moextend.errors import InputError

if TYPE_CHECKING:
    from moextend.bench.task import TaskSpec
    from moextend.bench.workspace.edit import Draft

Base = Annotated[
    str | None, Option(help="Base of a new sequence: a folder, a .gguf file, a hub id, tiny or smollm2.")
]
Vision = Annotated[str | None, Option(help="Image encoder of a new sequence, e.g. ViT-B-32/openai.")]
Audio = Annotated[str | None, Option(help="Audio encoder of a new sequence, e.g. openai/whisper-tiny.")]


def add_task(
    what: Annotated[
        str,
        Argument(
            metavar="TASK|KIND",
            help="A task's name, or a kind: vqa, qa (no images), audio, caption, text.",
        ),
    ],
    data: Annotated[
        str | None,
        Option(
            help="A file, a folder, a hub id; for text an lm-eval task. Default: the package's next task of the kind."
        ),
    ] = None,
    name: Annotated[str | None, Option(help="Name of the new task. Default: that of the data.")] = None,
    columns: Annotated[
        list[str] | None,
        Option(
            metavar="KEY=COLUMN", help="Columns of the data, e.g. image=photo,answer=label. Default: guessed."
        ),
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
        Option(
            "--sequence",
            "-s",
            help="The sequence to change (see bench new). Default: the workspace's own, which is made if missing.",
        ),
    ] = None,
    workspace: options.Workspace = Path(),
) -> None:
    """Append a task to the sequence, after opening its data and scoring one example."""
    from moextend.bench.workspace import edit, new_task
    from moextend.data.modalities import modality_types

    draft = edit.draft(sequence, workspace)
    task, new = _task_to_add(
        what, data, name, columns, scorer, prompt, draft, workspace, trust_code=trust_remote_code
    )
    if prompt is not None:
        task = new_task.with_prompt(task, prompt)
    longer = edit.add(draft, task)
    found = new_task.check(task, workspace, longer.sequence.base.model)
    if new:
        typer.echo(f"wrote {new_task.write_task(task)}")
    longer.write()
    options.echo(_found(task, found))
    if what == "qa":
        for modality, column in task.columns.by_modality.items():
            media = modality_types()[modality].plural
            options.echo(
                f"  note: the data have {media} (column '{column}'), so this is a task about {media}."
            )
    spec = longer.sequence.base
    for modality in set(task.modalities) - set(spec.encoders_in(workspace)):
        key = spec.encoder_key(modality)
        options.echo(f"  note: the base has no {modality} encoder; name one under {key} in {longer.path}.")
    _print_stages(longer)
    typer.echo(f"Next: {edit.run_command(longer.path.stem)}")


def list_all(
    word: Annotated[
        str | None,
        Argument(
            metavar="NAME|WORD",
            help="A task or a sequence, in full; else what has this word in its name or description, or a part: tasks.",
        ),
    ] = None,
    example: Annotated[
        bool, Option("--example", help="Of a task: open its data and show one item as the model reads it.")
    ] = False,
    workspace: options.Workspace = Path(),
    as_json: options.Json = False,
) -> None:
    """List sequences, tasks, published numbers, methods and scorers, or show a task or a sequence in full.

    Python files in methods/ and scorers/ of the workspace are run. Unknown tasks, methods and settings of a sequence
    are listed below it; the exit code is then 2.
    """
    from moextend.bench.workspace import catalogue

    if word is not None and (example or catalogue.is_name(word, workspace)):
        found = catalogue.details(word, workspace, example=example)
        options.echo(json.dumps(found, indent=2) if as_json else catalogue.describe(found))
        for problem in found.get("problems", []):
            options.echo(f"error: {problem}", err=True)
        if "problems" in found:
            raise typer.Exit(2)
        return
    if example:
        raise InputError(
            "needs the name of a task.", where="--example", hint="Name one: moextend bench list tasks."
        )
    listed = catalogue.catalogue(workspace)
    if word:
        listed = catalogue.only(listed, word)
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
        return
    from rich.console import Console

    console = Console()
    for table in catalogue.tables(listed, console.width):
        console.print(table)


def new(
    kind: Annotated[str, Argument(metavar="KIND", help="method, scorer or sequence.")],
    name: Annotated[
        str, Argument(metavar="NAME", help="Name of the method, scorer or sequence, and of its file.")
    ],
    base: Base = None,
    vision: Vision = None,
    audio: Audio = None,
    workspace: options.Workspace = Path(),
) -> None:
    """Write a method, a scorer or a sequence of your own into the workspace, as a commented file.

    A method and a scorer run as they are. A sequence has no tasks yet.
    """
    if kind == "sequence":
        _new_sequence(name, workspace, base, {"vision": vision, "audio": audio})
        return
    for option, value in (("--base", base), ("--vision", vision), ("--audio", audio)):
        if value is not None:
            raise InputError(
                "applies only to a new sequence.", where=option, hint=f"Leave it out for a {kind}."
            )
    from moextend.bench.workspace.new_plugin import write_new

    path, command = write_new(kind, name, workspace)
    typer.echo(f"wrote {path}")
    typer.echo(f"Next: {command}")


def _new_sequence(name: str, workspace: Path, base: str | None, encoders: Mapping[str, str | None]) -> None:
    from moextend.bench.workspace import edit

    made = edit.new(name, workspace, base=base, encoders=encoders)
    typer.echo(f"wrote {made.write()}")
    typer.echo(f"Next: moextend bench add-task vqa --sequence {name}")


def _task_to_add(
    what: str, data: str | None, name: str | None, columns: list[str] | None, scorer: str | None, prompt: str | None,
    draft: Draft, workspace: Path, *, trust_code: bool,
) -> tuple[TaskSpec, bool]:  # fmt: skip
    """The task, and whether its YAML has to be written."""
    from moextend.bench.task import TaskSpec, find_task
    from moextend.bench.workspace import edit, new_task
    from moextend.errors import UnknownName
    from moextend.util import content

    kinds = [*get_args(TaskSpec.model_fields["kind"].annotation), *new_task.ALIASES]
    if what not in kinds:
        known = content.names("tasks", workspace)
        if what not in known:
            if what.endswith((".yaml", ".yml")):
                raise InputError(
                    "is a file.", where=what, hint=f"Put it into {workspace / 'tasks'} and name the task."
                )
            raise UnknownName("task or kind", what, [*kinds, *known])
        if data or name or columns or scorer or prompt:
            raise InputError(
                f"'{what}' is a task already, with its own data.",
                where="add-task",
                hint=f"Leave the other options out, or name a kind: {', '.join(kinds)}.",
            )
        return find_task(what, workspace), False
    if data is None:
        if prompt:
            raise InputError(
                "applies only to a task of your own.", where="--prompt", hint="Name its data: --data PATH."
            )
        modality = new_task.AUDIO if what == new_task.AUDIO else None
        return edit.next_default(new_task.ALIASES.get(what, what), draft, modality=modality), False
    given = options.pairs(columns or [], "--columns")
    task = new_task.new_task(
        what, data, workspace, name=name, columns=given, scorer=scorer, trust_code=trust_code,
        encoders=draft.sequence.base.encoders_in(workspace),
        on_note=lambda note: options.echo(f"note: {note}."),
    )  # fmt: skip
    return task, True


def _found(task: TaskSpec, found: dict[str, Any]) -> str:
    from moextend.bench.data.source import divided

    sizes = ", ".join(f"{count:,} {split}" for split, count in found["items"].items())
    lines = [f"{task.task} ({task.kind}): {sizes} items; licence {task.licence or 'not stated'}"]
    if how := divided(task):
        lines.append(f"  split: {how}")
    if "prompt" in found:
        prompt = str(found["prompt"]).replace("\n", "\n    ")
        lines += [f"  example:\n    {prompt}", f"  answer: {found['answer']} (scores 1 by {task.scorer})"]
    lines += [f"  note: {warning}" for warning in found.get("warnings", [])]
    return "\n".join(lines)


def _print_stages(draft: Draft) -> None:
    sequence = draft.sequence
    typer.echo(f"{draft.path}:")
    for number, stage in enumerate(sequence.stages, 1):
        typer.echo(f"  {number}. {stage.task}")
    if not sequence.stages:
        typer.echo("  no stages yet")
    if sequence.retention:
        typer.echo(f"  text, scored only: {', '.join(sequence.retention)}")
