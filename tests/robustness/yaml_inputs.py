"""Bad sequence and task YAMLs: bad values of every key, and bad files."""

from __future__ import annotations

from typing import Any

import yaml

from .workspace import SEQUENCE, TASK

GONE = object()
"""Stands for a key that is left out."""
Change = tuple[Any, Any]

SEQUENCES: list[Change] = [
    ("sequence", GONE), ("sequence", 7), ("sequence", "other"), ("version", None), ("description", ["x"]), ("base", None), ("base", "tiny"), ("base", {}),
    ("base.model", 7), ("base.vision", ""), ("base.chat", "maybe"), ("base.modl", "tiny"), ("align", "captions"), ("align.task", "words"), ("align.steps", True),
    ("stages", GONE), ("stages", {"task": "colour"}), ("stages", [{}]), ("stages", [{"task": "colour", "stesp": 3}]), ("retention", "words"), ("retention", [3]),
    ("memory", "../../x.txt"), ("memory", "."), ("train", None), ("train.steps", GONE), ("train.batch_size", None), ("scoring.limt", 3), ("scoring", "x"),
    ("methods", "lora"), ("methods", ["lora:ranc=3"]), ("settings", {"moextnd": {}}), ("protocol", 3), ("unknown", 1), (7, 1),
]  # fmt: skip
"""Changes of the sequence: key, bad value; tests/fixtures/bad_inputs.txt has more."""

TASKS: list[Change] = [
    ("task", GONE), ("task", "../colour"), ("kind", GONE), ("data", GONE), ("data", "x"), ("data.path", GONE), ("data.path", "/dev/zero"), ("data.path", "../note.txt"),
    ("data.test", "none"), ("data.test", "all[:" + "9" * 5_000 + "]"), ("data.test", "test\ud800"), ("data.images", "../note.txt"), ("data.each", "question"),
    ("data.absent", 3), ("columns", None), ("columns.image", "question"), ("columns.choices", "question"), ("prompt", "{question"), ("prompt", "<image> <image> {question}"),
    ("prompt", "no image {question}"), ("scorer", "letter@1"), ("answer_as", "lettr"), ("needs", "judge"), ("lm_eval", {"task": "x"}), ("unknown", 1),
]  # fmt: skip
"""Changes of an image task."""

FILES: list[tuple[str, bytes]] = [
    ("empty", b""), ("only a comment", b"# nothing\n"), ("a list", b"- a\n- b\n"), ("a text", b"hello"), ("tabs", b"sequence:\tsmall\n\tversion: 1\n"),
    ("an open quote", b"sequence: 'small\n"), ("a key twice", SEQUENCE.encode() + b"version: 2\n"),
    ("two documents", SEQUENCE.encode() + b"---\n" + SEQUENCE.encode()), ("binary", bytes(range(256))), ("NUL", b"sequence: sm\0all\n"), ("UTF-16", SEQUENCE.encode("utf-16")),
    ("no UTF-8", b"sequence: \xff\xfe\n"), ("an alias of nothing", b"a: *none\n"), ("an alias of itself", b"a: &a [*a]\n"),
    ("an alias bomb", b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 107))),
    ("deep", b"[" * 20_000), ("a deep mapping", b"a: " + b"{a: " * 5_000), ("Python", b"sequence: !!python/object/apply:os.system ['touch executed']\n"),
    ("five megabytes", b"sequence: " + b"x" * 5_000_000 + b"\n"), ("a million keys", b"".join(b"k%d: 1\n" % i for i in range(200_000))),
    ("an escape sequence", b'sequence: "\\e[31mred"\nversion: 1\n'), ("a key that is a list", b"? [a, b]\n: 1\n"),
    ("an unknown tag", b"sequence: !thing small\n"), ("JSON cut off", b'{"sequence": "small", "version"'),
    ("5,000 digits", b"sequence: small\nversion: " + b"9" * 5_000), ("20,000 hexadecimal digits", b"sequence: small\nversion: 0x" + b"f" * 20_000), ("a lone surrogate", b'sequence: "\\ud800"\n'),
]  # fmt: skip
"""Whole files in the place of a sequence's."""


def changed(text: str, change: Change) -> str:
    """The YAML with one key changed; "a.b" is a key in a mapping."""
    content = yaml.safe_load(text)
    place, (key, value) = content, change
    if isinstance(key, str) and "." in key:
        outer, _, key = key.partition(".")
        place = content.setdefault(outer, {})
    if value is GONE:
        place.pop(key)
    else:
        place[key] = value
    return yaml.safe_dump(content)


def task() -> str:
    """The task that the changes are made to."""
    columns = "{image: image, question: question, answer: answer}"
    return TASK.format(
        name="colour", kind="vqa", columns=columns, prompt="<image> Q {question} A:", scorer="exact@1"
    )


def shown(change: Change) -> str:
    """A short name of a change."""
    return f"{change[0]}={'(gone)' if change[1] is GONE else str(change[1])[:40]}"
