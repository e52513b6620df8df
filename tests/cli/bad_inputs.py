"""A bad input of the command line: the arguments, the workspace, and the expected words of the error.

Tables of them are in `bad_inputs_bench.py` and `bad_inputs_library.py`, and `test_preflight.py` runs them. To add one,
write a line in a table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

SEQUENCE = """\
sequence: mine
version: 1
base: {model: tiny, vision: tiny}
align: {task: tiny-captions, steps: 3, batch_size: 2, learning_rate: 3.0e-3}
stages: [{task: tiny-counting}]
retention: [tiny-facts]
memory: tiny-generic.txt
train: {steps: 2, batch_size: 2, learning_rate: 3.0e-3}
scoring: {batch_size: 8, limit: 4}
methods: [lora]
settings: {lora: {rank: 4}}
"""
"""A sequence that is right; cases replace a part of it."""

ALIGN = "align: {task: tiny-captions, steps: 3, batch_size: 2, learning_rate: 3.0e-3}\n"
TASK = """\
task: own
version: 1
kind: vqa
data: {path: own.json, train: "all[:50%]", test: "all[50%:]"}
columns: {image: null, question: question, answer: answer}
prompt: "{question}"
scorer: exact@1
"""
"""A task that is right."""

LONG = "a" * 300
"""A name that no file can have."""
DATA = json.dumps([{"question": f"what is {i}", "answer": str(i)} for i in range(40)])


@dataclass(frozen=True)
class Case:
    """One bad input."""

    arguments: tuple[str, ...]
    names: tuple[str, ...]
    """What the answer holds: the option, file or key, and what was found there."""
    files: dict[str, str] = field(default_factory=dict)
    """Path in the workspace -> content; beside registry/mine.yaml, tasks/own.yaml and own.json."""
    long: bool = False
    """Whether the answer may hold a list of known names."""

    @property
    def id(self) -> str:
        """The command as it is typed, and what was changed in a file."""
        return " ".join(
            [*(word or "''" for word in self.arguments), *(f"({name})" for name in self.names[-1:])]
        )[:150]


def option(command: str, *names: str, long: bool = False) -> Case:
    """A command line, its words separated by blanks; '' is an empty word."""
    words = tuple("" if word == "''" else word for word in command.split())
    return Case(words, names, long=long)


def sequence(old: str, new: str, *names: str, long: bool = False) -> Case:
    """The sequence with one part replaced, as `bench run mine` finds it."""
    assert old in SEQUENCE, old
    return Case(("bench", "run", "mine"), names, {"registry/mine.yaml": SEQUENCE.replace(old, new, 1)}, long)


def task(old: str, new: str, *names: str, long: bool = False) -> Case:
    """The task with one part replaced, in a sequence that learns it."""
    assert old in TASK, old
    files = {
        "tasks/own.yaml": TASK.replace(old, new, 1),
        "registry/mine.yaml": SEQUENCE.replace("tiny-counting", "own"),
    }
    return Case(("bench", "run", "mine"), names, files, long)


def fill(workspace: Path, files: dict[str, str]) -> None:
    """Makes the workspace that a case is typed in."""
    own = {"registry/mine.yaml": SEQUENCE, "tasks/own.yaml": TASK, "tasks/own.json": DATA, "own.json": DATA}
    for name, text in (own | files).items():
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
