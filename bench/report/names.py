"""Names of methods and tasks as they are shown: short ones, those of papers, and those that `report.yaml` gives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from moextend.bench.methods import TITLES


def paper_names(methods: Iterable[str]) -> dict[str, str]:
    """Method -> its short name, that of the method itself as in papers: "MoExtend own" of `moextend:scope=own`."""
    known = list(methods)
    short = {method: method for method in known} | short_names(known)
    found = {}
    for method, name in short.items():
        own = method.partition(":")[0]
        found[method] = TITLES.get(own, own) + name.removeprefix(own).replace("_", " ")
    return {method: name for method, name in found.items() if name != method}


def short_names(methods: Iterable[str]) -> dict[str, str]:
    """Method -> its name with as few settings as tell it from the others: of those that are words, only the values.

    Of `moextend:scope=own` and `moextend:scope=all,layers=0` they are "moextend own" and "moextend all".
    """
    known = list(methods)
    telling = {method: _telling(method, known) for method in known}
    plain = {method: f"{name} {','.join(parts)}".strip() for method, (name, parts) in telling.items()}
    words = {
        method: f"{name} {','.join(map(_word, parts))}".strip() for method, (name, parts) in telling.items()
    }
    count = Counter(words.values())
    short = {method: word if count[word] == 1 else plain[method] for method, word in words.items()}
    return {method: name for method, name in short.items() if name != method}


def explained(names: Mapping[str, str]) -> list[str]:
    """A note that says which methods short names stand for; [] where there is none."""
    return (
        [f"Short names: {'; '.join(f'{name} is {method}' for method, name in names.items())}."]
        if names
        else []
    )


def _telling(method: str, known: Iterable[str]) -> tuple[str, list[str]]:
    """The name of a method, and its first settings up to the one that no other of the methods has there."""
    name, _, settings = method.partition(":")
    parts = settings.split(",") if settings else []
    for count in range(len(parts)):
        same = f"{name}:{','.join(parts[:count])}," if count else f"{name}:"
        if not any(f"{other},".startswith(same) or f"{other}:" == same for other in known if other != method):
            return name, parts[:count]
    return name, parts


def _word(setting: str) -> str:
    value = setting.partition("=")[2]
    return value if value.isalpha() and value not in ("true", "false") else setting


def renamed(text: str, names: Mapping[str, str]) -> str:
    """The text with methods and tasks as they are shown; commands, runs and longer names that hold one stay."""
    if not names:
        return text
    longest_first = sorted(names, key=len, reverse=True)
    pattern = rf"(?<![\w:=,+./-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w=+/-]|[.,:]\w| bench\b)"
    return re.sub(pattern, lambda found: names[found[0]], text)
