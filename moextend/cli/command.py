"""Commands that are loaded when they are called, and refuse empty values and repeated options that take one value."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from moextend.errors import InputError, short

LONG = 12
"""A command with more parameters has panels."""
PANELS = {
    "Data": "data columns images template",
    "Model": "vision audio projector extension dtype max_new_tokens",
    "New experts": "layers share experts width routing scope retention",
    "Training": "steps align_steps batch_size learning_rate",
    "Scoring": "also allow_code limit backend backend_option",
    "Execution": "device deterministic dry_run prepare",
    "Executor": "jobs executor executor_option",
    "Files and output": "out form style as_json workspace",
}
"""Title -> names of parameters."""
TEXTS = ("prompt", "template")
"""Parameters with a text; all others are numbers, names, paths or lists of them."""
LONGEST = 255
"""Bytes of the name of a file."""


def put_in_panels(command: Any) -> None:
    """Gives the options of a long command their panels; what is in no group, or alone in one, stays under Options."""
    if len(command.params) <= LONG:
        return
    options = [each for each in command.params if each.param_type_name == "option"]
    titles = {name: title for title, names in PANELS.items() for name in names.split()}
    sizes = Counter(titles.get(each.name) for each in options)
    for option in options:
        title = titles.get(option.name)
        option.rich_help_panel = title if sizes[title] > 1 else None


class Command(TyperCommand):
    """Class of all commands. An empty value in a shell is usually an unset variable."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help, with the options of a long command in panels."""
        put_in_panels(self)
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the arguments; InputError for an empty value, or for a repeated option that takes one value."""
        values, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in order:
            name = _name(parameter)
            given = values.get(parameter.name)
            for value in given if isinstance(given, list | tuple) else (given,):
                if isinstance(value, str) and not value.strip():
                    raise InputError("the value is empty.", where=name, hint=_hint(parameter))
                if isinstance(value, str) and parameter.name not in TEXTS:
                    _refuse_long(value, name)
            once = parameter.param_type_name == "option" and not getattr(parameter, "multiple", False)
            if once and order.count(parameter) > 1:
                raise InputError("is given twice.", where=name, hint="Give it once.")
        return super().parse_args(ctx, args)


def _name(parameter: Any) -> str:
    """Name of a parameter as in the help: --seed, NAME."""
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return str(parameter.metavar or parameter.name.upper()).rstrip(".")


def _refuse_long(value: str, where: str) -> None:
    """Raises InputError if a part of a value is longer than a name can be."""
    long = next((part for part in re.split("[/,]", value) if len(part.encode()) > LONGEST), None)
    if long is not None:
        raise InputError(
            f"'{short(long, 40)}' has {len(long):,} characters.",
            where=where,
            hint=f"A name has at most {LONGEST}.",
        )


def _hint(parameter: Any) -> str:
    return "Give a value." if parameter.required else "Give a value, or leave it out."


Commands = dict[str, tuple[str, str]]
"""Name of a command -> "module:function" in this package, and the arguments of its example."""


class Group(TyperGroup):
    """Commands whose modules are imported when one of them is called; the help of the group reads their docstrings."""

    prefix: ClassVar[str] = ""
    panels: ClassVar[dict[str, Commands]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Loaded(self.prefix, self.panels, self.commands)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help, for which no command is loaded."""
        loaded, self.commands = self.commands, self.commands.summaries()
        super().format_help(ctx, formatter)
        self.commands = loaded


class _Loaded(MutableMapping[str, Any]):
    """Name -> command of click, which is made when it is first asked for."""

    def __init__(self, prefix: str, panels: dict[str, Commands], made: dict[str, Any]) -> None:
        self.prefix = prefix
        self.panels = panels
        self.made = dict(made)

    def __getitem__(self, name: str) -> Any:
        if name not in self.made:
            panel, path, example = self._entries()[name]
            module, function = path.split(":")
            app = typer.Typer(add_completion=False)
            app.command(
                name, cls=Command, epilog=f"Example: {self.prefix} {name} {example}", rich_help_panel=panel
            )(getattr(import_module(f"moextend.cli.{module}"), function))
            self.made[name] = typer.main.get_command(app)
        return self.made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self.made[name] = command

    def __delitem__(self, name: str) -> None:
        del self.made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._entries(), *self.made]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _entries(self) -> dict[str, tuple[str, str, str]]:
        return {
            name: (panel, *entry)
            for panel, commands in self.panels.items()
            for name, entry in commands.items()
        }

    def summaries(self) -> dict[str, Any]:
        """The commands with nothing but the first sentence of their help."""
        brief = {
            name: TyperCommand(name, help=_docstring(path), rich_help_panel=panel)
            for name, (panel, path, _) in self._entries().items()
        }
        return {name: self.made.get(name) or brief[name] for name in self}


def _docstring(path: str) -> str:
    """Docstring of "module:function", read without an import."""
    module, function = path.split(":")
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_bytes())
    found = next(each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == function)
    return (ast.get_docstring(found) or "").partition("\n\n")[0]
