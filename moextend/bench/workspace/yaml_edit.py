"""Edits one list or value of a person's YAML; the rest of the file, including comments, does not change.

The file is edited as text, at positions from the YAML parser. Then it is parsed again; the edit is refused if anything
except the list or value has changed. ruamel.yaml rewrites the whole file with its own indents and line ends.
"""

from __future__ import annotations

from typing import Any

import yaml

from moextend.errors import SpecError


def append_item(text: str, key: str, item: str, *, where: str) -> str:
    """`text` with `item` at the end of the list `key`, which is made if it is missing.

    Args: item: as in a block list, without the mark: "task: x", or "x".

    Raises:
        SpecError: the layout of the list does not allow it.
    """
    node = next((value for name, value in _pairs(text) if name.value == key), None)
    if not isinstance(node, yaml.SequenceNode):
        edited = f"{text.rstrip()}\n{key}:\n- {item}\n"
    elif node.flow_style and not node.value:
        edited = f"{text[: node.start_mark.index].rstrip(' ')}\n  - {item}{text[node.end_mark.index :]}"
    elif node.flow_style:
        at = node.value[-1].end_mark.index
        added = f"{{{item}}}" if isinstance(yaml.safe_load(item), dict) else item
        edited = f"{text[:at]}, {added}{text[at:]}"
    else:
        lines, least = text.splitlines(keepends=True), node.value[-1].start_mark.line + 1
        at = max(node.end_mark.line, least)
        while at > least and _blank(lines[at - 1]):
            at -= 1
        head = "".join(lines[:at])
        end = "" if head.endswith("\n") else "\n"
        edited = f"{head}{end}{' ' * node.start_mark.column}- {item}\n{''.join(lines[at:])}"
    before = yaml.safe_load(text).get(key) or []
    _verify(text, edited, key, [*before, yaml.safe_load(item)], where)
    return edited


def set_value(text: str, key: str, wanted: dict[str, Any] | list[Any], *, where: str) -> str:
    """`text` with the value `wanted` under `key`, in place of an earlier one with its comments.

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


def _pairs(text: str) -> list[tuple[yaml.Node, yaml.Node]]:
    """Keys and values at the top of a file."""
    return getattr(yaml.compose(text), "value", [])


def _blank(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


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
