"""Plain text files as rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from moextend.data.table import read_table
from moextend.errors import InputError


def texts(tmp_path: Path, content: bytes | str) -> list[str]:
    path = tmp_path / "own.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_table([path], tmp_path).column("text"))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("one\ntwo\n three \n", ["one", "two", "three"]),
        ("\n\none\ntwo\n\n\n", ["one", "two"]),
        ("one\ntwo\n\nthree\n", ["one\ntwo", "three"]),
        ("one\r\ntwo\r\n \t\r\nthree", ["one\ntwo", "three"]),
        (b"\xef\xbb\xbfone\ntwo", ["one", "two"]),
    ],
)
def test_an_empty_line_parts_paragraphs_and_without_one_a_line_is_a_text(
    content: bytes | str, found: list[str], tmp_path: Path
) -> None:
    assert texts(tmp_path, content) == found


def test_texts_of_several_files_are_read_at_their_places(tmp_path: Path) -> None:
    for name, content in (("a.txt", "one\n\ntwo\nlines\n"), ("b.txt", "three\nfour")):
        (tmp_path / name).write_text(content)
    table = read_table([tmp_path / "a.txt", tmp_path / "b.txt"], tmp_path)
    rows = [(table.row(i, ("text",)), table.where(i)) for i in range(len(table))]
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    assert rows == [
        ({"text": "one"}, f"{a}: text 1"), ({"text": "two\nlines"}, f"{a}: text 2"),
        ({"text": "three"}, f"{b}: text 1"), ({"text": "four"}, f"{b}: text 2"),
    ]  # fmt: skip
    assert table.columns == ("text",) and table.home(3) == tmp_path


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"own\.txt: is not UTF-8 text\. Save it as UTF-8\."):
        texts(tmp_path, b"one\n\xff\xfe\n")
