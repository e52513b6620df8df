"""Edits one list or mapping of a person's YAML; the rest of the file, including comments, does not change.

The file is edited as text, at positions from the YAML parser. Then it is parsed again; the edit is refused if anything
except the list has changed. ruamel.yaml attaches a comment to the item before it, so that removing an item also removes
the comment of the next one, and it rewrites the whole file with its own indents and line ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import yaml

from moextend.errors import InputError, SpecError

Items = list[str]
"""Lines of each item, with the comments above it."""


def edit_list(text: str, key: str, change: Callable[[Items], Items], wanted: list[Any], *, where: str) -> str:
    """`text` with a changed list under `key`. Raises SpecError if the result is not `wanted`.

    `change` gets and returns the items as text: "- task: x\n" for a block list, "x" for a list in brackets.
    """
    node = _node(text, key)
    if node is None:
        edited = f"{text.rstrip()}\n{key}:\n{''.join(change([]))}"
    elif node.flow_style:
        edited = _edit_flow(text, node, change, where)
    else:
        edited = _edit_block(text, key, node, change)
    _verify(text, edited, key, wanted, where)
    return edited


def edit_mapping(text: str, key: str, wanted: dict[str, Any], *, where: str) -> str:
    """`text` with the mapping `wanted` under `key`, in place of an earlier one with its comments.

    Raises SpecError if the result is not `wanted`.
    """
    written = yaml.safe_dump(
        {key: wanted}, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True
    )
    found = next((pair for pair in _pairs(text) if pair[0].value == key), None)
    if found is None:
        edited = f"{text.rstrip()}\n{written}"
    else:
        lines = text.splitlines(keepends=True)
        start, end = found[0].start_mark.line, found[1].end_mark.line
        end = max(end + (found[1].end_mark.column > 0), start + 1)
        while end > start + 1 and _blank(lines[end - 1]):
            end -= 1
        edited = "".join([*lines[:start], written, *lines[end:]])
    _verify(text, edited, key, wanted, where)
    return edited


def quoted(name: str) -> str:
    """A name as YAML, in quotes if YAML would read it as a number, a date or a truth value."""
    return str(yaml.safe_dump(name, default_flow_style=True, width=10**6)).splitlines()[0]


def _node(text: str, key: str) -> yaml.SequenceNode | None:
    for name, value in _pairs(text):
        if name.value == key and isinstance(value, yaml.SequenceNode):
            return value
    return None


def _pairs(text: str) -> list[tuple[yaml.Node, yaml.Node]]:
    """Keys and values at the top of a file."""
    return getattr(yaml.compose(text), "value", [])


def _edit_flow(text: str, node: yaml.SequenceNode, change: Callable[[Items], Items], where: str) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    if any(line.lstrip().startswith("#") or " #" in line for line in text[start:end].splitlines()):
        raise InputError(
            "has a comment between brackets, which an edit would lose.",
            where=where,
            hint="Write the list with one item per line, each after '- '.",
        )
    inner = [" ".join(text[i.start_mark.index : i.end_mark.index].split()) for i in node.value]
    scalars = all(isinstance(item, yaml.ScalarNode) for item in node.value)
    items = change([f"- {item}\n" for item in inner])
    contents = [item.strip().removeprefix("- ") for item in items]
    if scalars and not any(re.search(r"[:\n#]", item) for item in contents):
        return f"{text[:start]}[{', '.join(contents)}]{text[end:]}"
    # mappings are written on separate lines
    lines = "".join(f"  {item}" for item in items)
    return f"{text[:start].rstrip(' ')}\n{lines.rstrip(chr(10))}{text[end:]}"


def _edit_block(text: str, key: str, node: yaml.SequenceNode, change: Callable[[Items], Items]) -> str:
    lines = text.splitlines(keepends=True)
    indent = " " * node.start_mark.column
    starts = [item.start_mark.line for item in node.value]
    for i, start in enumerate(starts):  # a comment above an item belongs to it
        while lines[start - 1].startswith(f"{indent}#") and (i or indent):
            start -= 1
        starts[i] = start
    end = max(node.end_mark.line, starts[-1] + 1)
    while end > starts[-1] + 1 and _blank(lines[end - 1]):
        end -= 1
    edges = [*starts, end]
    head, tail = lines[: starts[0]], lines[end:]
    items = [_unindented("".join(lines[a:b]), indent) for a, b in pairwise(edges)]
    changed = change(items)
    if not changed:
        mark = next(name.end_mark for name, _ in _pairs(text) if name.value == key)
        line = head[mark.line]
        head[mark.line] = line[: mark.column] + line[mark.column :].replace(":", ": []", 1)
    body = "".join(_indented(item if item.endswith("\n") else f"{item}\n", indent) for item in changed)
    return "".join(head) + body + "".join(tail)


def _blank(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _unindented(item: str, indent: str) -> str:
    return "".join(line.removeprefix(indent) for line in item.splitlines(keepends=True))


def _indented(item: str, indent: str) -> str:
    return "".join(f"{indent}{line}" if line.strip() else line for line in item.splitlines(keepends=True))


def _verify(before: str, after: str, key: str, wanted: list[Any] | dict[str, Any], where: str) -> None:
    try:
        found = yaml.safe_load(after)
    except yaml.YAMLError:
        found = None
    if found != {**yaml.safe_load(before), key: wanted}:
        raise SpecError(
            f"this command cannot edit the layout of '{key}'.",
            where=where,
            hint=f"Edit it by hand; it should hold: {yaml.safe_dump(wanted, default_flow_style=True).strip()}",
        )
