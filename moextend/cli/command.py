"""The class of all commands, groups whose commands are loaded when called, and dataclasses as groups of options."""

from __future__ import annotations

import ast
import re
from collections import UserDict
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from moextend.errors import InputError, short

TEXTS = ("prompt", "template")
"""Parameters with a text; all others are numbers, names, paths or lists of them."""
LONGEST = 255
"""Bytes of the name of a file."""


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command for typer: in the place of a parameter that is a dataclass it takes the fields of that."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    flat: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        if kind := groups.get(name):
            own = get_type_hints(kind, include_extras=True)
            flat += [
                Parameter(
                    each.name, Parameter.KEYWORD_ONLY, annotation=own[each.name],
                    default=Parameter.empty if each.default is MISSING else each.default,
                )
                for each in fields(kind)
            ]  # fmt: skip
        else:
            flat.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name]))

    def call(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{each.name: values.pop(each.name) for each in fields(kind)})
        command(**values)

    call.__doc__, call.__signature__ = command.__doc__, Signature(flat)  # type: ignore[attr-defined]
    return call


class Command(TyperCommand):
    """Class of all commands: refuses empty values (in a shell usually an unset variable), and options given twice."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the arguments; InputError for an empty or too long value, or an option that is given twice."""
        values, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in order:
            option = parameter.param_type_name == "option"
            where = (
                max(parameter.opts, key=len)
                if option
                else str(parameter.metavar or parameter.name.upper()).rstrip(".")
            )
            given = values.get(parameter.name)
            for value in given if isinstance(given, list | tuple) else (given,):
                if isinstance(value, str):
                    _check(value, where, is_text=parameter.name in TEXTS)
            if option and not getattr(parameter, "multiple", False) and order.count(parameter) > 1:
                raise InputError("is given twice.", where=where, hint="Give it once.")
        return super().parse_args(ctx, args)


def _check(value: str, where: str, *, is_text: bool) -> None:
    """Raises InputError for an empty value, and for a name that no file can have."""
    if not value.strip():
        raise InputError("the value is empty.", where=where, hint="Give a value, or leave it out.")
    long = [part for part in re.split("[/,]", value) if len(part.encode()) > LONGEST and not is_text]
    if long:
        what = f"'{short(long[0], 40)}' has {len(long[0]):,} characters."
        raise InputError(what, where=where, hint=f"A name has at most {LONGEST}.")


Commands = dict[str, tuple[str, str]]
"""Name of a command -> "module:function" in this package, and the arguments of its example."""


class Group(TyperGroup):
    """Commands whose modules are imported when one of them is called; the help of the group reads their docstrings."""

    prefix: ClassVar[str] = ""
    panels: ClassVar[dict[str, Commands]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.loaded = _Loaded(self.prefix, self.panels, dict(self.commands))
        self.commands = self.loaded

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help, for which no command is loaded."""
        self.commands = self.loaded.summaries()
        super().format_help(ctx, formatter)
        self.commands = self.loaded


class _Loaded(UserDict[str, Any]):
    """Name -> command of click, which is made when it is first asked for."""

    def __init__(self, prefix: str, panels: dict[str, Commands], made: dict[str, Any]) -> None:
        self.prefix = prefix
        self.entries = {name: (panel, *entry) for panel, own in panels.items() for name, entry in own.items()}
        super().__init__(dict.fromkeys(self.entries) | made)

    def __getitem__(self, name: str) -> Any:
        if self.data[name] is None:
            panel, path, example = self.entries[name]
            module, function = path.split(":")
            app = typer.Typer(add_completion=False)
            app.command(
                name, cls=Command, epilog=f"Example: {self.prefix} {name} {example}", rich_help_panel=panel
            )(getattr(import_module(f"moextend.cli.{module}"), function))
            self.data[name] = typer.main.get_command(app)
        return self.data[name]

    def summaries(self) -> dict[str, Any]:
        """The commands with nothing but the first sentence of their help."""
        brief = {
            name: TyperCommand(name, help=_docstring(path), rich_help_panel=panel)
            for name, (panel, path, _) in self.entries.items()
        }
        return brief | {name: made for name, made in self.data.items() if made is not None}


def _docstring(path: str) -> str:
    """Docstring of "module:function", read without an import."""
    module, function = path.split(":")
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_bytes())
    found = next(each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == function)
    return (ast.get_docstring(found) or "").partition("\n\n")[0]
