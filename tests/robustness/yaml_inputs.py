"""Bad sequence and task YAMLs: bad values of every key, and bad files."""

from __future__ import annotations

from typing import Any

import yaml

from .workspace import SEQUENCE, TASK

GONE = object()
"""Stands for a key that is left out."""
Change = tuple[Any, Any]

SEQUENCES: list[Change] = [
    ("sequence", GONE), ("sequence", ""), ("sequence", 7), ("sequence", "../small"), ("sequence", "other"), ("sequence", ["small"]),
    ("version", 1.5), ("version", None),
    ("description", ["x"]), ("base", GONE), ("base", None), ("base", "tiny"), ("base", {}), ("base", []),
    ("base.model", ""), ("base.model", "tinny"), ("base.model", 7), ("base.model", "/dev/null"), ("base.vision", "tinny"),
    ("base.vision", ""), ("base.vision", 7), ("base.dtype", "float31"), ("base.dtype", 32), ("base.chat", "maybe"), ("base.chat", True),
    ("base.resize", "longst"), ("base.upcycle", {"experts": 0}), ("base.upcycle", "x"), ("base.modl", "tiny"),
    ("align", "captions"), ("align.task", "none"), ("align.task", "../captions"), ("align.task", "words"), ("align.steps", 0), ("align.steps", "x"),
    ("align.steps", True), ("align.learning_rate", float("nan")), ("align.batch_size", 0), ("align.stesp", 3),
    ("stages", GONE), ("stages", []), ("stages", None), ("stages", "colour"), ("stages", {"task": "colour"}), ("stages", [3]), ("stages", [{}]), ("stages", [None]),
    ("stages", [{"task": "none"}]), ("stages", [{"task": "../tasks/colour"}]),
    ("stages", [{"task": "words"}]), ("stages", [{"task": "colour", "steps": 0}]), ("stages", [{"task": "colour", "stesp": 3}]), ("stages", [{"task": 3}]),
    ("retention", "words"), ("retention", ["none"]), ("retention", ["shade"]), ("retention", ["words", "words"]), ("retention", [3]), ("retention", {"a": 1}),
    ("transfer", ["none"]), ("transfer", "shade"), ("memory", "none.txt"), ("memory", "../../x.txt"), ("memory", 7), ("memory", "."),
    ("train", GONE), ("train", None), ("train", []), ("train.steps", GONE), ("train.steps", 0), ("train.steps", -1), ("train.steps", "x"), ("train.steps", 1.5),
    ("train.steps", 10**12), ("train.batch_size", 0), ("train.batch_size", None), ("train.learning_rate", -1), ("train.learning_rate", float("inf")),
    ("train.learning_rate", float("nan")), ("train.learning_rate", "fast"), ("train.schedule", "cosin"), ("train.warmup", 2), ("train.weight_decay", -1),
    ("train.max_grad_norm", -1), ("train.gradient_accumulation", 0), ("train.checkpoint_steps", 0), ("train.report_to", "wandbb"), ("train.balance", -1),
    ("train.stesp", 3), ("scoring.batch_size", 0), ("scoring.limit", 0), ("scoring.limit", "x"), ("scoring.limt", 3), ("scoring", "x"),
    ("methods", "lora"), ("methods", ["lor"]), ("methods", [3]), ("methods", ["lora:ranc=3"]), ("settings", "x"), ("settings", {"moextnd": {}}), ("settings", {"lora": {"ranc": 3}}),
    ("settings", {"lora": {"rank": 0}}), ("settings", {"lora": 3}), ("protocol", 3), ("unknown", 1), (7, 1), (True, 1),
]  # fmt: skip
"""Changes of the sequence: key, bad value."""

TASKS: list[Change] = [
    ("task", GONE), ("task", ""), ("task", "other"), ("task", "../colour"), ("task", 7), ("kind", GONE), ("kind", "vqaa"), ("kind", None),
    ("data", GONE), ("data", None), ("data", "x"), ("data.path", GONE), ("data.path", ""), ("data.path", "../data/none"), ("data.path", 7), ("data.path", "world:none"),
    ("data.path", "/dev/zero"), ("data.path", "../note.txt"), ("data.train", ""), ("data.test", "none"), ("data.test", 7), ("data.test", "all[:" + "9" * 5_000 + "]"), ("data.test", "9" * 5_000), ("data.test", "test\ud800"), ("data.images", "../none"), ("data.images", "../note.txt"),
    ("data.join", "x"), ("data.each", "question"), ("data.absent", 3), ("data.pth", "x"), ("columns", None), ("columns", ["a"]),
    ("columns.question", "none"), ("columns.question", 7), ("columns.image", "none"), ("columns.image", "question"), ("columns.answer", "none"), ("columns.qestion", "question"),
    ("columns.choices", "none"), ("columns.choices", "question"), ("prompt", ""), ("prompt", "{none}"), ("prompt", "{question"), ("prompt", 7), ("prompt", "<image> <image> {question}"),
    ("prompt", "no image {question}"), ("scorer", "exact"), ("scorer", "exact@99"), ("scorer", "exat@1"), ("scorer", 1), ("scorer", "letter@1"),
    ("max_new_tokens", 0), ("max_new_tokens", -1), ("max_new_tokens", "x"), ("max_new_tokens", 10**9), ("answer_as", "lettr"),
    ("needs", "judge"), ("needs", 3), ("lm_eval", {"task": "x"}), ("runs_code", "maybe"), ("unknown", 1),
]  # fmt: skip
"""Changes of an image task."""

FILES: list[tuple[str, bytes]] = [
    ("empty", b""), ("only a comment", b"# nothing\n"), ("a list", b"- a\n- b\n"), ("a text", b"hello"), ("a number", b"7"), ("tabs", b"sequence:\tsmall\n\tversion: 1\n"),
    ("an open quote", b"sequence: 'small\n"), ("an open brace", b"base: {model: tiny\n"), ("a key twice", SEQUENCE.encode() + b"version: 2\n"),
    ("two documents", SEQUENCE.encode() + b"---\n" + SEQUENCE.encode()), ("binary", bytes(range(256))), ("NUL", b"sequence: sm\0all\n"), ("UTF-16", SEQUENCE.encode("utf-16")),
    ("no UTF-8", b"sequence: \xff\xfe\n"), ("an alias of nothing", b"a: *none\n"), ("an alias of itself", b"a: &a [*a]\n"),
    ("an alias bomb", b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 107))),
    ("deep", b"[" * 20_000), ("a deep mapping", b"a: " + b"{a: " * 5_000), ("Python", b"sequence: !!python/object/apply:os.system ['touch executed']\n"),
    ("five megabytes", b"sequence: " + b"x" * 5_000_000 + b"\n"), ("a million keys", b"".join(b"k%d: 1\n" % i for i in range(200_000))),
    ("an escape sequence", b'sequence: "\\e[31mred"\nversion: 1\n'), ("a merge of nothing", b"<<: 3\n"), ("a key that is a list", b"? [a, b]\n: 1\n"),
    ("an unknown tag", b"sequence: !thing small\n"), ("a date", b"sequence: 2026-01-01\nversion: 1\n"), ("JSON cut off", b'{"sequence": "small", "version"'),
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
