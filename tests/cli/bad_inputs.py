"""Bad inputs of the command line, read from `tests/fixtures/bad_inputs.txt`; `test_preflight.py` runs them.

Each is typed in a workspace with a sequence and a task that are right, or that have one part replaced.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CASES = Path(__file__).parents[1] / "fixtures" / "bad_inputs.txt"
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
TASK = """\
task: own
version: 1
kind: vqa
data: {path: own.json, train: "all[:50%]", test: "all[50%:]"}
columns: {image: null, question: question, answer: answer}
prompt: "{question}"
scorer: exact@1
"""
DATA = json.dumps([{"question": f"what is {i}", "answer": str(i)} for i in range(40)])


@dataclass(frozen=True)
class Case:
    """One bad input."""

    id: str
    arguments: tuple[str, ...]
    names: tuple[str, ...]
    """What the answer holds: the option, file or key, and what was found there."""
    files: dict[str, str] = field(default_factory=dict)
    """Path in the workspace -> content; beside registry/mine.yaml, tasks/own.yaml and own.json."""
    long: bool = False
    """Whether the answer may hold a list of known names."""


def cases() -> Iterator[Case]:
    """All cases of the file."""
    section = ""
    for line in CASES.read_text("utf-8").splitlines():
        if line in ("[typed]", "[sequence]", "[task]"):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            typed, _, words = line.partition(" :: ")
            names, long = tuple(words.removesuffix(" ~").split(" | ")), words.endswith(" ~")
            typed = typed.replace("{long}", "a" * 300)
            if section == "typed":
                yield Case(line[:100], tuple(shlex.split(typed)), names, long=long)
                continue
            old, _, new = typed.replace("\\n", "\n").partition(" => ")
            files = {"registry/mine.yaml": SEQUENCE}
            if section == "sequence":
                assert old == "ALL" or old in SEQUENCE, old
                files["registry/mine.yaml"] = new if old == "ALL" else SEQUENCE.replace(old, new, 1)
            else:
                assert old in TASK, old
                files = {
                    "tasks/own.yaml": TASK.replace(old, new, 1),
                    "registry/mine.yaml": SEQUENCE.replace("tiny-counting", "own"),
                }
            yield Case(line[:100], ("bench", "run", "mine"), names, files, long)


def fill(workspace: Path, files: dict[str, str]) -> None:
    """Makes the workspace that a case is typed in."""
    own = {"registry/mine.yaml": SEQUENCE, "tasks/own.yaml": TASK, "tasks/own.json": DATA, "own.json": DATA}
    for name, text in (own | files).items():
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
