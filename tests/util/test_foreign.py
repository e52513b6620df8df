"""Errors of Python and of other libraries are printed in one line."""

import errno

import pytest

from moextend.errors import InputError, RunFailed
from moextend.util.foreign import explained


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return explained(caught)


def test_an_error_of_the_tree_stays_as_it_is() -> None:
    error = InputError("wrong.", where="x", hint="Fix it.")
    assert explained(error, where="y") is error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("stage"), "KeyError: 'stage' (test_foreign.py:"),
        (ValueError("two\n  lines\n\nand more."), "ValueError: two lines and more (test_foreign.py:"),
        (Unprintable(), "Unprintable: no message, at `raise error` (test_foreign.py:"),
        (OSError(errno.ENOSPC, "x", "/d/f"), "/d/f: no disk space left. Free some space"),
        (OSError(errno.EACCES, "x", "/d/f"), "/d/f: cannot be read or written: permission denied."),
        (OSError(errno.EMFILE, "x"), "too many open files. Raise the limit (ulimit -n 4096)"),
        (OSError(errno.EISDIR, "Is a directory", b"/d"), "/d: Is a directory. Check the path."),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no disk space left."),
        (MemoryError(), "out of memory. Use a smaller batch size, fewer --jobs"),
        (OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), "out of memory (CUDA out of memory. Tried 2 GiB)."),
        (ModuleNotFoundError("No module named 'x'", name="x"), "the package 'x' is not installed."),
        (ConnectionError("refused"), "ConnectionError: refused. Check the network"),
        (RuntimeError("https://me:secret@host/x"), "RuntimeError: https://***@host/x"),
    ],
)  # fmt: skip
def test_one_line_says_what_where_and_a_hint(error: Exception, words: str) -> None:
    found = raised(error)
    wrong = isinstance(error, IsADirectoryError)
    assert isinstance(found, InputError if wrong else RunFailed) and found.hint
    assert words in str(found) and "\n" not in str(found) and "secret" not in str(found)


def test_an_error_that_a_library_raises_after_a_full_disk() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904
    except RuntimeError as error:
        assert explained(error).what == "no disk space left."
