"""Bad inputs of the command line, read from `tests/fixtures/bad_inputs.txt`; `test_bad_inputs.py` runs them.

Each is typed in a workspace with a sequence and a task that are right, or that have one part replaced.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from tests.robustness.workspace import make_extension

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
CAPTIONS = "".join(
    json.dumps({"image": "image.png", "caption": f"a red square {i}"}) + "\n" for i in range(12)
)
VALUES = {
    "{long}": "a" * 300, "{nul}": "a\0b", "{digits}": "9" * 30, "{escape}": "\x1b[31mred\x1b[0m",
    "{unicode}": "ü\u202e\u2028名", "{latin}": "caf\udce9",
}  # fmt: skip
"""What a mark in the file stands for; the last is what Python makes of an argument in latin-1."""
WORDS = ("''", "' '", "{long}", "{nul}", "{escape}", "{unicode}", "{latin}")
"""Values that no name is: those of {word}."""


@dataclass(frozen=True)
class Case:
    """One bad input."""

    id: str
    arguments: tuple[str, ...]
    names: tuple[str, ...]
    """What the answer holds: the option, file or key, and what was found there."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Path in the workspace -> content; beside registry/mine.yaml, tasks/own.yaml and own.json."""
    long: bool = False
    """Whether the answer may hold a list of known names."""
    loads: bool = False
    """Whether a model is loaded before."""


def cases() -> Iterator[Case]:
    """All cases of the file."""
    section = ""
    for line in CASES.read_text("utf-8").splitlines():
        if line in ("[typed]", "[loaded]", "[sequence]", "[task]", "[example]"):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            for word in WORDS if "{word}" in line else ("",):
                yield _case(section, line.replace("{word}", word))


def _case(section: str, line: str) -> Case:
    typed, _, words = line.partition(" :: ")
    names, long = tuple(words.removesuffix("~").strip().split(" | ")), words.endswith("~")
    if section in ("typed", "loaded"):
        typed_as = tuple(map(_filled, shlex.split(typed)))
        return Case(line[:100], typed_as, names, long=long, loads=section == "loaded")
    old, _, new = _filled(typed).replace("\\n", "\n").partition(" => ")
    if section == "sequence":
        assert old == "ALL" or old in SEQUENCE, old
        files = {"registry/mine.yaml": new if old == "ALL" else SEQUENCE.replace(old, new, 1)}
    else:
        assert old in TASK, old
        learned = SEQUENCE.replace("tiny-counting", "own")
        files = {"tasks/own.yaml": TASK.replace(old, new, 1), "registry/mine.yaml": learned}
    written = {name: text.encode() for name, text in files.items()}
    command = ("list", "own", "--example") if section == "example" else ("run", "mine")
    return Case(line[:100], ("bench", *command), names, written, long)


def _filled(text: str) -> str:
    for mark, value in VALUES.items():
        text = text.replace(mark, value)
    return text


def fill(folder: Path) -> None:
    """Makes the workspace that the cases are typed in, with good and bad files beside."""
    own = {
        "registry/mine.yaml": SEQUENCE, "tasks/own.yaml": TASK, "tasks/own.json": DATA, "own.json": DATA,
        "captions.jsonl": CAPTIONS, "note.txt": "a note",
    }  # fmt: skip
    for name, text in own.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "garbage.gguf").write_bytes(b"GGUF" + bytes(100))
    (folder / "emptied").mkdir()
    make_extension(folder / "skill")
    os.mkfifo(folder / "fifo")
    Image.new("RGB", (8, 8), "red").save(folder / "image.png")
    whole = (folder / "image.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[:-30])
    (folder.parent / "outside.png").write_bytes(whole)
