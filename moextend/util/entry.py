"""Runs a command line: every error is one line on standard error and an exit code, never a traceback."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.main import get_command

from moextend.errors import InputError, MoextendError, short, visible
from moextend.util import files
from moextend.util.foreign import debugging, explained

TERMINATED = 128 + signal.SIGTERM
"""Exit code at SIGTERM."""


def run_app(app: typer.Typer, name: str) -> NoReturn:
    """Runs the command line `name` and exits.

    Exit codes: 2 for wrong input, 1 for any other error and for a reader that closed the pipe, 130 for Ctrl-C, 143
    for SIGTERM, at which temporary files are removed as at Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a text that the terminal cannot show is no error
        sys.stdout.reconfigure(errors="backslashreplace")
    own = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if own:
        signal.signal(signal.SIGTERM, _terminated)
    try:
        with _hooks(name):
            sys.exit(_code(app, name))
    finally:
        if own:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminated(*_: object) -> NoReturn:
    sys.exit(TERMINATED)


def _code(app: typer.Typer, name: str) -> int:
    try:
        if not any(key.endswith("_COMPLETE") for key in os.environ):  # a shell asks for words to complete
            _check_encoding()
        code = app(prog_name=name, standalone_mode=False)
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        say("interrupted.")
        return 130
    except Exception as error:
        return _fail(error, _command(app, name))
    finally:
        _drop_unwritten()
    return code if isinstance(code, int) else 0


def _check_encoding() -> None:
    """Raises InputError for an argument or a working folder that is not UTF-8: files could not name it."""
    texts = {f"argument {place}": word for place, word in enumerate(sys.argv[1:], start=1)}
    with suppress(OSError):  # the folder was removed
        texts["the working folder"] = str(Path.cwd())
    for where, text in texts.items():
        if files.lone(text):
            raise InputError(f"'{short(text, 80)}' is not UTF-8 text.", where=where, hint="Rename it.")


def say(text: str) -> None:
    """Prints an error as one line."""
    if sys.stderr:
        head = typer.style("error:", fg="red", bold=True) if sys.stderr.isatty() else "error:"
        with suppress(OSError):  # nobody reads it
            print(f"{head} {visible(text)}", file=sys.stderr)


def _fail(error: Exception, command: str) -> int:
    if debugging():
        traceback.print_exception(error)
    if type(error).__name__ == "NoArgsIsHelpError":  # the help is the message
        return 2
    found = _wrong_usage(error, command) or explained(error, where=command)
    say(str(found))
    return found.exit_code


def _wrong_usage(error: Any, command: str) -> MoextendError | None:
    """Usage error of typer (its classes are in different packages); None for other errors."""
    if type(error).__name__ == "Abort":
        return MoextendError("aborted.", where=command)
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    where = context.command_path if context else command
    what = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    path = "Correct the path, or create it. " if what.endswith("does not exist") else ""
    return InputError(
        f"{what}{'' if what.endswith('?') else '.'}", where=where, hint=f"{path}Options: {where} --help."
    )


def _command(app: typer.Typer, name: str) -> str:
    """Name of the command with its subcommands."""
    command: Any = get_command(app)
    words = [name]
    for word in sys.argv[1:]:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        words.append(word)
    return " ".join(words)


def _drop_unwritten() -> None:
    """Drops buffered output that cannot be written, which would be an error at exit."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextmanager
def _hooks(name: str) -> Iterator[None]:
    """Context in which errors in threads and finalisers are one line too."""

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            say(str(explained(args.exc_value, where=name)))

    def of_cleaning(args: Any) -> None:
        if not isinstance(args.exc_value, KeyboardInterrupt | SystemExit):
            say(str(explained(args.exc_value or RuntimeError(args.err_msg or ""), where=name)))

    before = threading.excepthook, sys.unraisablehook
    if not debugging():
        threading.excepthook, sys.unraisablehook = of_thread, of_cleaning
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = before
