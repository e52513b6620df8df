"""Contents of the workspace, the package and installed plug-ins, for `list`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table
from rich.text import Text

from moextend.bench import methods, scorers
from moextend.bench.plugins import Listed
from moextend.bench.references import KIND, read_reference
from moextend.bench.run.plan import DEFAULT, all_tasks, check_settings
from moextend.bench.sequence import OWN, SequenceSpec, find_sequence, read_sequence
from moextend.bench.task import read_task
from moextend.bench.workspace.new_task import check
from moextend.errors import InputError, SpecError, UnknownName, visible
from moextend.util import content


def catalogue(workspace: Path) -> dict[str, list[dict[str, Any]]]:
    """{"sequences", "tasks", "references", "methods", "scorers": [...]}.

    Unreadable YAMLs and broken plug-ins are listed with their errors. Methods and scorers of the workspace are
    imported.
    """
    sequences = _read(
        "registry", read_sequence, "version protocol stages retention transfer base description", workspace
    )
    own = OWN if any(each["name"] == OWN for each in sequences) else DEFAULT
    for record in sequences:
        stages = [stage.task for stage in record["stages"] or ()]
        base = record["base"] and record["base"].model
        record |= {"default": record["name"] == own, "stages": stages, "base": base}
    keys = "kind version licence non_commercial source description needs"
    references = _read(KIND, read_reference, "protocol source backbone rows", workspace)
    return {
        "sequences": sequences,
        "tasks": _read("tasks", read_task, keys, workspace),
        "references": [{**each, "rows": len(each["rows"] or ())} for each in references],
        "methods": [_method(each) for each in methods.KNOWN.listed(workspace)],
        "scorers": [record for each in scorers.KNOWN.listed(workspace) for record in _scorers(each)],
    }


def only(found: dict[str, list[dict[str, Any]]], word: str) -> dict[str, list[dict[str, Any]]]:
    """A part of the catalogue, by its name ("tasks"), or what has a word in a text or a list of its record.

    Raises:
        UnknownName: nothing has it.
    """
    word = word.lower()
    if word in found:
        return {word: found[word]}
    kept = {part: [one for one in records if _has(one, word)] for part, records in found.items()}
    if not any(kept.values()):
        names = [*found, *(one["name"] for records in found.values() for one in records)]
        raise UnknownName("name or description with", word, names, where="WORD")
    return {part: records for part, records in kept.items() if records}


def _has(record: dict[str, Any], word: str) -> bool:
    texts = [record.get(key) or "" for key in ("name", "description", "kind", "base", "protocol", "source")]
    return any(word in text.lower() for text in [*texts, *record.get("stages", [])])


ROOMY = 110
"""Width of a terminal with room for all columns of tasks."""
NEW = "One of your own: moextend bench new"
PARTS = {
    "sequences": ("Sequences", "name version from stages", "* runs when none is named: moextend bench run"),
    "tasks": ("Tasks", "name kind version from licence description", "In full: moextend bench list NAME"),
    "references": (
        "Published numbers", "name protocol from rows source", "Below a report: moextend bench report --references NAME"
    ),
    "methods": ("Methods", "name from task_identity description", f"{NEW} method NAME"),
    "scorers": ("Scorers", "name from description", f"{NEW} scorer NAME"),
}  # fmt: skip
"""Part of the catalogue -> its title, the keys of records that are shown, and what stands below."""


def tables(found: dict[str, list[dict[str, Any]]], width: int = 80) -> list[Table | str]:
    """Catalogue, or a part of it, for a terminal of `width` columns."""
    lines: list[Table | str] = []
    for part, records in found.items():
        title, keys, below = PARTS[part]
        narrow = part == "tasks" and width < ROOMY
        shown = [key for key in keys.split() if not (narrow and key in ("version", "from"))]
        table = _table(title, [key.replace("task_identity", "task id") for key in shown], narrow="licence")
        for record in records:
            _row(table, record, [_shown(record, key) for key in shown])
        lines += [table, f"{below}\n"]
    return lines


def _shown(record: dict[str, Any], key: str) -> str:
    value = record[key]
    if key == "stages":
        return " → ".join(value) or "none yet"
    before = f"(needs a {record['needs']}) " if key == "description" and record.get("needs") else ""
    after = " *" if key == "name" and record.get("default") else ""
    after += " (non-commercial)" if key == "licence" and record["non_commercial"] else ""
    return f"{before}{value}{after}"


def is_name(word: str, workspace: Path) -> bool:
    """Whether a task or a sequence has this name, or a sequence is in this file."""
    known = word in content.names("registry", workspace) or word in content.names("tasks", workspace)
    return known or word.endswith((".yaml", ".yml"))


def details(name: str, workspace: Path, *, example: bool) -> dict[str, Any]:
    """Details of a task or sequence, references comparable with a task's scores, and problems of a sequence.

    Args: example: add one item of a task as the model reads it.
    """
    sequences, tasks = content.names("registry", workspace), content.names("tasks", workspace)
    if name in tasks:
        task = read_task(tasks[name])
        record = {"file": str(task.path), **task.model_dump(mode="json", exclude_none=True)}
        if task.kind != "text":
            scorers.search(workspace)
            record["comparable_with"] = scorers.find_scorer(task.scorer).comparable_with
        if example:
            record["example"] = check(task, workspace)
        return record
    if name in sequences or name.endswith((".yaml", ".yml")):
        sequence = find_sequence(name, workspace)
        record = {"file": str(sequence.path), **sequence.model_dump(mode="json", exclude_none=True)}
        if problems := _problems(sequence, workspace):
            record["problems"] = problems
        return record
    raise UnknownName("task or sequence", name, [*tasks, *sequences])


def _problems(sequence: SequenceSpec, workspace: Path) -> list[str]:
    """The first problem of a sequence's tasks, and that of its methods' settings."""
    found = []
    for checked in (all_tasks, check_settings):
        try:
            checked(sequence, workspace)
        except InputError as error:
            found.append(str(error))
    return found


def describe(record: dict[str, Any]) -> str:
    """Details as text: the name of the file and its YAML."""
    apart = ("file", "example", "comparable_with", "problems")
    text = f"# {record['file']}\n"
    if "comparable_with" in record:
        text += f"# its scorer is comparable with: {record['comparable_with']}\n"
    text += _yaml({key: value for key, value in record.items() if key not in apart})
    if "example" in record:
        text += f"# example\n{_yaml(record['example'])}"
    return text.rstrip()


def _yaml(record: dict[str, Any]) -> str:
    return yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=100)


def _read(
    kind: content.Kind, read: Callable[[Path], Any], keys: str, workspace: Path
) -> list[dict[str, Any]]:
    """The YAMLs of a kind: where each is, and these keys of it, or its error."""
    found = []
    for name, path in sorted(content.names(kind, workspace).items()):
        origin = "workspace" if path.resolve().is_relative_to(workspace.resolve()) else "package"
        values, error = dict.fromkeys(keys.split()), None
        try:
            spec = read(path)
            values = {key: getattr(spec, key) for key in values}
        except SpecError as problem:
            error = str(problem)
        found.append({"name": name, "from": origin, "file": str(path), **values, "error": error})
    return found


def _method(each: Listed[type[methods.Method]]) -> dict[str, Any]:
    record = {**_plugin(each), "task_identity": ""}
    if each.found is None:
        return record
    kind = each.found.value
    try:
        record["task_identity"] = kind(kind.Config()).task_identity
    except SpecError:  # a setting without a default
        pass
    except Exception as error:  # foreign code may raise any exception
        record["error"] = f"{each.place}: cannot be made ({type(error).__name__}: {error})."
    return {**record, "description": (kind.__doc__ or "").strip().partition("\n")[0]}


def _scorers(each: Listed[tuple[scorers.Scorer, ...]]) -> list[dict[str, Any]]:
    if each.found is None:
        return [_plugin(each)]
    return [{**_plugin(each), "name": scorer.name, "description": scorer.rule} for scorer in each.found.value]


def _plugin(each: Listed[Any]) -> dict[str, Any]:
    error = None if each.problem is None else str(each.problem)
    return {
        "name": each.name, "from": each.origin, "file": each.place or None, "description": "", "error": error,
    }  # fmt: skip


def _table(title: str, columns: list[str], narrow: str = "") -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:  # names are copied, so they are not shortened; descriptions are
        table.add_column(
            column, no_wrap=column == "name", overflow="fold", max_width=16 if column == narrow else None
        )
    return table


def _row(table: Table, record: dict[str, Any], cells: list[str]) -> None:
    if record["error"]:
        blank = len(cells) - 2
        error = Text(record["error"], style="red", no_wrap=False, overflow="fold")
        table.add_row(Text(record["name"]), *[""] * blank, error)
    else:
        table.add_row(*[Text(visible(cell)) for cell in cells])
