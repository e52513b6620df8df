"""What models, data sets and files say reaches terminals, pages and spreadsheets as text, and as nothing else."""

import csv
import io
import re
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from moextend.bench.report.formats import csv as as_csv
from moextend.bench.report.formats import latex, markdown, terminal
from moextend.bench.report.table import Column, Table, number, text
from moextend.errors import visible

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08gone\u202e"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def table(word: str) -> Table:
    columns = [Column("name", word, numeric=False), Column("x", "x"), Column("y", "y", numeric=False)]
    return Table("key", word, columns, [[[text(word), number(-1.5), text("-")]]], [f"note {word}"])


@pytest.mark.parametrize("render", [terminal.render, markdown, latex.render, as_csv.render])
def test_no_report_has_control_characters(render: Callable[[Sequence[Table]], str]) -> None:
    shown = render([table(HOSTILE)])
    assert not CONTROL.search(shown)
    assert "gone" in shown


PRINTED = r"\write18{x} #1 100% a_b^2 ~$&{} <b onclick='x'>[bold]z[/] | *i* `c` -- [a](b) " + "\x1b[2J\u202eé"


def test_every_format_shows_words_as_they_are() -> None:
    """Read back as a terminal, a Markdown reader and a spreadsheet do; LaTeX: test_paper.py."""
    want = visible(PRINTED)
    assert re.sub(r"\\([\\|*_<>`\[\]])", r"\1", markdown([table(PRINTED)])).count(want) >= 3
    row = next(csv.reader(io.StringIO(as_csv.render([table(PRINTED)]).splitlines()[1])))
    assert row[1] == want
    folded = "".join(terminal.render([table(PRINTED)]).split())
    assert folded.count("".join(f"note {want}".split())) == 1, "rich markup is text"


def test_an_answer_is_printed_and_not_obeyed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import moextend
    from moextend.cli import opening
    from moextend.cli.main import app

    monkeypatch.setattr(opening.ExtendedBase, "open_for", lambda *_: None)
    monkeypatch.setattr(moextend, "activate", lambda *_, **__: None)
    monkeypatch.setattr(moextend, "generate", lambda *_, **__: [HOSTILE + "\nnext"])
    app(["generate", "tiny", "--prompt", "p"], standalone_mode=False)
    out = capfd.readouterr().out
    assert not CONTROL.search(out) and out.endswith("gone\\u202e\nnext\n")


def test_markdown_has_no_links_of_others() -> None:
    shown = markdown([table("[click](javascript:alert(1)) ![x](http://x) <b>")])
    assert "\\[click\\](javascript" in shown and not re.search(r"(?<!\\)[\[\]<]", shown)


def test_no_cell_of_words_is_a_formula() -> None:
    words = [
        "=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "fine", "-", "-3.5", "+1e-3", "a=b",
    ]  # fmt: skip
    found = [next(csv.DictReader(io.StringIO(as_csv.render([table(word)])))) for word in words]
    names = [row[next(iter(set(row) - {"table", "x", "y", "x_sd", "notes"}))] for row in found]
    assert names == [
        "'=1+1", "'+cmd|' /C calc'!A0", "'-2+3", "'@SUM(A1)", "'\t=1", "'\\r=1", "fine", "-", "-3.5", "+1e-3", "a=b",
    ]  # fmt: skip
    assert {(row["x"], row["y"]) for row in found} == {("-1.5", "-")}, "numbers stay numbers"


def test_the_command_line_shows_the_control_characters_of_an_error() -> None:
    code = (
        "from moextend.cli import main\n"
        "from moextend.errors import MoextendError\n"
        "@main.app.command('fail')\n"
        "def fail():\n    raise MoextendError('\\x1b[2J')\n"
        "import sys; sys.argv = ['moextend', 'fail']; main.run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "error: \\x1b[2J\n"
