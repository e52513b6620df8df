"""The project writes the field's terms: words that were replaced do not come back."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from moextend.bench.report.views.comparison import CHANGE, METRICS
from moextend.bench.report.views.forgetting import COLUMNS

ROOT = Path(__file__).parents[1]
GONE = {
    "learnt": "learned",
    "mend": "hint, fix",
    "mended": "fixed",
    "anew": "again",
    "commonest": "most common",
    "behold": "see",
    "thereof": "of it",
    "keep_closed": "retention_loss",
    "remember": "keep",
    "remembers": "keeps",
    "remembered": "kept, in the router-input memory",
    "made beside": "made with, co-active",
    "is_whole": "is_complete",
    "parted": "split",
    "told": "given, reported",
    "said": "(name the thing: answer, message, output)",
    "blind": "majority answer",
    "recogniser": "task inference",
    "recognise": "infer, identify",
    "recognised": "inferred, identified",
    "portrait": "task statistics",
    "portraits": "task statistics",
    "portray": "collect task statistics",
    "stands twice": "occurs twice",
    "moving rows": "gather/scatter",
    "kept prefix": "cached prefix",
    "learns alone": "only ... is trained",
    "in flight": "during the training",
    "what there is": "(name the things)",
    "whence": "from where",
    "wherein": "in which",
    "anybody": "(name the user or program)",
}
"""Word -> what is written instead."""
HISTORY = (
    "CHANGELOG.md", "docs/log.md", "tests/test_words.py",
)  # fmt: skip
"""The past, and this list."""


ALLOWED = re.compile(
    r"[\"'](said|blind)[\"']|blind people|words said again"  # tasks, which runs identify by their description
)
"""Uses that stay."""


def texts() -> Iterator[tuple[str, str]]:
    """Code, documents and configs; not fixtures and content that others wrote."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.toml", "registry/*.yaml", "tasks/*.yaml", "Makefile"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    for name in listed.stdout.split():
        path = ROOT / name
        if not name.startswith(("tests/fixtures/", *HISTORY)) and path.is_file() and not path.is_symlink():
            yield name, path.read_text(encoding="utf-8")


def test_replaced_words_stay_away() -> None:
    found, seen = [], 0
    words = re.compile(rf"(?<![A-Za-z])({'|'.join(GONE)})(?![A-Za-z])", re.IGNORECASE)
    for name, text in texts():
        seen += 1
        for number, line in enumerate(text.splitlines(), 1):
            found += [
                f"{name}:{number}: {word} (write: {GONE[word.lower()]})"
                for word in words.findall(ALLOWED.sub("", line))
            ]
    assert seen > 300, "the files of the checkout were read"
    assert not found, "\n".join(found)


def test_tables_have_the_names_of_the_literature() -> None:
    titles = [column.title for column in COLUMNS if not column.wide]
    assert titles == ["method", "task id", *METRICS.values(), CHANGE, "params", "MB", "TFLOP"]
    assert [*METRICS.values(), CHANGE] == ["LA", "ACC", "BWT", "FM", "FWT", "Δ text"]
