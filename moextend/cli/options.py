"""Options of several commands, and the parsing of their values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from moextend.errors import InputError, short, visible
from moextend.util.lookup import MOST_SEED, MOST_STEPS


def _folder(path: Path) -> Path:
    if not path.is_dir():  # a device, which is no file for the option
        raise typer.BadParameter(f"'{path}' is not a folder.")
    return path


Workspace = Annotated[
    Path,
    Option(
        "--workspace", "-w", envvar="MOEXTEND_WORKSPACE", exists=True, file_okay=False, callback=_folder,
        help="Folder with your registry/, tasks/ and runs/."
    )
]  # fmt: skip
Names = Annotated[
    list[str] | None, Argument(metavar="RUN...", help="Runs or sequences: names or folders. Default: all.")
]
Style = Annotated[
    Path | None,
    Option(metavar="FILE", help="YAML with columns, precision, names and captions. Default: report.yaml."),
]
Unfinished = Annotated[bool, Option("--unfinished", help="Include unfinished runs, and mark them.")]
Json = Annotated[bool, Option("--json", help="Print JSON, for scripts.")]
Name = Annotated[
    str | None, Argument(metavar="NAME", help="A sequence, or its YAML. Default: the workspace's, else tiny.")
]
InSequence = Annotated[
    bool, Option("--sequence", help="Learn the tasks one after the other, which is the default.")
]
Methods = Annotated[
    list[str] | None,
    Option(
        "--method",
        "-m",
        metavar="METHOD",
        help="NAME or NAME:KEY=VALUE (settings separated by commas), 'all', or a bound: 'joint' (all tasks at once), "
        "'individual' (each alone), or 'joint:NAME' of a method; repeatable. Default: the sequence's.",
    ),
]
Seeds = Annotated[
    list[str] | None,
    Option("--seed", metavar="N", help="One or several seeds, e.g. 0,1,2; repeatable. Default: 0."),
]
Orders = Annotated[
    list[str] | None,
    Option(
        "--order", metavar="ORDER", help="given (default), reverse, random:N (N different ones); repeatable."
    ),
]
Match = Annotated[
    str,
    Option(
        metavar="WHAT",
        help="What methods share: steps; params[=METHOD] also sets ranks, memory[=METHOD] also the data that replay "
        "keeps.",
    ),
]
Also = Annotated[
    list[str] | None,
    Option(
        "--also",
        metavar="WHAT",
        help="Also score the last model: oracle (only the own extension of a task is active), rewind (the learned "
        "change scaled by 0, 0.25, 0.5, 0.75 and 1), or subsets (without one stage each); repeatable.",
    ),
]
Deterministic = Annotated[
    bool, Option("--deterministic", help="Use deterministic algorithms only; slower on a GPU.")
]
AllowCode = Annotated[bool, Option("--allow-code", help="Score tasks that run code from the model (mbpp).")]
Limit = Annotated[int | None, Option(min=1, help="Maximum number of scored items per task.")]
Steps = Annotated[int | None, Option(min=1, max=MOST_STEPS, help="Training steps per stage.")]
AlignSteps = Annotated[
    int | None,
    Option(min=1, max=MOST_STEPS, help="Of each alignment. Default: the sequence's, at most --steps."),
]
Device = Annotated[str, Option(help="auto, cpu, cuda, cuda:N or mps.")]
Backend = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="transformers (in process), openai (a server) or vllm scores. Default: the sequence's.",
    ),
]
BackendOptions = Annotated[
    list[str] | None,
    Option(
        "--backend-option",
        "-b",
        metavar="KEY=VALUE",
        help="Of the backend openai: server=URL, or serve=COMMAND that starts a server for each model, e.g. "
        "'serve=vllm serve {folder} --port {port}'; model, concurrency, ...; repeatable.",
    ),
]
DryRun = Annotated[bool, Option("--dry-run", help="Only show what would be done, downloaded and needed.")]
Prepare = Annotated[
    bool,
    Option(
        "--prepare", help="Only create the folders of the runs, and print them for moextend-worker FOLDER."
    ),
]


def words(values: Iterable[str], option: str) -> list[str]:
    """Values of options that may be repeated or have comma lists: ["0,1", "2"] -> ["0", "1", "2"].

    Raises InputError if one is empty or repeated.
    """
    found = [word.strip() for value in values for word in value.split(",")]
    if "" in found:
        raise InputError("a value is empty.", where=option, hint="Separate values by one comma.")
    _refuse_twice(found, option)
    return found


def _refuse_twice(found: list[Any], option: str) -> None:
    twice = next((value for value in found if found.count(value) > 1), None)
    if twice is not None:
        raise InputError(f"'{short(str(twice), 40)}' is given twice.", where=option, hint="Give it once.")


def numbers(values: Iterable[str], option: str) -> list[int]:
    """`words` as integers from 0 to the largest seed; InputError for another word."""
    found = words(values, option)
    for word in found:
        known = re.fullmatch("[0-9]+", word) and len(word) <= len(str(MOST_SEED))
        if not known or int(word) > MOST_SEED:
            what = f"'{short(word, 40)}' is not an integer from 0 to {MOST_SEED}."
            raise InputError(what, where=option, hint=f"Example: {option} 0,1,2.")
    _refuse_twice(numbers := [int(word) for word in found], option)
    return numbers


def pairs(values: Iterable[str], option: str, example: str = "", *, several: str = "") -> dict[str, str]:
    """Key -> value of KEY=VALUE; InputError for other words, and for a key that is given twice.

    Args:
        example: shown for a wrong word; with one a KEY alone is a flag, without a value.
        several: a key that may be given several times; its values are lines.
    """
    found: dict[str, str] = {}
    for word in values:
        key, equals, value = (part.strip() for part in word.partition("="))
        if not key or not (value or (example and not equals)):
            hint = f"Example: {example or f'{option} image=photo'}."
            raise InputError(f"'{word}' is not KEY=VALUE.", where=option, hint=hint)
        if key in found and key != several:
            raise InputError(f"'{key}' is given twice.", where=option, hint="Give it once.")
        found[key] = f"{found[key]}\n{value}" if key in found else value
    return found


def methods(values: Iterable[str]) -> list[str]:
    """Method specs; a comma separates names, but settings inside NAME:KEY=VALUE,..."""
    found = [word for value in values for word in ([value] if ":" in value else words([value], "--method"))]
    _refuse_twice(found, "--method")
    return found


def refuse_with(option: str, others: Iterable[str]) -> None:
    """InputError if an option that is a view of its own is given with options of other views."""
    named = ", ".join(others)
    if named:
        raise InputError(f"cannot be combined with {named}.", where=option, hint="Use one of them per call.")


def refuse_except_with(only: str, given: Mapping[str, object]) -> None:
    """InputError if one of these options (name -> value) is given, which are for `only`."""
    for option, value in given.items():
        if value:
            raise InputError(f"applies only to {only}.", where=option, hint="Leave it out.")


def device(name: str) -> str:
    """The device; InputError for an invalid name."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise InputError(f"no device '{name}'.", where="--device", hint="Use auto, cpu, cuda, cuda:N or mps.")
    return name


def echo(text: str, *, err: bool = False) -> None:
    """Prints text from a model, a data set or a file, with escaped control characters."""
    typer.echo(visible(text), err=err)
