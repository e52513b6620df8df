"""Pages and tables of the site that are generated when it is built, and links that a page of the site cannot follow."""

from __future__ import annotations

import atexit
import json
import os
import posixpath
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import griffe
import typer
import typer.cli
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from moextend.bench.exporting import croissant
from moextend.bench.report.frame import COLUMNS
from moextend.bench.report.style import ReportStyle, TableStyle
from moextend.bench.scorers.table import ALL
from moextend.bench.sequence import SequenceSpec
from moextend.bench.task import TaskSpec, read_task
from moextend.cli.main import app
from moextend.util import content, files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.bench import test_versions  # noqa: E402
from tests.bench.report import overview, pages  # noqa: E402
from tests.bench.run import files_doc  # noqa: E402

_SOURCES = {
    **dict.fromkeys(("sequence.py", "task.py", "tuned.py", "report/style.py"), "reference/yaml.md"),
    "run/records.py": "reference/files.md",
    "scorers/table.py": "reference/scorers.md",
    "exporting/croissant.py": "reference/data.md",
    "../CHANGELOG.md": "changelog.md",
}
"""What links to these files of bench/ in a clone leads to the page that is generated from them."""
_WIDE = (
    "compare.md",
    "open-problem.md",
    "performance.md",
    "families.md",
    "reference/data.md",
    "reference/scorers.md",
    "reference/yaml.md",
)
"""Pages of wide tables, besides those of results: they have no table of contents at their right side."""
_LINK = re.compile(r"\[([^\[\]]+)\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")
_KINDS = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null"}
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", flags=re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    generated = {
        "reference/cli.md": command_line(),
        "reference/yaml.md": yaml_keys(),
        "reference/files.md": files_doc.page(),
        "reference/scorers.md": scorers(),
        "reference/data.md": data_cards(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "]("),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("](docs/", "]("),
    }
    for path, text in generated.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fills the tables of published runs; keeps only the text of links to files that are no part of the site."""
    folder = posixpath.dirname(page.file.src_uri)
    if folder == "results" or page.file.src_uri in _WIDE:
        page.meta["hide"] = ["toc"]
    only = os.environ.get("SITE_TABLES")  # a page, of a build for a test of links and references
    if only not in (None, page.file.src_uri):
        pass
    elif page.file.src_uri == "results/overview.md":
        markdown = overview.filled(markdown, _runs())
    elif folder == "results" or page.file.src_uri == "open-problem.md":
        # GitHub reads an escaped "<", and the library of the site shows its backslash.
        markdown = pages.filled(markdown, _runs()).replace(r"\<", "&lt;")

    rows = "".join(f"| `{name}` | {meaning} |\n" for name, meaning in COLUMNS.items())
    markdown = markdown.replace(
        "<!-- columns of bench.frame -->", f"| column | holds |\n| :--- | :--- |\n{rows}"
    )

    def inside(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        if generated := _SOURCES.get(target.removeprefix("../bench/")):
            return f"[{link[1]}]({posixpath.relpath(generated, folder)})"
        return link[1] if target.startswith("..") else link[0]

    return _LINK.sub(inside, markdown)


@cache
def _runs() -> Path:
    """The runs of docs/results/packs."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    only = os.environ.get("SITE_TABLES")
    return pages.published(Path(folder.name), f"{Path(only).stem}-s*" if only else "*")


def scorers() -> str:
    """The table of scorers, with the tasks that they score; more than three with the same first word are counted."""
    tasks: dict[str, dict[str, list[str]]] = {}
    for task in map(read_task, sorted((ROOT / "tasks").glob("*.yaml"))):
        if task.kind != "text" and task.needs is None:
            family = task.task.partition("-")[0]
            tasks.setdefault(task.scorer, {}).setdefault(family, []).append(task.task)
    lines = [
        "# Table of scorers\n\n[Scorers](../scorers.md) explains them.\n",
        "| scorer | rule | source | tasks | comparable with |\n| --- | --- | --- | --- | --- |",
    ]
    for each in ALL:
        named = [
            f"{family}-* ({len(names)})" if len(names) > 3 else ", ".join(names)
            for family, names in tasks.get(each.name, {}).items()
        ]
        row = (f"`{each.name}`", each.rule, each.source, ", ".join(named), each.comparable_with)
        lines.append(f"| {' | '.join(row)} |".replace("<", "&lt;").replace("*", "\\*"))
    return "\n".join(lines)


