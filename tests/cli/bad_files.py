"""Bad files: data for `bench add-task`, and sequences for `bench run`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from .bad_inputs import SEQUENCE, Case

ROW = {"question": "what color is it", "answer": "red"}
PICTURE = {**ROW, "image": "image.png"}


def jsonl(*rows: object) -> bytes:
    """Rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(**columns: list[object]) -> bytes:
    """Columns as parquet."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


GOOD = parquet(question=["what color"] * 30, answer=["red", "blue", "green"] * 10)

LATIN = pa.Array.from_buffers(pa.string(), 9, pa.array([b"caf\xe9"] * 9).buffers())
"""Texts that Arrow takes without a look, and that are not UTF-8."""
CHOICES = {
    "200,000 minus signs": "-" * 200_000, "200,000 brackets": "[" * 200_000, "a list of lists": "[" * 300 + "]" * 300, "a set": "{'red', 'blue'}",
    "a number of 90,000 digits": "0x" + "f" * 90_000, "escaped surrogates": r"['red', '\ud800']", "a call": "open('executed', 'w')",
}  # fmt: skip
"""Texts that are no list of choices."""

DATA: list[tuple[str, str, str, bytes]] = [
    ("qa", "empty", "d.jsonl", b""), ("qa", "a line cut off", "d.jsonl", jsonl(ROW) * 5 + b'{"question": "wh'), ("qa", "a list a line", "d.jsonl", jsonl([1, 2])),
    ("qa", "no questions", "d.jsonl", jsonl({"answer": "red"}) * 9), ("qa", "other columns", "d.jsonl", jsonl({"a": 1, "b": 2}) * 9),
    ("qa", "empty answers", "d.jsonl", jsonl({**ROW, "answer": ""}) * 9), ("qa", "a row without answer", "d.jsonl", jsonl(ROW) * 9 + jsonl({"question": "what"})),
    ("qa", "objects as answers", "d.jsonl", jsonl({**ROW, "answer": {"a": 1}}) * 9), ("qa", "no UTF-8", "d.jsonl", b'{"question": "\xff", "answer": "red"}\n' * 9),
    ("qa", "deep", "d.json", b"[" * 100_000), ("qa", "cut off", "d.json", b'[{"question": "what", '), ("qa", "binary", "d.json", bytes(range(256))),
    ("qa", "a key twice", "d.jsonl", b'{"question": "a", "question": "b"}\n'), ("qa", "empty", "d.csv", b""), ("qa", "only a header", "d.csv", b"question,answer\n"),
    ("qa", "an open quote", "d.csv", b'question,answer\n"what,red\n'), ("qa", "NUL", "d.csv", b"question,answer\na\0,b\n"),
    ("qa", "no header", "d.csv", b"what,red\nwhere,oslo\n"), ("qa", "a cell of a megabyte", "d.csv", b"question,answer\n" + b"x" * 1_000_000 + b"\n"),
    ("qa", "empty", "d.parquet", b""), ("qa", "garbage", "d.parquet", bytes(range(256)) * 4), ("qa", "cut off", "d.parquet", GOOD[: len(GOOD) // 2]),
    ("qa", "no rows", "d.parquet", parquet(question=[], answer=[])), ("qa", "parquet named JSON", "d.jsonl", GOOD),
    ("qa", "a picture named JSON", "d.jsonl", b"\x89PNG\r\n\x1a\n" + bytes(40)), ("qa", "a lone surrogate", "d.jsonl", jsonl({**ROW, "question": "what \ud800"}) * 9),
    ("qa", "a lone surrogate in an answer", "d.json", json.dumps([{**ROW, "answer": "\udfff"}] * 9).encode()),
    ("qa", "no UTF-8", "d.parquet", parquet(question=LATIN, answer=["red"] * 9)),
    *(("qa", f"choices of {what}", "d.jsonl", jsonl({**ROW, "choices": text}) * 9) for what, text in CHOICES.items()),
    ("vqa", "a lone surrogate in a path", "d.jsonl", jsonl({**PICTURE, "image": "\ud800.png"}) * 9), ("qa", "an unknown suffix", "d.xlsx", jsonl(ROW) * 9),
    ("qa", "a pickle", "d.pkl", b"\x80\x04K\x01."), ("vqa", "image that is not there", "d.jsonl", jsonl({**PICTURE, "image": "none.png"}) * 9),
    ("vqa", "image above", "d.jsonl", jsonl({**PICTURE, "image": "../outside.png"}) * 9),
    ("vqa", "an absolute image", "d.jsonl", jsonl({**PICTURE, "image": "/etc/passwd"}) * 9),
    ("vqa", "an image of text", "d.jsonl", jsonl({**PICTURE, "image": "d.jsonl"}) * 9),
    ("vqa", "an image of a device", "d.jsonl", jsonl({**PICTURE, "image": "/dev/zero"}) * 9),
    ("vqa", "an image of an address", "d.jsonl", jsonl({**PICTURE, "image": "http://localhost/x.png"}) * 9),
    ("vqa", "images of garbage", "d.parquet", parquet(image=[b"GIF89a?", b"\x89PNG?"], question=["a", "b"], answer=["c", "d"])),
    ("vqa", "a cut image", "d.jsonl", jsonl({**PICTURE, "image": "cut.png"}) * 9), ("caption", "no captions", "d.jsonl", jsonl({"image": "image.png"}) * 9),
    ("caption", "no images", "d.jsonl", jsonl({"caption": "a red square"}) * 9), ("text", "a folder without tasks", "emptied", b""),
    ("text", "a YAML with code", "d.yaml", b"task: x\ndataset_path: json\nprocess_docs: !function code.run\n"),
]  # fmt: skip
"""Data for `bench add-task`: kind of the task, what is wrong, name and content of the file."""

OWN = SEQUENCE.encode()
SEQUENCES: list[tuple[str, bytes]] = [
    ("empty", b""), ("only a comment", b"# nothing\n"), ("a list", b"- a\n- b\n"), ("a text", b"hello"), ("tabs", b"sequence:\tmine\n\tversion: 1\n"),
    ("an open quote", b"sequence: 'mine\n"), ("a key twice", OWN + b"version: 2\n"), ("two documents", OWN + b"---\n" + OWN), ("binary", bytes(range(256))),
    ("NUL", b"sequence: mi\0ne\n"), ("UTF-16", SEQUENCE.encode("utf-16")), ("no UTF-8", b"sequence: \xff\xfe\n"), ("an alias of nothing", b"a: *none\n"),
    ("an alias of itself", b"a: &a [*a]\n"), ("deep", b"[" * 20_000), ("a deep mapping", b"a: " + b"{a: " * 5_000),
    ("Python", b"sequence: !!python/object/apply:os.system ['touch executed']\n"), ("five megabytes", b"sequence: " + b"x" * 5_000_000 + b"\n"),
    ("an escape sequence", b'sequence: "\\e[31mred"\nversion: 1\n'), ("a key that is a list", b"? [a, b]\n: 1\n"),
    ("an unknown tag", b"sequence: !thing mine\n"), ("JSON cut off", b'{"sequence": "mine", "version"'), ("5,000 digits", b"sequence: mine\nversion: " + b"9" * 5_000),
    ("a lone surrogate", b'sequence: "\\ud800"\n'),
]  # fmt: skip
"""Files in the place of a sequence's."""


def cases() -> Iterator[Case]:
    """All files, each with the command that reads it."""
    for kind, what, name, content in DATA:
        typed = ("bench", "add-task", kind, "--data", name, "--name", "b", "--sequence", "mine")
        names, files = ((name,), {name: content}) if "." in name else ((), {})
        yield Case(f"{kind}: {what}, {name}", typed, names, files)
    for what, content in SEQUENCES:
        yield Case(
            f"sequence: {what}", ("bench", "run", "mine"), ("mine.yaml",), {"registry/mine.yaml": content}
        )