def data_cards() -> str:
    """A card for the generated world and for every packaged sequence, from the fields of its Croissant file."""
    recorded = json.loads(test_versions.RECORD.read_text(encoding="utf-8"))
    parts = [
        "# Data cards\n\n`moextend bench list NAME --croissant FOLDER` writes what stands here as a"
        " [Croissant](https://docs.mlcommons.org/croissant/docs/croissant-spec.html) file, beside the generated data.\n"
    ]
    for name in (croissant.GENERATED, *sorted(content.names("registry", ROOT))):
        about, tasks = croissant.described(name, ROOT)
        version = (
            f"{name}@{about['version'].removesuffix('.0.0')}" if isinstance(about["version"], str) else name
        )
        digest = (
            f" Protocol `{version}`, digest `{files.digest(recorded[version])}`."
            if version in recorded
            else ""
        )
        parts.append(f"## {name}\n\n{about['description']}{digest}\n")
        parts += [f"{title}\n:   {about[field]}\n" for field, title in croissant.RAI.items()]
        parts.append(f"Licence\n:   {'; '.join(about['license'])}\n")
        parts.append(f"Data\n:   `moextend bench list {name} --croissant {name}/`\n")
        rows = [
            (f"`{t.task}`", t.description, t.scorer if t.kind != "text" else "lm-eval", t.licence)
            for t in tasks
        ]
        lines = ["| task | what it asks | scorer | licence |\n| :-- | :-- | :-- | :-- |"]
        lines += [f"| {' | '.join(row)} |" for row in rows] if name != croissant.GENERATED else []
        parts.append("\n".join([*lines, ""]) if len(lines) > 1 else "")
    return "\n".join(parts)


def command_line() -> str:
    """Every command with its arguments and options, as `--help` has them."""
    command = typer.main.get_command(app)
    text = typer.cli.get_docs_for_click(
        obj=command, ctx=typer.Context(command, info_name="moextend"), name="moextend", title="Command line"
    )
    text = re.sub(r"^Example: (.*)$", r"Example: `\1`", text, flags=re.MULTILINE)
    text = re.sub(r"^(\* `[\w-]+`): .*\.\.\.$", r"\1", text, flags=re.MULTILINE)  # summaries that were cut
    parts = _CODE.split(text)  # code at odd places
    return "".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))


def yaml_keys() -> str:
    """The keys of tasks, sequences and `report.yaml`, read from the models that check them."""
    parts = [
        "# Keys of tasks and sequences\n",
        "A task is a YAML file in `tasks/` of the workspace, a sequence one in `registry/`. A key that is not listed"
        " is an error. [Adding a task](../adding.md) explains the keys with examples,"
        " [Papers](../figures.md#papers) those of `report.yaml`.\n",
    ]
    for title, model in (("Task", TaskSpec), ("Sequence", SequenceSpec), ("Report", ReportStyle)):
        held = dict(_held(model))
        held |= {TableStyle: "tables.VIEW"} if TableStyle in held else {}
        parts += [f"## {title}\n", _table(model, held)]
        parts += [
            f"### `{place}:` {{: #{_anchor(part)} }}\n\n{_table(part, held)}" for part, place in held.items()
        ]
    return "\n".join(parts)


def _held(model: type[BaseModel], place: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    """The models that the keys of a model hold, with the place of each in the YAML."""
    for name, field in model.model_fields.items():
        for part in () if field.exclude else _models(field.annotation):
            yield part, f"{place}{name}"
            yield from _held(part, f"{place}{name}.")


def _table(model: type[BaseModel], held: dict[type[BaseModel], str]) -> str:
    """A model's docstring and the table of its keys; those of a base that has its own table are left to that."""
    lines = [f"{_docstring(model)}\n"]
    bases = [base for base in model.__mro__[1:] if base in held]
    lines += [f"It has the keys of [`{held[base]}:`](#{_anchor(base)}), too.\n" for base in bases]
    lines.append("| key | value | default | meaning |\n| :-- | :-- | :-- | :-- |")
    for name, field in model.model_fields.items():
        if not field.exclude and not any(name in base.model_fields for base in bases):
            cells = (f"`{name}`", _value(field), _default(field), _docstring(model, name))
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _docstring(model: type[BaseModel], field: str | None = None) -> str:
    """That of a model or of one of its fields, on one line."""
    for kind in model.__mro__:
        if field is None or field in vars(kind).get("__annotations__", {}):
            path = kind.__name__ if field is None else f"{kind.__name__}.{field}"
            documented = _source(kind.__module__)[path]
            return " ".join(documented.docstring.value.split()) if documented.docstring else ""
    return ""


@cache
def _source(module: str) -> griffe.Module:
    path = Path(str(sys.modules[module].__file__))
    return griffe.visit(module, filepath=path, code=path.read_text(encoding="utf-8"))


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models(argument)]


def _value(field: FieldInfo) -> str:
    return ", ".join([_kind(field.annotation), *_bounds(field.metadata)])


def _bounds(metadata: Iterable[Any]) -> list[str]:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    parts = [
        part for bound in metadata for part in (bound.metadata if isinstance(bound, FieldInfo) else [bound])
    ]
    return [
        f"{sign} {getattr(part, name):,}"
        for part in parts
        for name, sign in signs.items()
        if hasattr(part, name)
    ]


def _kind(annotation: Any) -> str:
    """A type in the words of YAML."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ", ".join([_kind(arguments[0]), *_bounds(arguments[1:])])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (list, tuple):
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return "mapping"
    if arguments:
        return " or ".join(dict.fromkeys(_kind(argument) for argument in arguments))
    if issubclass(annotation, BaseModel):
        return f"[keys](#{_anchor(annotation)})"
    return _KINDS[annotation]


def _anchor(model: type[BaseModel]) -> str:
    return model.__name__.lower()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    return "" if value is None else f"`{json.dumps(value)}`"
